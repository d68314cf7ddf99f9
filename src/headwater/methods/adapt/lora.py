"""LoRA: leave every chosen linear map as it is and learn a low-rank correction beside it.

    before    y = W x + b
    after     y = W x + b + (alpha / rank) U D x      with D: rank × in, U: out × rank, U = 0 at the start

Only D and U train and are saved; merged, the correction is added to W, after which the encoder has its old architecture
and costs nothing more to run.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder, Paper
from headwater.parts import surgery
from headwater.parts.surgery import Adapted, Tuning

PAPER = Paper(
    title="LoRA: Low-Rank Adaptation of Large Language Models",
    year=2021,
    arxiv="2106.09685",
    differs="by default every attention map is corrected, not the queries and values alone, and a fused map of "
    "queries, keys and values is one map with one correction; no dropout before the correction.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`where` names linear maps by the last part of their module name, such as `qkv`."""

    rank: int = 8
    alpha: float = 16.0
    where: tuple[str, ...] = ("qkv", "out")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RequestError(f"LoRA: rank must be at least 1; got {self.rank}.")

    def build(self) -> "LoRA":
        return LoRA(self)


SMALL = Config(rank=4, alpha=8.0)
TINY = Config(rank=2, alpha=4.0)


class LowRank(Adapted):
    """A linear map and its correction."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        like = base.weight
        self.down = nn.Parameter(torch.empty(rank, base.in_features, dtype=like.dtype, device=like.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, dtype=like.dtype, device=like.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        out: Tensor = self.base(x) + self.scale * (x @ self.down.T @ self.up.T)
        return out

    def merged(self) -> nn.Linear:
        self.base.weight += self.scale * self.up @ self.down
        return self.base


class LoRA(Tuning):
    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder, changed in place. Raises RequestError when it has no linear map of the names asked for."""
        c = self.config
        return surgery.adapt(encoder, c.where, lambda base: LowRank(base, c.rank, c.alpha / c.rank), "LoRA")
