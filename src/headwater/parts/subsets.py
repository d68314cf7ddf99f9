"""Subsets of positions that have no geometry, such as the columns of a table: one to see, several to predict."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng


@dataclass(frozen=True)
class Subsets:
    """T-JEPA's choice: a context, and `n_targets` sets of other positions, which may overlap each other.

    Their shares of the positions are drawn from these ranges for every batch, again where both together exceed all of
    them; which positions, for every sample.
    """

    n_targets: int = 4
    context: tuple[float, float] = (0.2, 0.4)
    target: tuple[float, float] = (0.2, 0.4)

    def __post_init__(self) -> None:
        for name, (low, high) in (("context", self.context), ("target", self.target)):
            if not 0 <= low <= high < 1:
                raise RequestError(f"Subsets.{name} is a (low, high) pair of shares in [0, 1); got {(low, high)}.")
        if self.context[0] + self.target[0] > 1:
            raise RequestError(
                f"Subsets: a context of at least {self.context[0]} and targets of at least {self.target[0]} of the "
                f"positions exceed all of them."
            )

    def __call__(self, b: int, grid: tuple[int, ...], rng: Rng) -> tuple[Int[Tensor, "b k"], Int[Tensor, "b t m"]]:
        """The positions of the context and of each target."""
        n = math.prod(grid)
        if n < 2:
            raise RequestError(f"Subsets: {n} position cannot be split into some to see and some to predict.")
        ranges = [[max(1, int(share * n)) for share in pair] for pair in (self.context, self.target)]
        k, m = (rng.host.randint(*pair) for pair in ranges)
        while k + m > n:
            k, m = (rng.host.randint(*pair) for pair in ranges)
        context = rng.rand(b, n).argsort(1)[:, :k]
        taken = torch.zeros(b, n, dtype=torch.bool, device=context.device).scatter(1, context, True)
        score = rng.rand(b, self.n_targets, n).masked_fill(taken[:, None], 2.0)
        return context, score.argsort(2)[:, :, :m]
