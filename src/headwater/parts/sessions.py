"""Heads of sessions: each is linear and knows the classes of its own session alone (SLCA, arXiv 2303.05118).

Shapes: n samples, d features, k classes of the session. A head as an array
has a row per class, [k e] with e = d + 1, the offset last.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

SPREAD, MOMENTUM, DECAY, BATCH = 0.02, 0.9, 5e-4, 128  # of the first weights, and of their training


def unit(x: NDArray[Any]) -> float:
    """What makes features about as long as after a layer norm, the square root of d, on average."""
    return float(np.sqrt(x.shape[1] / max(np.square(x, dtype=np.float64).sum(1).mean(), 1e-300)))


def rescaled(head: Any, times: float) -> Float[Tensor, "k e"]:
    """The same head for features that are multiplied by 1 / `times`."""
    out = torch.tensor(head, dtype=torch.float64)
    out[:, :-1] *= times
    return out


def local_head(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int, steps: int, rate: float, rng: torch.Generator
) -> Float[Tensor, "k e"]:
    """By cross-entropy over the classes of the session alone, on features that stay as they are."""
    head = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype)
    nn.init.trunc_normal_(head[:, :-1], std=SPREAD, generator=rng)
    taught = torch.optim.SGD([head.requires_grad_(True)], lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.MultiStepLR(taught, [steps * 9 // 10])
    for _ in range(steps):
        rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=rng)
        taught.zero_grad()
        F.cross_entropy(x[rows] @ head[:, :-1].T + head[:, -1], y[rows]).backward()
        taught.step()
        falling.step()
    return head.detach()


class SessionHead(nn.Linear):
    """The head of a session whose encoder learns with it; features are multiplied by `scale` first."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__(dim, classes)
        self.scale = scale
        nn.init.trunc_normal_(self.weight, std=SPREAD)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return super().forward(x * self.scale)

    def array(self) -> NDArray[np.float64]:
        """For features as the encoder says them."""
        weight, bias = self.weight.detach().double() * self.scale, self.bias.detach().double()
        return torch.cat([weight, bias[:, None]], 1).cpu().numpy()
