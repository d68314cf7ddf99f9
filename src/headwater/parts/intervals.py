"""Masks for what stands in a row, such as the time of a series: blocks of neighbours of mixed lengths."""

import math
import random
from dataclasses import dataclass

import torch

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask
from headwater.parts.masks import Grid, Valid, hide


@dataclass(frozen=True)
class IntervalMask:
    """Hide blocks along the last axis, with all that stands beside them, until exactly so many places are left to see:
    a share of U(keep), drawn for every batch and rounded up (ECG-JEPA; Weimann and Conrad, 2024).

    A block is at least `least` long and at most what is still to be hidden. It lies anywhere in one of the stretches still
    seen, longer ones more often; where it does not fit it takes the whole stretch, and so joins its neighbours. What is
    left to hide and shorter than `least` is put to the edge of a block.
    """

    keep: tuple[float, float] = (0.15, 0.25)
    least: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.keep[0] <= self.keep[1] < 1:
            raise RequestError(f"IntervalMask.keep is a (low, high) pair strictly between 0 and 1; got {self.keep}.")
        if self.least < 1:
            raise RequestError(f"IntervalMask.least counts places and is at least 1; got {self.least}.")

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        n, rows = grid[-1], math.prod(grid[:-1])
        seen = math.ceil(n * rng.host.uniform(*self.keep))
        if seen >= n:
            raise RequestError(
                f"IntervalMask: a share of {self.keep} of {n} places is all of them; none would be hidden."
            )
        draw = rng.everyone()
        hidden = torch.tensor([self._blocks(n, n - seen, draw.host) for _ in range(b * rng.shards)])
        score = rng.rows(hidden, b).to(rng.device).repeat(1, rows) / 2 + rng.rand(b, n * rows) / 4
        return hide(score, (n - seen) * rows, valid)

    def _blocks(self, n: int, left: int, draw: random.Random) -> list[float]:
        """1 where a place is hidden; `left` of n are."""
        seen = [(0, n)]
        while left:
            start, end = seen.pop(draw.choices(range(len(seen)), [b - a for a, b in seen])[0])
            whole = left >= self.least
            length = draw.randint(self.least, left) if whole else left
            if end - start <= length:
                left -= end - start
                continue
            edges = [at for at, blocked in ((start, start > 0), (end - length, end < n)) if blocked]
            at = draw.randint(start, end - length) if whole or not edges else draw.choice(edges)
            seen += [(start, at), (at + length, end)]
            left -= length
        out = [1.0] * n
        for start, end in seen:
            out[start:end] = [0.0] * (end - start)
        return out
