"""A transformer that is told the time: every layer norm is scaled and shifted by it (adaLN-Zero; Peebles and Xie, 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features
from headwater.parts.positions import sincos
from headwater.parts.tokens import put
from headwater.parts.transformer import Attention, Tap, TransformerConfig, attended, initialise, mlp


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise RequestError(f"DiTConfig: dim {self.dim} does not divide into {self.heads} heads.")

    def build(self) -> "DiT":
        return DiT(self)


class Clock(nn.Module):
    """A time as a vector: sines and cosines of it, then two linear maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, time: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        waves = sincos(time[:, None].float(), self.dim)  # numbers of half precision would not tell 999 from 1000
        return F.silu(self.mlp(waves.to(next(self.mlp.parameters()).dtype)))


class ModulatedBlock(nn.Module):
    """Both branches are closed at first: it begins as the identity, whatever the time."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.dim, eps=config.eps) for _ in range(2))
        self.attention, self.mlp = Attention(config), mlp(config)
        self.modulation = nn.Linear(config.dim, 6 * config.dim)

    def forward(self, x: Float[Tensor, "b n d"], told: Float[Tensor, "b d"], mask: Tensor | None) -> Tap:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told)[:, None].chunk(6, -1)
        q, k, v = self.attention.split(self.norm1(x) * (1 + scale1) + shift1, None)
        x = x + gate1 * self.attention.mix(q, k, v, mask)
        return Tap(x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), q, k, v)


class Modulated(nn.Module):
    """Blocks and a last norm, which are told of something by a vector per sample."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = TransformerConfig(
            dim=config.dim, depth=config.depth, heads=config.heads, mlp_ratio=config.mlp_ratio, activation="gelu-tanh",
            eps=config.eps,
        )  # fmt: skip
        self.blocks = nn.ModuleList(ModulatedBlock(inner) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.apply(initialise)
        for block in self.blocks:
            assert isinstance(block, ModulatedBlock)
            nn.init.zeros_(block.modulation.weight)

    def forward(
        self, x: Float[Tensor, "b n d"], told: Float[Tensor, "b d"], valid: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        taps = self.trace(x, told, valid)
        out: Tensor = self.norm(taps[-1].out if taps else x)
        return out

    def trace(
        self, x: Float[Tensor, "b n d"], told: Float[Tensor, "b d"], valid: Bool[Tensor, "b n"] | None = None
    ) -> list[Tap]:
        mask, taps = None if valid is None else attended(valid), list[Tap]()
        for block in self.blocks:
            taps.append(block(taps[-1].out if taps else x, told, mask))
        return taps


class DiT(nn.Module):
    """The trunk of an encoder. Attention does not depend on places, so `place` and `bias`, which trunks may be given, say
    nothing here."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.clock, self.body = Clock(config.dim), Modulated(config)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Tensor] = (),
        time: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Without a time it is 0, that of clean samples."""
        return self.body(x, self.clock(x.new_zeros(len(x)) if time is None else time), valid)

    def trace(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Tensor] = (),
    ) -> list[Tap]:
        """What each block makes of clean samples."""
        return self.body.trace(x, self.clock(x.new_zeros(len(x))), valid)


class ModulatedDecoder(nn.Module):
    """From seen tokens, and mask tokens where there are none, to `out` numbers per token; the sample's own vector takes part."""

    def __init__(self, config: DiTConfig, out: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(config.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.body, self.modulation = Modulated(config), nn.Linear(config.dim, 2 * config.dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.out = nn.Linear(config.dim, out)

    def forward(
        self, seen: Features, keep: Int[Tensor, "b k"], place: Float[Tensor, "#b n d"], told: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n o"]:
        tokens = put(seen.tokens, keep, self.mask_token.expand(len(keep), place.shape[1], -1)) + place
        said = self.body(torch.cat([seen.pooled[:, None], tokens], 1), told)[:, 1:]
        shift, scale = self.modulation(told)[:, None].chunk(2, -1)
        out: Tensor = self.out(said * (1 + scale) + shift)
        return out
