"""Swin transformers (Liu et al., 2021 and 2022): attention within windows that shift by half from block to block.

Pictures become tokens, and after every stage but the last each two by two of them become one of twice the width. Version
2 normalises after each branch instead of before, compares queries and keys by their cosine, and draws the bias of each
pair from the distance between them through a small network, so that it carries over to other sizes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.tokens import Normalise
from headwater.parts.transformer import DropPath

MAX_LOGIT = math.log(100)  # what version 2 allows a cosine to be multiplied by, as a logarithm
BIAS_HIDDEN, BIAS_TOP = 512, 16  # the small network's width, and its largest bias


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """`dim` is the width of the first stage, `window` the tokens along each side of one.

    learned_at  version 2: the window of each stage at which the weights were learned, where it is another than now
    """

    modality: str = "image"
    channels: int = 3
    patch: int = 4
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    version: Literal[1, 2] = 1
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    eps: float = 1e-5
    drop_path: float = 0.0  # of the last block; grows linearly from 0 at the first
    learned_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads):
            raise RequestError(f"SwinConfig: depths {self.depths} and heads {self.heads} must name the same stages.")
        for stage, heads in enumerate(self.heads):
            if (self.dim << stage) % heads:
                raise RequestError(
                    f"SwinConfig: the width {self.dim << stage} of stage {stage + 1} does not divide into {heads} heads."
                )

    def build(self) -> "Swin":
        return Swin(self)


class Swin(Encoder):
    """Its tokens are those of the last stage, after the last norm; their mean is pooled."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config, self.modality = config, config.modality
        self.dim = config.dim << (len(config.depths) - 1)
        self.normalise = Normalise(config.channels)
        self.patches = nn.Conv2d(config.channels, config.dim, config.patch, config.patch)
        self.patch_norm = nn.LayerNorm(config.dim)
        rates, self.stages = iter(torch.linspace(0, config.drop_path, sum(config.depths)).tolist()), nn.ModuleList()
        self.merges = nn.ModuleList()
        for stage, deep in enumerate(config.depths):
            if stage:
                self.merges.append(Merge(config.dim << (stage - 1), config.version))
            self.stages.append(nn.ModuleList(Block(config, stage, i % 2 == 1, next(rates)) for i in range(deep)))
        self.norm = nn.LayerNorm(self.dim, config.eps)
        self.apply(_initialise)
        if config.version == 2:  # branches begin at nothing (Liu et al., 2022)
            for name, module in self.stages.named_modules():
                if isinstance(module, nn.LayerNorm) and name.endswith(("norm1", "norm2")):
                    nn.init.zeros_(module.weight)

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        if keep is not None:
            raise RequestError(
                "A Swin transformer attends within windows and cannot leave out tokens; this method needs an encoder such as "
                f"--encoder vit-tiny ({self.modality})."
            )
        tokens = self.norm(self.maps(x)[-1].permute(0, 2, 3, 1)).flatten(1, 2)
        return Features(tokens, tokens.mean(1))

    def maps(self, x: Input, upto: int | None = None) -> list[Float[Tensor, "b c h w"]]:
        """What the last block of each stage says, the finest first, before any last norm; of the first `upto` stages alone
        where that is given. What does not divide into patches, windows or pairs is filled up with zeros at the end."""
        dense, p, found = self.normalise(values(x)), self.config.patch, []
        h, w = dense.shape[2:]
        now = self.patch_norm(self.patches(F.pad(dense, (0, -w % p, 0, -h % p))).permute(0, 2, 3, 1))
        for stage, blocks in enumerate(self.stages[:upto]):
            if stage:
                now = self.merges[stage - 1](now)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                now = block(now)
            found.append(now.permute(0, 3, 1, 2))
        return found


class Block(nn.Module):
    def __init__(self, config: SwinConfig, stage: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        dim = config.dim << stage
        self.window, self.shift, self.after = config.window, config.window // 2 * shifted, config.version == 2
        self.attention: nn.Module = (
            CosineAttention(config, stage) if config.version == 2 else BiasedAttention(config, stage)
        )
        self.norm1, self.norm2 = nn.LayerNorm(dim, config.eps), nn.LayerNorm(dim, config.eps)
        hidden = int(dim * config.mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        if self.after:
            x = x + self.drop_path(self.norm1(self.windowed(x)))
            return x + self.drop_path(self.norm2(self.mlp(x)))
        x = x + self.drop_path(self.windowed(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def windowed(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        """Attention among the tokens of each window. A map no larger than a window is one window, which does not shift."""
        h, w = x.shape[1:3]
        side, shift = (self.window, self.shift) if min(h, w) > self.window else (min(h, w), 0)
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        parts = (
            x.unflatten(1, (rows, side))
            .unflatten(3, (columns, side))
            .transpose(2, 3)
            .reshape(-1, side * side, x.shape[3])
        )
        allowed = together(rows, columns, side, shift, x.device) if shift else None
        parts = self.attention(parts, side, allowed)
        x = parts.view(-1, rows, columns, side, side, x.shape[3]).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :h, :w]


def together(rows: int, columns: int, side: int, shift: int, device: torch.device) -> Bool[Tensor, "n t t"]:
    """Which tokens of each shifted window were neighbours before the shift brought the far edges together."""

    def region(windows: int) -> Tensor:
        at = torch.arange(windows * side, device=device)
        return (at >= windows * side - side).long() + (at >= windows * side - shift).long()

    region_of = 3 * region(rows)[:, None] + region(columns)
    parts = region_of.view(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, side * side)
    return parts[:, :, None] == parts[:, None, :]


class WindowAttention(nn.Module):
    """What both kinds of attention share."""

    def __init__(self, config: SwinConfig, stage: int, bias: bool) -> None:
        super().__init__()
        dim = config.dim << stage
        self.heads = config.heads[stage]
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "bn t d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [bn h t e]."""
        q, k, v = x.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def mixed(
        self,
        q: Float[Tensor, "bn h t e"],
        k: Float[Tensor, "bn h t e"],
        v: Float[Tensor, "bn h t e"],
        bias: Float[Tensor, "h t t"],
        allowed: Bool[Tensor, "n t t"] | None,
        scale: float,
    ) -> Float[Tensor, "bn t d"]:
        mask = bias[None].to(q.dtype)
        if allowed is not None:
            mask = mask.masked_fill(~allowed[:, None], -math.inf).repeat(len(q) // len(allowed), 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return self.out(out.transpose(1, 2).flatten(2))


class BiasedAttention(WindowAttention):
    """Version 1: scaled products, and a learned bias for each difference of places."""

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__(config, stage, config.qkv_bias)
        self.window = config.window
        self.table = nn.Parameter(torch.empty((2 * config.window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(
        self, x: Float[Tensor, "bn t d"], side: int, allowed: Bool[Tensor, "n t t"] | None
    ) -> Float[Tensor, "bn t d"]:
        apart = differences(side, x.device) + self.window - 1  # a smaller window uses the middle of the table
        bias = self.table[apart[..., 0] * (2 * self.window - 1) + apart[..., 1]].permute(2, 0, 1)
        q, k, v = self.split(self.qkv(x))
        return self.mixed(q, k, v, bias, allowed, q.shape[-1] ** -0.5)


class CosineAttention(WindowAttention):
    """Version 2: cosines times a learned factor, and a bias that a small network gives to each difference of places."""

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__(config, stage, bias=False)
        self.learned_at = config.learned_at[stage] if config.learned_at else 0
        dim = config.dim << stage
        self.bias_q, self.bias_v = (
            nn.Parameter(torch.zeros(dim)) if config.qkv_bias else None for _ in range(2)
        )  # a bias of keys would change all cosines of a query alike
        self.logit = nn.Parameter(torch.full((self.heads,), math.log(10)))
        self.bias = nn.Sequential(
            nn.Linear(2, BIAS_HIDDEN), nn.ReLU(inplace=True), nn.Linear(BIAS_HIDDEN, self.heads, bias=False)
        )

    def forward(
        self, x: Float[Tensor, "bn t d"], side: int, allowed: Bool[Tensor, "n t t"] | None
    ) -> Float[Tensor, "bn t d"]:
        apart = differences(side, x.device)
        steps = torch.arange(1 - side, side, device=x.device, dtype=x.dtype)
        steps = 8 * steps / max(1, (self.learned_at or side) - 1)
        steps = steps.sign() * (steps.abs() + 1).log2() / 3  # logarithmic distances, 1 at the window's far end
        table = self.bias(torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1))
        bias = BIAS_TOP * table[apart[..., 0] + side - 1, apart[..., 1] + side - 1].permute(2, 0, 1).sigmoid()
        qkv = self.qkv(x)
        if self.bias_q is not None and self.bias_v is not None:
            qkv = qkv + torch.cat([self.bias_q, torch.zeros_like(self.bias_q), self.bias_v])
        q, k, v = self.split(qkv)
        q = F.normalize(q, dim=-1) * self.logit.clamp(max=MAX_LOGIT).exp()[:, None, None]
        return self.mixed(q, F.normalize(k, dim=-1), v, bias, allowed, 1.0)


class Merge(nn.Module):
    """Two by two tokens, side by side, become one of twice the width."""

    def __init__(self, dim: int, version: int) -> None:
        super().__init__()
        self.first = version == 1  # version 2 normalises what comes out
        self.norm = nn.LayerNorm(4 * dim if self.first else 2 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b i j e"]:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
        return self.reduce(self.norm(x)) if self.first else self.norm(self.reduce(x))


def differences(side: int, device: torch.device) -> Int[Tensor, "t t 2"]:
    """Rows and columns from each token of a window to each other one."""
    at = torch.arange(side, device=device)
    place = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).view(-1, 2)
    return place[:, None] - place[None]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
