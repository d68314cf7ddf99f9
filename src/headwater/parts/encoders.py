"""Tokenizer + positions + transformer = an encoder of any modality that has a tokenizer."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input, Tokens
from headwater.core.verbs import Encoder, only
from headwater.parts.positions import LearnedPositions, sincos
from headwater.parts.tokens import TextTokenizer, Tokenizer, TokenizerConfig, pick
from headwater.parts.transformer import Tap, TransformerConfig, activation


@dataclass(frozen=True, kw_only=True)
class TokenEncoderConfig:
    """`pool`: the mean of the valid tokens, the class token, the last valid token (texts), or the mean of the class token
    and the registers, as AST and the distilled DeiT have it.

    `position`: fixed sines, a learned table for `grid` (which must then be given), or none (rotary trunks).
    `input_norm`: a layer norm before the first block, as in CLIP's image tower; in a post-norm trunk, of the embedding.
    `prefix_positions`: so many of the first prefix tokens have learned positions too. `token_types`, `position_offset`:
    as in BERT and RoBERTa; every token is of the first type. `pool=attention` is SigLIP's head.
    """

    tokenizer: TokenizerConfig
    trunk: TransformerConfig
    position: Literal["sincos", "learned", "none"] = "sincos"
    grid: tuple[int, ...] = ()
    class_token: bool = False
    registers: int = 0
    prefix_positions: int = 0
    token_types: int = 0
    position_offset: int = 0
    input_norm: bool = False
    pool: Literal["mean", "class", "last", "prefix", "attention"] = "mean"

    def __post_init__(self) -> None:
        if self.position == "learned" and not self.grid:
            raise RequestError("TokenEncoderConfig: position=learned needs grid, the patches along each axis.")
        if self.pool in ("class", "prefix") and not self.class_token:
            raise RequestError(f"TokenEncoderConfig: pool={self.pool} needs class_token=True.")

    def build(self) -> "TokenEncoder":
        return TokenEncoder(self)


class TokenwiseEncoder(Encoder):
    """An encoder made of tokens: it can leave some out, and hide some."""

    tokenizer: Tokenizer

    @abstractmethod
    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
    ) -> Features: ...


class TokenEncoder(TokenwiseEncoder):
    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.modality, self.dim = config.tokenizer.modality, config.trunk.dim
        self.tokenizer, self.trunk = config.tokenizer.build(self.dim), config.trunk.build()
        self.table = LearnedPositions(config.grid, self.dim) if config.position == "learned" else None
        self.n_prefix = config.registers + config.class_token
        self.prefix = nn.Parameter(torch.zeros(self.n_prefix, self.dim)) if self.n_prefix else None
        if self.prefix is not None:
            nn.init.normal_(self.prefix, std=0.02)
        q, k = config.prefix_positions, config.token_types
        self.prefix_table = nn.Parameter(torch.zeros(q, self.dim)) if q else None
        self.types = nn.Parameter(torch.zeros(k, self.dim)) if k else None
        self.head = AttentionPool(config.trunk) if config.pool == "attention" else None
        self.input_norm = nn.LayerNorm(self.dim, eps=config.trunk.eps) if config.input_norm else nn.Identity()

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
    ) -> Features:
        """Encode all tokens, or only those that `keep` names.

        With `hidden`, all places are encoded and those that are True hold `stand_in` (a mask token) instead of
        what is there, as SimMIM, BEiT and iBOT do.
        """
        tokens = self.embed(x, hidden, stand_in)
        tokens = tokens if keep is None else pick(tokens, keep)
        return self.summarise(self.trunk(*self._entering(tokens)), tokens.valid)

    def embed(
        self, x: Input, hidden: Bool[Tensor, "b n"] | None = None, stand_in: Float[Tensor, " d"] | None = None
    ) -> Tokens:
        """Tokens with their positions added, before any block."""
        tokens = self.tokenizer(x)
        vectors = tokens.x
        if hidden is not None and stand_in is not None:
            vectors = torch.where(hidden[..., None], stand_in.to(vectors.dtype), vectors)
        if self.table is not None:
            stretch = isinstance(x, Tensor) and not isinstance(self.tokenizer, TextTokenizer)
            vectors = vectors + self.table(self.tokenizer.grid(x), stretch, self.config.position_offset)
        elif self.config.position == "sincos":
            place = tokens.place if self.tokenizer.own_places else tokens.place[:1]
            vectors = vectors + sincos(place, self.dim).to(vectors.dtype)
        if self.types is not None:
            vectors = vectors + self.types[0]
        return Tokens(vectors, tokens.valid, tokens.place)

    def trace(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> list[Tap]:
        """Each block's output, queries, keys and values; prefix tokens come first."""
        tokens = self.embed(x)
        return self.trunk.trace(*self._entering(tokens if keep is None else pick(tokens, keep)))

    def summarise(self, out: Float[Tensor, "b q d"], valid: Bool[Tensor, "b n"] | None) -> Features:
        prefix, tokens = out[:, : self.n_prefix], out[:, self.n_prefix :]
        return Features(tokens, self._pool(prefix, tokens, valid), prefix if self.n_prefix else None, valid)

    def _pool(self, prefix: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        if self.config.pool == "class":
            return prefix[:, 0]
        if self.config.pool == "prefix":
            return prefix.mean(1)
        if self.head is not None:
            return self.head(tokens, valid)
        if self.config.pool == "last":
            if valid is None:
                return tokens[:, -1]
            return tokens[torch.arange(len(tokens), device=tokens.device), valid.sum(1).clamp(min=1) - 1]
        return mean_of(tokens, valid)

    def _entering(self, tokens: Tokens) -> tuple[Tensor, Tensor | None, Tensor]:
        """What the first block sees: prefix tokens first, then the others."""
        if self.prefix is None:
            return self.input_norm(tokens.x), tokens.valid, tokens.place
        b, q = len(tokens.x), self.n_prefix
        prefix: Tensor = self.prefix
        if self.prefix_table is not None:
            prefix = torch.cat([prefix[: len(self.prefix_table)] + self.prefix_table, prefix[len(self.prefix_table) :]])
        x = torch.cat([prefix.to(tokens.x.dtype).expand(b, -1, -1), tokens.x], 1)
        valid = None if tokens.valid is None else torch.cat([tokens.valid.new_ones(b, q), tokens.valid], 1)
        place = torch.cat([tokens.place.new_zeros(b, q, tokens.place.shape[-1]), tokens.place], 1)
        return self.input_norm(x), valid, place


class AttentionPool(nn.Module):
    """A learned query that attends to all tokens, then a residual MLP (SigLIP, 2023)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.query = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.attention = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), activation(config.activation), nn.Linear(hidden, dim))

    def forward(self, x: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b d"]:
        query = self.query.expand(len(x), -1, -1)
        said, _ = self.attention(query, x, x, key_padding_mask=None if valid is None else ~valid, need_weights=False)
        out: Tensor = (said + self.mlp(self.norm(said)))[:, 0]
        return out


def mean_of(x: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b d"]:
    """The mean of the valid tokens; zero for a sample that has none."""
    if valid is None:
        return x.mean(1)
    weight = valid[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def only_tokens(encoders: Mapping[str, Encoder], who: str) -> TokenwiseEncoder:
    """The one encoder of a method that hides tokens or aims at single ones. Raises RequestError for any other kind."""
    encoder = only(encoders, who)
    if not isinstance(encoder, TokenwiseEncoder):
        raise RequestError(
            f"{who} hides tokens and needs an encoder made of them, such as --encoder vit-tiny; "
            f"got a {type(encoder).__name__}, which sees every position."
        )
    return encoder
