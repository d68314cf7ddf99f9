"""SVFit: keep the singular vectors of every chosen linear map and train its largest singular values.

    before    y = W x + b,    W = U S V^T
    after     y = W_e x + U_r (s * V_r^T x) + b      with W_e what the r largest singular values leave of W

Only s trains, from the values it has: r numbers a map. Each scales one fixed direction of rank one. Merged, W is whole again.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder, Paper
from headwater.parts import surgery
from headwater.parts.surgery import Adapted, Tuning

PAPER = Paper(
    title="SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
    year=2024,
    arxiv="2409.05926",
    differs="by default every attention map is adapted, where the paper takes queries and values (unverified), and a fused map "
    "of queries, keys and values is one map; r is 768 at most, all that a base-size model has (unverified); the learning "
    "rate is ours. The saved values belong to the singular vectors of the encoder they were trained on, which are computed "
    "anew: where two singular values are equal those are not unique.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`rank` is r, at most as many as a map has; `where` names linear maps by the last part of their module name."""

    rank: int = 768
    where: tuple[str, ...] = ("qkv", "out")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RequestError(f"SVFit: rank must be at least 1; got {self.rank}.")

    def build(self) -> "SVFit":
        return SVFit(self)


SMALL = Config()
TINY = Config(rank=4)


class Singular(Adapted):
    """A linear map whose largest singular values train; `base` holds what they leave."""

    left: Tensor
    right: Tensor

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(base.weight.detach().double(), full_matrices=False)
        u, s, v = u[:, :rank], s[:rank], v[:rank]
        like = base.weight
        with torch.no_grad():
            base.weight.copy_(base.weight.double() - (u * s) @ v)
        self.base = base
        self.values = nn.Parameter(s.to(like))
        self.register_buffer("left", u.to(like))
        self.register_buffer("right", v.to(like))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        out: Tensor = self.base(x) + (x @ self.right.T * self.values) @ self.left.T
        return out

    def merged(self) -> nn.Linear:
        self.base.weight += (self.left * self.values) @ self.right
        return self.base


class SVFit(Tuning):
    rate = 3e-2  # a singular value is a larger number than a factor's entries

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder, changed in place. Raises RequestError when it has no linear map of the names asked for."""
        return surgery.adapt(encoder, self.config.where, lambda base: Singular(base, self.config.rank), "SVFit")
