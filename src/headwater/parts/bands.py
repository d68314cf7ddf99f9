"""Masks for what has axes of unlike kinds, such as the time and the pitch of a spectrogram: bands, and clusters of patches."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask
from headwater.parts.masks import Grid, SpanMask, Valid, hide, n_hidden


@dataclass(frozen=True)
class BandMask:
    """Hide stretches of `length` along `axis`, with all that stands beside them: of a spectrogram, axis 0 hides stretches
    of time at all pitches and axis 1 bands of pitch at all times (SpecAugment, 2019; Audio-MAE, 2022)."""

    ratio: float
    length: int = 1
    axis: int = 0

    def __post_init__(self) -> None:
        SpanMask(self.ratio, self.length)  # which says so where the ratio is none

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        if not -len(grid) <= self.axis < len(grid):
            raise RequestError(f"BandMask: a grid of {grid} has no axis {self.axis}.")
        axis = self.axis % len(grid)
        n = grid[axis]
        # a random phase per sample, then whole stretches ranked at random; the last term keeps places apart
        at = torch.arange(n, device=rng.device)
        stretch = (at + rng.randint(self.length, b, 1)) // self.length
        score = rng.rand(b, -(-n // self.length) + 1).gather(1, stretch) / 2 + 1e-4 * at / n
        score = score.view(b, *[n if a == axis else 1 for a in range(len(grid))]).expand(b, *grid)
        return hide(score.flatten(1), n_hidden("BandMask", self.ratio, n) * (math.prod(grid) // n), valid)


@dataclass(frozen=True)
class ClusterMask:
    """Hide clusters of c x c patches, wherever they fall, until exactly `ratio` is hidden; c is drawn from `side` for
    every batch (SSAST, 2022: 3 to 5). Single patches can be guessed from their neighbours, clusters less so."""

    ratio: float
    side: tuple[int, int] = (3, 5)

    def __post_init__(self) -> None:
        SpanMask(self.ratio, 1)
        if not 1 <= self.side[0] <= self.side[1]:
            raise RequestError(f"ClusterMask.side is (least, most) with 1 <= least <= most; got {self.side}.")

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        n, c = math.prod(grid), rng.host.randint(*self.side)
        # every place ranks as high as the highest of the clusters over it: the highest ranks are a union of clusters
        score = rng.rand(b, *grid)
        for axis in range(1, len(grid) + 1):
            score = F.pad(score.movedim(axis, -1), ((c - 1) // 2, c // 2), value=-1.0)
            score = score.unfold(-1, c, 1).amax(-1).movedim(-1, axis)
        score = score.flatten(1) * 0.999 + 1e-4 * rng.rand(b, n)
        return hide(score, n_hidden("ClusterMask", self.ratio, n), valid)
