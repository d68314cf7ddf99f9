"""What the methods of self-distillation over many views share (DINO and its descendants)."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.types import Input
from headwater.parts.ragged import cat


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
