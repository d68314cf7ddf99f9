"""What the methods of self-distillation over many views share (DINO and its descendants)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.parts.masks import MaskSampler, where_hidden
from headwater.parts.ragged import cat
from headwater.parts.tokens import Tokenizer


def by_size(network: Callable[[Input], Tensor], views: Sequence[Input]) -> list[Tensor]:
    """The network's answer to each view; views of one size, and all that are ragged, pass through it as one batch."""
    answers: dict[int, Tensor] = {}
    shapes = [view.shape if isinstance(view, Tensor) else None for view in views]
    for shape in dict.fromkeys(shapes):
        alike = [i for i, other in enumerate(shapes) if other == shape]
        rows = network(cat([views[i] for i in alike]))
        answers.update(zip(alike, rows.chunk(len(alike)), strict=True))
    return [answers[i] for i in range(len(views))]


def across_views(targets: Sequence[Float[Tensor, "b k"]], logits: Sequence[Float[Tensor, "b k"]]) -> Float[Tensor, ""]:
    """The cross-entropy of every target with every *other* view's logits, averaged over pairs and samples.

    `logits[i]` belongs to the same view as `targets[i]`; the views without a target come after those.
    """
    log_p = torch.stack([z.log_softmax(-1) for z in logits])
    others = log_p.sum(0) - log_p[: len(targets)]  # one product per target instead of one per pair
    return -(torch.stack(list(targets)) * others).sum(-1).mean() / (len(logits) - 1)


@dataclass(frozen=True)
class OneMasked:
    """Of several crops of each sample, stacked crop by crop, one is masked: `rows` numbers it among all, `drop` its hidden
    patches, `counted` says which of those are real (None: all), and `hidden` is the mask over all crops."""

    rows: Int[Tensor, " b"]
    drop: Int[Tensor, "b m"]
    counted: Bool[Tensor, "b m"] | None
    hidden: Bool[Tensor, "v n"]


def one_masked(mask: MaskSampler, crops: Input, each: int, tokenizer: Tokenizer, rng: Rng) -> OneMasked:
    """Masks a random one of the `each` crops of every sample, as iBOT and DINOv2 mask half of them."""
    b = len(crops) // each
    grid, valid = tokenizer.grid(crops), tokenizer.valid(crops)
    which = rng.randint(each, b)
    rows = which * b + torch.arange(b, device=which.device)
    split = mask(b, grid, rng, None if valid is None else valid[rows])
    hidden = torch.zeros(len(crops), math.prod(grid), dtype=torch.bool, device=which.device)
    hidden[rows] = where_hidden(split)
    counted = None if valid is None else valid[rows].gather(1, split.drop)
    return OneMasked(rows, split.drop, counted, hidden)
