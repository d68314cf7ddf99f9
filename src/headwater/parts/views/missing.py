"""Modalities that samples of a batch lack, and a view that takes some away, so that what learns does without."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Batch, Input
from headwater.parts.ragged import blank, rows
from headwater.parts.views.compose import check_within


@dataclass(frozen=True)
class DropModality:
    """Takes each modality from each sample with probability `p`, and leaves every sample at least one that it had.

    Where the draws would take all, the one that stays is any of them alike. What is taken is zeros afterwards, and
    `Batch.present` says so; the input is left as it is.
    """

    p: float = 0.3

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        names = list(batch.x)
        draw = rng.rand(len(batch), len(names))
        had = torch.ones_like(draw, dtype=torch.bool)
        if batch.present is not None:
            had = torch.stack([batch.present[m] for m in names], 1)
        luckiest = torch.where(had, draw, -1).argmax(1, keepdim=True)
        kept = had & ((draw >= self.p) | torch.zeros_like(had).scatter(1, luckiest, True))
        present = {m: kept[:, k] for k, m in enumerate(names)}
        x = {m: blank(x, present[m]) for m, x in batch.x.items()}
        return replace(batch, x=x, present=present)


def held(batch: Batch, modality: str) -> Input:
    """What the samples of a batch hold of a modality, without those that lack it."""
    x = batch.x[modality]
    return x if batch.present is None else rows(x, batch.present[modality])


def whole(batch: Batch) -> Bool[Tensor, " b"] | None:
    """Which samples have every modality; None: all do."""
    return None if batch.present is None else torch.stack([*batch.present.values()]).all(0)
