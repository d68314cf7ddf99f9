"""Conformer (Gulati et al., 2020): attention for what is far, convolution for what is near, between two half networks."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.parts.encoders import TokenwiseEncoder, mean_of
from headwater.parts.speech import covered, in_a_row, seen_of
from headwater.parts.tokens import TokenizerConfig, take


@dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    """The tokenizer stands in for the paper's two strided convolutions: with (4, mels) patches it makes the same 40 ms.

    kernel   tokens that a convolution sees, an odd number
    norm     within the convolution: over the batch, as in the paper, or over the channels of each token, which does not
             depend on the batch (w2v-BERT, 2021)
    """

    tokenizer: TokenizerConfig
    dim: int = 144
    depth: int = 16
    heads: int = 4
    mlp_ratio: float = 4.0
    kernel: int = 31
    norm: Literal["batch", "layer"] = "batch"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % 2:
            raise RequestError(f"ConformerConfig: dim {self.dim} must be even and divide into {self.heads} heads.")
        if self.kernel % 2 == 0:
            raise RequestError(f"ConformerConfig: kernel is an odd number of tokens; got {self.kernel}.")

    def build(self) -> "Conformer":
        return Conformer(self)


class Conformer(TokenwiseEncoder):
    """Pools the mean of the valid tokens."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.tokenizer.modality, config.dim
        self.tokenizer = in_a_row(config.tokenizer, config.dim)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.depth))

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
    ) -> Features:
        """As every `TokenwiseEncoder`, but that tokens which are not kept save no work: they count as padding, so that
        the others keep their distances."""
        tokens = covered(self.tokenizer(x), hidden, stand_in)
        seen, out = seen_of(tokens, keep), tokens.x
        table = distances(out.shape[1], self.dim, out)
        for block in self.blocks:
            out = block(out, seen, table)
        valid = tokens.valid
        if keep is not None:
            out, valid = take(out, keep), None if valid is None else valid.gather(1, keep)
        return Features(out, mean_of(out, valid), None, valid)


class ConformerBlock(nn.Module):
    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.before, self.after = _network(config), _network(config)
        self.attention, self.convolution = RelativeAttention(config), Convolution(config)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    def forward(
        self, x: Float[Tensor, "b n d"], seen: Bool[Tensor, "b n"] | None, table: Float[Tensor, "m d"]
    ) -> Float[Tensor, "b n d"]:
        x = x + self.before(x) / 2
        x = x + self.attention(x, seen, table)
        x = x + self.convolution(x, seen)
        out: Tensor = self.norm(x + self.after(x) / 2)
        return out


class RelativeAttention(nn.Module):
    """Attention that knows how far apart two tokens stand, by sines of their distance (Transformer-XL, 2019)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.heads, per = config.heads, config.dim // config.heads
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.qkv, self.out = nn.Linear(config.dim, 3 * config.dim), nn.Linear(config.dim, config.dim)
        self.far = nn.Linear(config.dim, config.dim, bias=False)
        self.to_content = nn.Parameter(torch.zeros(config.heads, 1, per))  # u and v in the papers
        self.to_distance = nn.Parameter(torch.zeros(config.heads, 1, per))

    def forward(
        self, x: Float[Tensor, "b n d"], seen: Bool[Tensor, "b n"] | None, table: Float[Tensor, "m d"]
    ) -> Float[Tensor, "b n d"]:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        far = self.far(table).view(len(table), self.heads, -1).permute(1, 2, 0)
        at = torch.arange(n, device=x.device)
        row = (at - at[:, None] + n - 1).expand(b, self.heads, n, n)  # of the table, for query i and key j
        bias = ((q + self.to_distance) @ far).gather(3, row) * q.shape[-1] ** -0.5
        if seen is not None:
            some = seen | ~seen.any(1, keepdim=True)  # a sample without a single real token must not become NaN
            bias = bias.masked_fill(~some[:, None, None], -torch.inf)
        said = F.scaled_dot_product_attention(q + self.to_content, k, v, attn_mask=bias)
        out: Tensor = self.out(said.transpose(1, 2).flatten(2))
        return out


class Convolution(nn.Module):
    """A gate, a convolution of each channel by itself, and a norm. Padding is silence to it."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.widen, self.out = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.deep = nn.Conv1d(dim, dim, config.kernel, padding=config.kernel // 2, groups=dim, bias=False)
        self.inner = nn.BatchNorm1d(dim) if config.norm == "batch" else nn.LayerNorm(dim, eps=config.eps)

    def forward(self, x: Float[Tensor, "b n d"], seen: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n d"]:
        gated = F.glu(self.widen(self.norm(x)))
        gated = gated if seen is None else torch.where(seen[..., None], gated, 0.0)
        near = self.deep(gated.transpose(1, 2)).transpose(1, 2)
        if isinstance(self.inner, nn.LayerNorm):
            near = self.inner(near)
        elif seen is None or not self.training:
            near = self.inner(near.flatten(0, 1)).view_as(near)
        else:  # the statistics are of real tokens alone
            normed = self.inner(near[seen])
            near = normed.new_zeros(near.shape).index_put((seen,), normed)
        out: Tensor = self.out(F.silu(near))
        return out


def distances(n: int, dim: int, like: Tensor) -> Float[Tensor, "m d"]:
    """Sines and cosines, side by side, of the distances n - 1 (the key lies before the query) to 1 - n."""
    place = torch.arange(n - 1, -n, -1, device=like.device, dtype=torch.float32)
    speed = 10_000.0 ** (-torch.arange(0, dim, 2, device=like.device, dtype=torch.float32) / dim)
    angle = place[:, None] * speed
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(like.dtype)


def _network(config: ConformerConfig) -> nn.Sequential:
    hidden = int(config.dim * config.mlp_ratio)
    return nn.Sequential(
        nn.LayerNorm(config.dim, eps=config.eps),
        nn.Linear(config.dim, hidden),
        nn.SiLU(),
        nn.Linear(hidden, config.dim),
    )
