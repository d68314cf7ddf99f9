"""What the methods of self-distillation over many views share (DINO and its descendants)."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """The network's answer to each view; views of one size pass through it as one batch."""
    answers: dict[int, Tensor] = {}
    for shape in dict.fromkeys(view.shape for view in views):
        alike = [i for i, view in enumerate(views) if view.shape == shape]
        rows = network(torch.cat([views[i] for i in alike]))
        answers.update(zip(alike, rows.chunk(len(alike)), strict=True))
    return [answers[i] for i in range(len(views))]


def across_views(targets: Sequence[Float[Tensor, "b k"]], logits: Sequence[Float[Tensor, "b k"]]) -> Float[Tensor, ""]:
    """The cross-entropy of every target with every *other* view's logits, averaged over pairs and samples.

    `logits[i]` belongs to the same view as `targets[i]`; the views without a target come after those.
    """
    log_p = torch.stack([z.log_softmax(-1) for z in logits])
    others = log_p.sum(0) - log_p[: len(targets)]  # one product per target instead of one per pair
    return -(torch.stack(list(targets)) * others).sum(-1).mean() / (len(logits) - 1)
