"""A bidirectional Llama that knows the time: the scales of its norms are made from it, as in models that denoise."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.parts.positions import rotate, rotation, sincos
from headwater.parts.transformer import attended


@dataclass(frozen=True, kw_only=True)
class TimedConfig:
    """`hidden`: the width of the gated MLP; 0: four times `dim`."""

    dim: int
    depth: int
    heads: int
    hidden: int = 0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % (2 * self.heads):
            raise RequestError(f"TimedConfig: dim {self.dim} does not divide into {self.heads} heads of even width.")

    def build(self) -> "TimedTransformer":
        return TimedTransformer(self)


class TimedNorm(nn.Module):
    """RMS norm whose scale is a linear function of the time's embedding, one at the start."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps, self.scale = eps, nn.Linear(dim, dim)
        nn.init.zeros_(self.scale.weight)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Float[Tensor, "b n d"], time: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * self.scale(time)[:, None]


class TimedBlock(nn.Module):
    def __init__(self, config: TimedConfig) -> None:
        super().__init__()
        dim, hidden, self.heads = config.dim, config.hidden or 4 * config.dim, config.heads
        self.norm1, self.norm2 = TimedNorm(dim, config.eps), TimedNorm(dim, config.eps)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b n d"], time: Float[Tensor, "b d"], mask: Tensor, turn: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "b n d"]:
        q, k, v = self.qkv(self.norm1(x, time)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q, *turn), rotate(k, *turn), v, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x, time)
        out: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return out


class TimedTransformer(nn.Module):
    def __init__(self, config: TimedConfig) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        self.clock = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.blocks = nn.ModuleList(TimedBlock(config) for _ in range(config.depth))
        self.norm = TimedNorm(dim, config.eps)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        t: Float[Tensor, " b"],
        valid: Bool[Tensor, "b n"],
        place: Float[Tensor, "b n 1"],
    ) -> Float[Tensor, "b n d"]:
        """Tokens at times from 0 to 1; those that are not valid are never attended to."""
        time = self.clock(sincos(1000 * t[:, None], self.config.dim).to(x.dtype))
        turn = rotation(place, self.config.dim // self.config.heads, base=10_000.0)
        mask = attended(valid)
        for block in self.blocks:
            x = block(x, time, mask, turn)
        out: Tensor = self.norm(x, time)
        return out
