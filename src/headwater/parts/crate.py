"""White-box transformers (CRATE; Yu et al., 2023): every layer is a step of optimisation.

An encoding layer compresses the tokens towards subspaces that it has learned (attention with one map for queries, keys
and values), then codes them sparsely in a dictionary that it has learned (a proximal gradient step). A decoding layer
undoes both, nearly: it leaves the code by a linear map and takes the tokens away from the subspaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.parts.transformer import Tap, attended


@dataclass(frozen=True, kw_only=True)
class CrateConfig:
    """`step`: the length of the gradient step towards the code (the paper's eta). `penalty`: what a code costs per unit
    (lambda). `decoding`: layers that undo those of an encoder with the same sizes."""

    dim: int
    depth: int
    heads: int
    step: float = 0.1
    penalty: float = 0.5
    decoding: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise RequestError(f"CrateConfig: dim {self.dim} does not divide into {self.heads} heads.")

    def build(self) -> "Crate":
        return Crate(self)


class SubspaceAttention(nn.Module):
    """Attention in which a token's query, key and value are the same: its coordinates in one subspace per head."""

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.subspaces = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)
        for layer in (self.subspaces, self.out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.out.bias)

    def split(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n e"]:
        return self.subspaces(x).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def mix(self, w: Float[Tensor, "b h n e"], mask: Tensor | None) -> Float[Tensor, "b n d"]:
        out: Tensor = self.out(F.scaled_dot_product_attention(w, w, w, attn_mask=mask).transpose(1, 2).flatten(2))
        return out


class SparseCode(nn.Module):
    """One proximal gradient step on |D z - u|^2 / 2 + penalty |z|_1 over z >= 0, begun at z = u."""

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.step, self.penalty = config.step, config.penalty
        self.dictionary = nn.Parameter(torch.empty(config.dim, config.dim))
        nn.init.kaiming_uniform_(self.dictionary)

    def forward(self, u: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        lacking = u - u @ self.dictionary.T  # tokens are rows: D u is u D^T
        return F.relu(u + self.step * (lacking @ self.dictionary - self.penalty))


class CrateBlock(nn.Module):
    """Compresses, then codes; nothing leads around the code, or it would not be sparse."""

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.dim, eps=config.eps) for _ in range(2))
        self.attention, self.code = SubspaceAttention(config), SparseCode(config)

    def forward(self, x: Float[Tensor, "b n d"], mask: Tensor | None) -> Tap:
        w = self.attention.split(self.norm1(x))
        return Tap(self.code(self.norm2(x + self.attention.mix(w, mask))), w, w, w)


class CrateDecoderBlock(nn.Module):
    """Leaves the code, then expands: what attention says is taken away."""

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.dim, eps=config.eps) for _ in range(2))
        self.attention = SubspaceAttention(config)
        self.uncode = nn.Parameter(torch.empty(config.dim, config.dim))
        nn.init.kaiming_uniform_(self.uncode)

    def forward(self, x: Float[Tensor, "b n d"], mask: Tensor | None) -> Tap:
        x = self.norm1(x) @ self.uncode.T
        w = self.attention.split(self.norm2(x))
        return Tap(x - self.attention.mix(w, mask), w, w, w)


class Crate(nn.Module):
    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.config = config
        block = CrateDecoderBlock if config.decoding else CrateBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Tensor] = (),
    ) -> Float[Tensor, "b n d"]:
        """Tokens that are not valid are never attended to. Attention does not depend on places, so `place` and `bias`,
        which trunks may be given, say nothing here."""
        taps = self.trace(x, valid, place, bias)
        out: Tensor = self.norm(taps[-1].out if taps else x)
        return out

    def trace(
        self,
        x: Float[Tensor, "b n d"],
        valid: Bool[Tensor, "b n"] | None = None,
        place: Float[Tensor, "b n r"] | None = None,
        bias: Sequence[Tensor] = (),
    ) -> list[Tap]:
        """Each layer's output, and its tokens' coordinates in the subspaces, which are queries, keys and values alike."""
        mask = None if valid is None else attended(valid)
        taps: list[Tap] = []
        for block in self.blocks:
            taps.append(block(taps[-1].out if taps else x, mask))
        return taps
