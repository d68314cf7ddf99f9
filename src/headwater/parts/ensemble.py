"""Perceptrons that start as copies of one another and are trained side by side, each on batches of its own.

Shapes: e members, n rows, b rows of a batch, d features, k outputs.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.core.rng import Rng

Batches = Callable[[int], tuple[Float[Tensor, "e b d"], Int[Tensor, "e b"], Float[Tensor, "e b"]]]


class Ensemble(nn.Module):
    """Layers of these widths with ReLU in between, drawn once (He et al., 2015) and copied for each member."""

    def __init__(self, widths: tuple[int, ...], members: int, rng: Rng) -> None:
        super().__init__()
        self.members = members
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for a, b in pairwise(widths):
            self.weight.append((rng.randn(a, b) * (2 / a) ** 0.5).expand(members, a, b).clone())
            self.bias.append(torch.zeros(members, 1, b))

    def forward(self, x: Float[Tensor, "e b d"]) -> Float[Tensor, "e b k"]:
        for i, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(bias, F.relu(x) if i else x, weight)
        return x

    @torch.no_grad()
    def chances(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "e n k"]:
        """The softmax of every member."""
        return self(x.expand(self.members, *x.shape)).softmax(2)


def train(ensemble: Ensemble, batches: Batches, steps: int, rate: float) -> None:
    """Adam on the weighted cross-entropy, the mean over each batch; `batches` gives those of a step: rows, targets and
    weights of every member."""
    adam = torch.optim.Adam(ensemble.parameters(), lr=rate)
    for step in range(steps):
        x, y, weight = batches(step)
        losses = F.cross_entropy(ensemble(x).flatten(0, 1), y.flatten(), reduction="none")
        adam.zero_grad()
        (losses * weight.flatten()).view(len(y), -1).mean(1).sum().backward()
        adam.step()


def shuffled(n: int, members: int, batch: int, rng: Rng) -> Callable[[int], Int[Tensor, "e b"]]:
    """Batches of positions, each member going through all n in orders of its own, again and again."""
    orders: list[Tensor] = []

    def draw(step: int) -> Tensor:
        if not orders or orders[-1].shape[1] < batch:
            left = orders.pop() if orders else torch.empty(members, 0, dtype=torch.long)
            while left.shape[1] < batch:
                left = torch.cat([left, rng.rand(members, n).argsort(1)], 1)
            orders.append(left)
        orders[-1], taken = orders[-1][:, batch:], orders[-1][:, :batch]
        return taken

    return draw
