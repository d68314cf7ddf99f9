"""Cells of table rows: which to hide, which to deal anew, and what stood in the hidden ones."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.rng import Rng
from headwater.core.types import Step
from headwater.parts.losses import Gather, masked_mean
from headwater.parts.tokens import Normalise


def chosen(x: Float[Tensor, "b n"], share: float, rng: Rng) -> Bool[Tensor, "b n"]:
    """round(share n) random cells of each row."""
    b, n = x.shape
    hit = torch.zeros(b, n, dtype=torch.bool, device=x.device)
    return hit.scatter(1, rng.rand(b, n).argsort(1)[:, : round(share * n)], True)


def dealt(x: Float[Tensor, "b n"], share: float, step: Step) -> Float[Tensor, "b n"]:
    """Rows of which this share of the cells hold what stands in their column in some row of everyone's (SCARF, 2022).

    A missing cell stays missing, and none becomes missing.
    """
    everyone = step.gather(x)
    donor = everyone.gather(0, step.rng.randint(len(everyone), *x.shape))
    hit = chosen(x, share, step.rng)
    return torch.where(hit & ~x.isnan() & ~donor.isnan(), donor, x)


class Restorer(nn.Module):
    """From a token of each column the number that stands there, standardised, or the word: one softmax over all words of
    all columns (TIP, 2024). `counts` are the words of each column, 0 for numbers."""

    counts: Tensor
    first: Tensor

    def __init__(self, dim: int, counts: Int[Tensor, " n"]) -> None:
        super().__init__()
        self.register_buffer("counts", counts.clone(), persistent=False)
        self.register_buffer("first", counts.cumsum(0) - counts, persistent=False)
        self.number = nn.Linear(dim, 1) if (counts == 0).any() else None
        self.word = nn.Linear(dim, int(counts.sum())) if counts.any() else None

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        table: Float[Tensor, "b n"],
        normalise: Normalise,
        hidden: Bool[Tensor, "b n"],
        gather: Gather,
    ) -> Float[Tensor, ""]:
        """The mean square over hidden numbers and the cross-entropy over hidden words; where a table has both, half of
        each. What is missing, or a word never met, is no target."""
        asked, found = hidden & ~table.isnan(), []
        if self.number is not None:
            truth = normalise(table).nan_to_num(0.0)
            error = (self.number(tokens)[..., 0] - truth).square()
            found.append(masked_mean(error, asked & (self.counts == 0), gather))
        if self.word is not None:
            known = asked & (self.counts > 0) & (table < self.counts)
            code = torch.where(known, self.first + table, 0).long()
            error = F.cross_entropy(self.word(tokens).flatten(0, 1), code.flatten(), reduction="none").view(code.shape)
            found.append(masked_mean(error, known, gather))
        return torch.stack(found).mean()

    def cells(self, tokens: Float[Tensor, "b n d"], normalise: Normalise) -> Float[Tensor, "b n"]:
        """A guess of each cell: the number in its own unit, or the code of the likeliest word of its column."""
        out = tokens.new_zeros(tokens.shape[:2])
        if self.number is not None:
            out = self.number(tokens)[..., 0] * normalise.std + normalise.mean
        if self.word is not None:
            at = torch.arange(int(self.counts.sum()), device=tokens.device)
            own = (at >= self.first[:, None]) & (at < (self.first + self.counts)[:, None])
            best = self.word(tokens).masked_fill(~own, -torch.inf).argmax(-1) - self.first
            out = torch.where(self.counts > 0, best.to(out.dtype), out)
        return out
