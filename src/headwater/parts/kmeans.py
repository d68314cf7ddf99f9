"""k-means over features that come in pieces: exact passes of Lloyd, whose memory grows with the centres alone.

Shapes: n rows, d features, k centres, c rows of a piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.verbs import Vectors

SAMPLE = 20_000  # rows among which the first centres are drawn, or four per centre where that is more
SCORES = 1 << 24  # distances held at a time


@dataclass(frozen=True)
class Held:
    """Features in memory, as `Vectors`."""

    x: Float[Tensor, "n d"]
    rows: int = 4096

    def __post_init__(self) -> None:
        if not self.x.isfinite().all():
            raise RequestError("Features hold NaN or infinity; finite numbers are expected.")

    @property
    def dim(self) -> int:
        return self.x.shape[1]

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.x.split(self.rows))


def kmeans(
    vectors: Vectors, k: int, rng: Rng, iterations: int = 25, start: Float[Tensor, "k d"] | None = None
) -> Float[Tensor, "k d"]:
    """Centres after at most so many passes, from `start` or from k-means++ on a sample. A centre nearest to no row stays
    where it is."""
    if not 1 <= k <= len(vectors):
        raise RequestError(f"k-means with {k} centres was asked for, of {len(vectors)} items.")
    centres = plus_plus(sample(vectors, max(SAMPLE, 4 * k), rng), k, rng) if start is None else start
    for _ in range(iterations):
        sums, counts = torch.zeros(k, vectors.dim, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
        for piece in vectors:
            near, _ = assign(piece, centres)
            sums.index_add_(0, near, piece.double())
            counts += near.bincount(minlength=k)
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres.double()).float()
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def assign(x: Float[Tensor, "c d"], centres: Float[Tensor, "k d"]) -> tuple[Int[Tensor, " c"], Float[Tensor, " c"]]:
    """The nearest centre of each row, the first of equals, and the squared distance to it."""
    found = [
        (centres.square().sum(1) - 2 * rows @ centres.T).min(1) for rows in x.split(max(1, SCORES // len(centres)))
    ]
    near = torch.cat([f.indices for f in found])
    return near, (torch.cat([f.values for f in found]) + x.square().sum(1)).clamp(min=0)


def assigned(vectors: Vectors, centres: Float[Tensor, "k d"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The same of all rows, in one pass."""
    found = [assign(piece, centres) for piece in vectors]
    return torch.cat([near for near, _ in found]), torch.cat([far for _, far in found])


def sample(vectors: Vectors, size: int, rng: Rng) -> Float[Tensor, "m d"]:
    """At most so many rows, drawn without replacement, in order."""
    n = len(vectors)
    return gather(vectors, rng.rand(n).topk(min(size, n)).indices.sort().values)


def gather(vectors: Vectors, positions: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
    """The rows at ascending positions, in one pass."""
    parts, first = [], 0
    for piece in vectors:
        some = slice(*torch.searchsorted(positions, torch.tensor([first, first + len(piece)])).tolist())
        parts.append(piece[positions[some] - first])
        first += len(piece)
    return torch.cat(parts)


def plus_plus(x: Float[Tensor, "m d"], k: int, rng: Rng) -> Float[Tensor, "k d"]:
    """Centres drawn one by one among the rows, each with a probability that grows with the squared distance to those
    before it (k-means++, Arthur and Vassilvitskii, 2007)."""
    chosen = [int(rng.randint(len(x), 1))]
    far = torch.full((len(x),), torch.inf)
    for _ in range(k - 1):
        far = torch.minimum(far, (x - x[chosen[-1]]).square().sum(1))
        sums = far.double().cumsum(0)
        drawn = torch.searchsorted(sums, rng.rand(1).double() * sums[-1], right=True)
        chosen.append(int(drawn.clamp(max=len(x) - 1)))
    return x[torch.tensor(chosen)]


def joined(centres: Float[Tensor, "k d"], nearer: float | None = None, groups: int = 1) -> Int[Tensor, " k"]:
    """The group of each centre, from 0: centres nearer than that on average, or as many groups as asked for."""
    if len(centres) < 2:
        return torch.zeros(len(centres), dtype=torch.long)
    tree = linkage(centres.double().numpy(), "average")
    made = fcluster(tree, groups, "maxclust") if nearer is None else fcluster(tree, nearer, "distance")
    return torch.from_numpy(np.unique(made, return_inverse=True)[1])
