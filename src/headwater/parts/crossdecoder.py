"""A decoder whose tokens look at each other and then at a memory that stays as it is."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.parts.transformer import Attention, TransformerConfig, attended, initialise, mlp


class CrossAttention(nn.Module):
    """Queries of the tokens; keys and values of the memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.kv = nn.Linear(config.dim, config.dim), nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(
        self, x: Float[Tensor, "b n d"], memory: Float[Tensor, "b m d"], mask: Bool[Tensor, "b 1 1 m"] | None = None
    ) -> Float[Tensor, "b n d"]:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        said = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(said.transpose(1, 2).flatten(2))
        return out


class CrossBlock(nn.Module):
    """Self-attention, cross-attention, MLP, each with a norm before it and a sum after it; the memory has a norm of its own
    (CroCo; Weinzaepfel et al., 2022)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm_memory = (nn.LayerNorm(config.dim, config.eps) for _ in range(4))
        self.attention, self.cross, self.mlp = Attention(config), CrossAttention(config), mlp(config)

    def forward(
        self, x: Float[Tensor, "b n d"], memory: Float[Tensor, "b m d"], mask: Tensor | None, known: Tensor | None
    ) -> Float[Tensor, "b n d"]:
        x = x + self.attention.mix(*self.attention.split(self.norm1(x), None), mask)
        x = x + self.cross(self.norm2(x), self.norm_memory(memory), known)
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


class CrossDecoder(nn.Module):
    """Blocks that all see the same memory, and a norm at the end."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, config.eps)
        self.apply(initialise)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        memory: Float[Tensor, "b m d"],
        valid: Bool[Tensor, "b n"] | None = None,
        known: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`valid` and `known`: which tokens, and which of the memory, are real; the others are not attended to."""
        masks = [None if real is None else attended(real) for real in (valid, known)]
        for block in self.blocks:
            x = block(x, memory, *masks)
        out: Tensor = self.norm(x)
        return out
