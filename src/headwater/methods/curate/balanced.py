"""What the data hold plenty of is sampled rarely and what is rare often: clusters of clusters, each giving its share.

reads      features, in passes; memory grows with the number of clusters
fits       k-means of the items, k-means of its centres, and so on up; in between, each level is fitted again to the items
           nearest to its centres, which pulls centres out of the crowded regions
keeps      the budget, split among the clusters of the top as evenly as their sizes allow, and within each so on down
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import RequestError, unknown
from headwater.core.rng import Rng
from headwater.core.verbs import Choice, Known, Paper, Selector, Vectors
from headwater.parts.kmeans import Held, assign, assigned, kmeans

PAPER = Paper(
    title="Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach",
    year=2024,
    arxiv="2405.15613",
    differs="the levels default to one cluster per 30 items and one per 10 clusters above, the paper's are 10 million, 500, 50 "
    "and 10 thousand for 743 million images; 2 rounds of resampling, not 10; what a full cluster leaves over is given out to "
    "the unit; the features are any, not those of a DINOv2 trained on the raw pool.",
)
WITHIN = ("random", "nearest")


@dataclass(frozen=True)
class Balanced(Selector):
    """
    levels      how many clusters from the items up, such as (10000, 500, 50); empty: by the number of items
    resample    how often each level is fitted again to the `closest` items of each of its clusters
    within      which items of a cluster of the lowest level: drawn at random, or the nearest to its centre

    Columns: `group`, the cluster of the top, and `cluster`, that of the lowest level. Without a budget half is kept.
    """

    levels: tuple[int, ...] = ()
    resample: int = 2
    closest: int = 10
    iterations: int = 20
    within: str = "random"

    def __post_init__(self) -> None:
        if self.within not in WITHIN:
            raise unknown("way to choose within a cluster", self.within, WITHIN)
        if any(a <= b for a, b in zip(self.levels, self.levels[1:], strict=False)) or min(self.levels, default=1) < 1:
            raise RequestError(f"Levels are numbers of clusters, each smaller than the one before; got {self.levels}.")

    def select(self, features: Vectors, budget: int | None, rng: Rng, known: Known | None = None) -> Choice:
        n = len(features)
        budget = max(1, n // 2) if budget is None else budget
        if self.levels and self.levels[0] > n:
            raise RequestError(f"balanced: {self.levels[0]} clusters were asked for, of {n} items.")
        cluster, tree, far = self.fitted(features, rng)
        quota = torch.tensor([budget])
        sizes = [cluster.bincount(minlength=len(tree[0]))]
        for parent in tree[:-1]:
            sizes.append(torch.zeros(int(parent.max()) + 1, dtype=torch.long).index_add_(0, parent, sizes[-1]))
        for parent, size in zip(reversed(tree), reversed(sizes), strict=True):
            quota = handed_down(quota, parent, size)
        rank = rng.rand(n) if self.within == "random" else far
        order = rank.sort(stable=True).indices
        order = order[cluster[order].sort(stable=True).indices]  # by cluster, and by rank therein
        first = (sizes[0].cumsum(0) - sizes[0])[cluster[order]]
        kept = order[torch.arange(n) - first < quota[cluster[order]]].sort().values
        group = cluster
        for parent in tree[:-1]:
            group = parent[group]
        return Choice(kept, {"group": group, "cluster": cluster})

    def fitted(
        self, features: Vectors, rng: Rng
    ) -> tuple[Int[Tensor, " n"], list[Int[Tensor, " k"]], Float[Tensor, " n"]]:
        """The lowest cluster of each item, the parent of each cluster by level (all 0 at the top), and the squared distance
        of each item to its centre."""
        below, cluster, tree, far = features, None, [], None
        for k in self.levels or by_size(len(features)):
            centres = self.level(below, k, rng)
            near, distance = assigned(below, centres)
            if cluster is None:
                cluster, far = near, distance
            else:
                tree.append(near)
            below = Held(centres)
        assert cluster is not None and far is not None
        return cluster, [*tree, torch.zeros(len(below), dtype=torch.long)], far

    def level(self, below: Vectors, k: int, rng: Rng) -> Float[Tensor, "k d"]:
        centres = kmeans(below, k, rng, self.iterations)
        for _ in range(self.resample):
            centres = kmeans(Held(nearest_to(below, centres, self.closest)), k, rng, self.iterations, centres)
        return centres


def by_size(n: int) -> tuple[int, ...]:
    found = [max(1, min(10_000, n // 30))]
    while found[-1] >= 30:
        found.append(found[-1] // 10)
    return tuple(found)


def nearest_to(vectors: Vectors, centres: Float[Tensor, "k d"], closest: int) -> Float[Tensor, "m d"]:
    """The `closest` rows of each cluster, in one pass."""
    rows, near, far = torch.empty(0, vectors.dim), torch.empty(0, dtype=torch.long), torch.empty(0)
    for piece in vectors:
        found, distance = assign(piece, centres)
        rows, near, far = torch.cat([rows, piece]), torch.cat([near, found]), torch.cat([far, distance])
        order = far.sort(stable=True).indices
        order = order[near[order].sort(stable=True).indices]
        count = near.bincount(minlength=len(centres))
        place = torch.arange(len(order)) - (count.cumsum(0) - count)[near[order]]
        order = order[place < closest]
        rows, near, far = rows[order], near[order], far[order]
    return rows


def handed_down(quota: Int[Tensor, " p"], parent: Int[Tensor, " k"], size: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    """The quota of each parent among its children, as evenly as their sizes allow: all give the same, but those that have
    less give all they have. Exact: what does not divide goes to the first that have more."""
    out = torch.zeros_like(size)
    for p, total in enumerate(quota.tolist()):
        mine = (parent == p).nonzero()[:, 0]
        mine = mine[size[mine].sort(stable=True).indices]
        for done, child in enumerate(mine.tolist()):
            out[child] = min(int(size[child]), total // (len(mine) - done))
            total -= int(out[child])
    return out
