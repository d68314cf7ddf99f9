"""What an encoder that is asked by prompts looks at: the picture of it in the report of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headwater.core.types import Input
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.parts.prompted import Prompted
from headwater.report.traits import Seen, traits_picture

CLASSES, HEADS, WRONG = 8, 3, 2  # that are drawn


def draw(
    encoder: Prompted, test: Source, guess: np.ndarray, prepare: Callable[[Input], Input], at: Path
) -> Path | None:
    """One picture of each of the first classes that is told rightly, and some that are not, each with the maps of its class
    and of the class it was taken for. None where there is nothing to draw on: tokens that are no grid of patches."""
    assert test.labels is not None
    right = np.flatnonzero(guess == test.labels)
    chosen = [int(right[test.labels[right] == k][0]) for k in np.unique(test.labels[right])[:CLASSES]]
    wrong = [int(i) for i in np.flatnonzero((guess != test.labels) & (test.labels >= 0))[:WRONG]]
    device = next(encoder.parameters()).device
    rows = list[Seen]()
    for i in [*chosen, *wrong]:
        x = prepare(next(iter(Loader(test, 1).ordered(range(i, i + 1))))[1].x[encoder.modality])
        told, said = int(test.labels[i]), int(guess[i])
        if not isinstance(x, Tensor) or x.ndim != 4:
            return None
        grid = encoder.base.tokenizer.grid(x)
        picture = x[0] / 255 if x.dtype == torch.uint8 else x[0]
        for k in dict.fromkeys((told, said)):
            heads = encoder.ranked(x.to(device), torch.tensor([k], device=device))[0, :HEADS]
            maps = encoder.maps(x.to(device))[0, k, heads].unflatten(1, tuple(grid))
            words = test.classes[k] if told == said else f"{'is' if k == told else 'taken for'} {test.classes[k]}"
            rows.append(Seen(picture, words, maps, tuple(heads.tolist())))
    return traits_picture(rows, at) if rows else None
