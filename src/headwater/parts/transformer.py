"""A transformer over tokens, with everything the catalogue asks of one and no branch taken for what is off."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.parts.positions import rotate, rotation

Activation = Literal["gelu", "gelu-tanh", "quick-gelu", "relu", "swiglu"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    eps: float = 1e-6
    qkv_bias: bool | Literal["qv"] = True  # qv: of queries and values alone, as in BEiT
    drop_path: float = 0.0  # of the last block; grows linearly from 0 at the first
    layer_scale: float = 0.0  # initial value; 0 leaves it out
    rotary: bool = False
    causal: bool = False
    norm: Literal["pre", "post", "open"] = (
        "pre"  # before each branch; as in BERT after each sum; pre, but none at the end
    )

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise RequestError(f"TransformerConfig: dim {self.dim} does not divide into {self.heads} heads.")

    def build(self) -> "Transformer":
        return Transformer(self)


@dataclass(frozen=True)
class Tap:
    """What one block computed: its output and the queries, keys and values of its attention."""

    out: Float[Tensor, "b n d"]
    q: Float[Tensor, "b h n e"]
    k: Float[Tensor, "b h n e"]
    v: Float[Tensor, "b h n e"]


Turn = tuple[Tensor, Tensor] | None
Mask = Bool[Tensor, "b 1 #n n"] | Float[Tensor, "#b h n n"]  # who may be attended to, or what is added to the products


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias is True)
        partly = config.qkv_bias == "qv"
        self.bias_q, self.bias_v = (nn.Parameter(torch.zeros(config.dim)) if partly else None for _ in range(2))
        self.out = nn.Linear(config.dim, config.dim)

    def split(self, x: Float[Tensor, "b n d"], turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        b, n, _ = x.shape
        qkv = self.qkv(x)
        if self.bias_q is not None and self.bias_v is not None:
            qkv = qkv + torch.cat([self.bias_q, torch.zeros_like(self.bias_q), self.bias_v]).to(qkv.dtype)
        q, k, v = qkv.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return (q, k, v) if turn is None else (rotate(q, *turn), rotate(k, *turn), v)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Float[Tensor, "b n d"]:
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal and mask is None)
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    def __init__(self, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = mlp(config)
        self.scale1, self.scale2 = LayerScale.of(config), LayerScale.of(config)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"], mask: Tensor | None, turn: Turn) -> Float[Tensor, "b n d"]:
        q, k, v = self.attention.split(self.norm1(x), turn)
        return self.after(x, q, k, v, mask)

    def trace(self, x: Float[Tensor, "b n d"], mask: Tensor | None, turn: Turn) -> Tap:
        q, k, v = self.attention.split(self.norm1(x), turn)
        return Tap(self.after(x, q, k, v, mask), q, k, v)

    def after(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What the block makes of `x` by these queries, keys and values."""
        x = x + self.drop_path(self.scale1(self.attention.mix(q, k, v, mask)))
        out: Tensor = x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))
        return out


class PostBlock(Block):
    """The block of the first transformers and of BERT: each sum is normalised, not each branch."""

    def forward(self, x: Float[Tensor, "b n d"], mask: Tensor | None, turn: Turn) -> Float[Tensor, "b n d"]:
        return self.trace(x, mask, turn).out

    def trace(self, x: Float[Tensor, "b n d"], mask: Tensor | None, turn: Turn) -> Tap:
        q, k, v = self.attention.split(x, turn)
        return Tap(self.after(x, q, k, v, mask), q, k, v)

    def after(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x + self.drop_path(self.scale1(self.attention.mix(q, k, v, mask))))
        out: Tensor = self.norm2(x + self.drop_path(self.scale2(self.mlp(x))))
        return out


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        last, block = max(1, config.depth - 1), PostBlock if config.norm == "post" else Block
        self.blocks = nn.ModuleList(block(config, config.drop_path * i / last) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps) if config.norm == "pre" else nn.Identity()
        self.apply(initialise)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Float[Tensor, "#b h n n"]] = (),
    ) -> Float[Tensor, "b n d"]:
        """Tokens that are not valid are never attended to; what comes out at their places means nothing.

        `bias` is added to the products of queries and keys: one for all blocks, or one for each.
        """
        masks, turn = self._context(x, valid, place, bias)
        for block, mask in zip(self.blocks, masks, strict=True):
            x = block(x, mask, turn)
        out: Tensor = self.norm(x)
        return out

    def trace(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Float[Tensor, "#b h n n"]] = (),
    ) -> list[Tap]:
        """The same pass, block by block: for methods that aim at, or look into, inner layers."""
        masks, turn = self._context(x, valid, place, bias)
        taps: list[Tap] = []
        for block, mask in zip(self.blocks, masks, strict=True):
            assert isinstance(block, Block)
            taps.append(block.trace(x, mask, turn))
            x = taps[-1].out
        return taps

    def _context(
        self, x: Tensor, valid: Tensor | None, place: Tensor | None, bias: Sequence[Tensor]
    ) -> tuple[list[Tensor | None], Turn]:
        """The mask of each block, and the rotation."""
        depth, turn = self.config.depth, None
        if self.config.rotary:
            if place is None:
                raise RequestError("A rotary transformer needs the place of each token.")
            turn = rotation(place, self.config.dim // self.config.heads)
        if valid is None and not (bias and self.config.causal):
            return [*bias] * (depth // len(bias)) if bias else [None] * depth, turn
        allowed = attended(x.new_ones(1, x.shape[1], dtype=torch.bool) if valid is None else valid)
        if self.config.causal:
            n = x.shape[1]
            allowed = allowed & torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
        masks = [b.masked_fill(~allowed, -math.inf) for b in bias] or [allowed]
        return [*masks] * (depth // len(masks)), turn


def attended(valid: Bool[Tensor, "b n"]) -> Bool[Tensor, "b 1 1 n"]:
    """Who may be attended to: whoever is valid; everyone where none is, which must not become NaN."""
    return (valid | ~valid.any(1, keepdim=True))[:, None, None, :]


class LayerScale(nn.Module):
    """A learned factor per channel, small at the start (Touvron et al., 2021)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    @staticmethod
    def of(config: TransformerConfig) -> nn.Module:
        return LayerScale(config.dim, config.layer_scale) if config.layer_scale else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x * self.gamma


class DropPath(nn.Module):
    """Skip the whole residual branch of a sample now and then (Huang et al., 2016).

    It draws from torch's own generator, which the engine seeds anew at every step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        if not self.training:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x): what OpenAI's CLIP was trained with."""

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return x * torch.sigmoid(1.702 * x)


class SwiGLU(nn.Module):
    """The first half of the channels gates the second: silu(a) b (Shazeer, 2020)."""

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        a, b = x.chunk(2, -1)
        return F.silu(a) * b


def activation(name: Activation) -> nn.Module:
    made = {"gelu": nn.GELU, "quick-gelu": QuickGELU, "relu": nn.ReLU, "swiglu": SwiGLU}
    return nn.GELU("tanh") if name == "gelu-tanh" else made[name]()


def mlp(config: TransformerConfig) -> nn.Sequential:
    hidden = int(config.dim * config.mlp_ratio)
    rise = 2 * hidden if config.activation == "swiglu" else hidden
    return nn.Sequential(nn.Linear(config.dim, rise), activation(config.activation), nn.Linear(hidden, config.dim))


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
