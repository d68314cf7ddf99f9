"""Of items that are nearly the same one is enough: each that has a near twin before it goes.

reads      features, in passes; memory does not grow with the number of items, but for a few numbers of each
measures   the cosine similarity of each item to the most similar one before it
keeps      those whose similarity stays below a threshold; or, given a budget, those with the lowest

Twins are looked for within cells of k-means, and an item visits every other cell near whose border it lies: no pair above
the threshold is missed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.verbs import Choice, Known, Paper, Selector, Vectors
from headwater.parts.kmeans import Held, assign, gather, kmeans, sample

PAPER = Paper(
    title="SemDeDup: Data-efficient learning at web-scale through semantic deduplication",
    year=2023,
    arxiv="2303.09540",
    differs="items count as earlier by their place in the data, not by their distance from the centre of a cell; twins on two "
    "sides of a border between cells are found; the features are any, not CLIP's or OPT's.",
)
PER_CELL = 1000  # items of a cell, on average
CELLS = 256  # at most: every item is compared with every centre
ROUNDING = 1e-6


@dataclass(frozen=True)
class NearDuplicates(Selector):
    """
    threshold   the cosine similarity from which on two items are twins; without a budget it decides
    rows        how many items are held in memory at a time

    Columns: `similarity` to the most similar item before, at least where that reaches the threshold (else -1), and `twin`,
    its position (else -1). The first of several twins always stays.
    """

    threshold: float = 0.95
    rows: int = 1 << 16

    def __post_init__(self) -> None:
        if not -1 < self.threshold <= 1 or self.rows < 1:
            raise RequestError(f"A threshold of similarity is above -1 and at most 1; got {self.threshold}.")

    def select(self, features: Vectors, budget: int | None, rng: Rng, known: Known | None = None) -> Choice:
        n, floor = len(features), self.threshold
        cells = min(CELLS, max(1, n // PER_CELL))
        unit = Held(normalize(sample(features, 64 * cells, rng), dim=1))
        centres = kmeans(unit, cells, rng, iterations=10)
        similar, twin = self.earlier(features, centres, floor)
        if budget is None:
            kept = twin < 0
        else:
            while int((twin >= 0).sum()) < n - budget:  # too few twins: look for less similar ones
                floor = max(-1.0, 2 * floor - 1) if floor > 0 else -1.0
                similar, twin = self.earlier(features, centres, floor)
            kept = torch.ones(n, dtype=torch.bool)
            kept[similar.sort(descending=True, stable=True).indices[: n - budget]] = False
        facts = {"threshold": self.threshold if budget is None else float(similar[~kept].min()) if n > budget else 1.0}
        return Choice(kept.nonzero()[:, 0], {"similarity": similar, "twin": twin}, facts=facts)

    def earlier(
        self, features: Vectors, centres: Float[Tensor, "k d"], floor: float
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """The similarity to the most similar item before, and its position; -1 where all are below `floor`."""
        reach = max(0.0, 2 - 2 * (floor - ROUNDING)) ** 0.5  # how far apart twins are, at length 1
        home = torch.cat([assign(normalize(piece, dim=1), centres)[0] for piece in features])
        order = home.sort(stable=True).indices
        best, twin = torch.full((len(home),), -1.0), torch.full((len(home),), -1)
        for block in order.split(self.rows):  # items of some cells
            block = block.sort().values
            held, cell = normalize(gather(features, block), dim=1), home[block]
            first = 0
            for piece in features:
                piece, at = normalize(piece, dim=1), torch.arange(first, first + len(piece))
                first += len(piece)
                near = self.visits(piece, home[at], centres, reach)
                for c in cell.unique().tolist():
                    mine, theirs = (cell == c).nonzero()[:, 0], near[:, c].nonzero()[:, 0]
                    found = (held[mine] @ piece[theirs].T).masked_fill(at[theirs] >= block[mine, None], -2.0)
                    if not found.numel():
                        continue
                    score, place = found.max(1)
                    better = (score >= floor - ROUNDING) & ((score > best[block[mine]]) | (twin[block[mine]] < 0))
                    better &= score > -2
                    best[block[mine[better]]], twin[block[mine[better]]] = score[better], at[theirs[place[better]]]
        return best, twin

    @staticmethod
    def visits(
        x: Float[Tensor, "c d"], home: Int[Tensor, " c"], centres: Float[Tensor, "k d"], reach: float
    ) -> Bool[Tensor, "c k"]:
        """The cells within `reach` of each row: its own, and those whose border with it is as near. A row at most `reach`
        from one of another cell is at most that far from the border between the two."""
        far = centres.square().sum(1) - 2 * x @ centres.T
        apart = torch.cdist(centres, centres)[home]
        border = (far - far.gather(1, home[:, None])) / (2 * apart.clamp(min=1e-12))
        return border <= reach + 1e-4
