"""Tokenizer + positions + transformer = an encoder of any modality that has a tokenizer."""

import math
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
from headwater.parts.crate import CrateConfig
from headwater.parts.dit import DiTConfig
from headwater.parts.positions import LearnedPositions, RelativeBias, centred, sequence, sincos
from headwater.parts.tokens import TextTokenizer, Tokenizer, TokenizerConfig, pick
from headwater.parts.transformer import Tap, TransformerConfig, mlp

TrunkConfig = TransformerConfig | CrateConfig | DiTConfig


@dataclass(frozen=True, kw_only=True)
class TokenEncoderConfig:
    """`pool`: the mean of the valid tokens, the class token, the last valid token (texts), or the mean of the class token
    and the registers, as AST and the distilled DeiT have it.

    `position`: fixed sines, a learned table for `grid` (which must then be given), or none (rotary trunks). As in DINOv3
    a rotary trunk sees places `centred` on their grid; as in VideoMAE sines count the tokens in `sequence`, on a grid whose
    axes but the first are those of `grid`.
    `relative`: learned biases of attention by the difference of places on `grid`, one table for all blocks or one for each.
    `input_norm`: a layer norm before the first block, as in CLIP's image tower; in a post-norm trunk, of the embedding.
    `prefix_positions`: so many of the first prefix tokens have learned positions too. `token_types`, `position_offset`:
    as in BERT and RoBERTa; every token is of the first type. `pool=attention` is SigLIP's head. `pool_norm`: the epsilon
    of a layer norm of what was pooled; 0 leaves it out.
    """

    tokenizer: TokenizerConfig
    trunk: TrunkConfig
    position: Literal["sincos", "learned", "none", "centred", "sequence"] = "sincos"
    relative: Literal["none", "shared", "blocks"] = "none"
    grid: tuple[int, ...] = ()
    class_token: bool = False
    registers: int = 0
    prefix_positions: int = 0
    token_types: int = 0
    position_offset: int = 0
    input_norm: bool = False
    pool: Literal["mean", "class", "last", "prefix", "attention"] = "mean"
    pool_norm: float = 0.0

    def __post_init__(self) -> None:
        for field, value in (("position", self.position), ("relative", self.relative)):
            if value in ("learned", "sequence", "shared", "blocks") and not self.grid:
                raise RequestError(f"TokenEncoderConfig: {field}={value} needs grid, the patches along each axis.")
        if self.relative != "none" or self.position == "centred" or self.pool == "attention":
            _ = self.transformer
        if self.position == "centred" and (self.relative != "none" or not self.transformer.rotary):
            raise RequestError("TokenEncoderConfig: position=centred needs trunk.rotary=True and relative=none.")
        if self.pool in ("class", "prefix") and not self.class_token:
            raise RequestError(f"TokenEncoderConfig: pool={self.pool} needs class_token=True.")

    @property
    def transformer(self) -> TransformerConfig:
        """The trunk, for what only a plain transformer can do. Raises RequestError for any other."""
        if not isinstance(self.trunk, TransformerConfig):
            kind = type(self.trunk).__name__.removesuffix("Config")
            raise RequestError(f"This needs an encoder whose trunk is a plain transformer; its trunk is a {kind}.")
        return self.trunk

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
        self.head = AttentionPool(config.transformer) if config.pool == "attention" else None
        self.input_norm = nn.LayerNorm(self.dim, eps=config.trunk.eps) if config.input_norm else nn.Identity()
        self.pool_norm = nn.LayerNorm(self.dim, eps=config.pool_norm) if config.pool_norm else nn.Identity()
        tables = {"none": 0, "shared": 1, "blocks": config.trunk.depth}[config.relative]
        self.relative = nn.ModuleList(RelativeBias(config.grid, config.trunk.heads) for _ in range(tables))

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
        time: Float[Tensor, " b"] | None = None,
    ) -> Features:
        """Encode all tokens, or only those that `keep` names.

        With `hidden`, all places are encoded and those that are True hold `stand_in` (a mask token) instead of
        what is there, as SimMIM, BEiT and iBOT do. `time` is for trunks that can be told it.
        """
        tokens = self.embed(x, hidden, stand_in)
        tokens = tokens if keep is None else pick(tokens, keep)
        told = {} if time is None else {"time": time}
        return self.summarise(self.trunk(*self.entering(tokens, x, keep is None), **told), tokens.valid)

    def embed(
        self, x: Input, hidden: Bool[Tensor, "b n"] | None = None, stand_in: Float[Tensor, " d"] | None = None
    ) -> Tokens:
        """Tokens with their positions added, before any block."""
        tokens = self.tokenizer(x)
        vectors = tokens.x
        if hidden is not None and stand_in is not None:
            vectors = torch.where(hidden[..., None], stand_in.to(vectors.dtype), vectors)
        if self.table is not None:
            vectors = vectors + self.table(self.tokenizer.grid(x), self._stretches(x), self.config.position_offset)
        elif self.config.position == "sincos":
            place = tokens.place if self.tokenizer.own_places else tokens.place[:1]
            vectors = vectors + sincos(place, self.dim).to(vectors.dtype)
        elif self.config.position == "sequence":
            vectors = vectors + self._numbered(x).to(vectors.dtype)
        if self.types is not None:
            vectors = vectors + self.types[0]
        place = centred(tokens.place, tokens.valid) if self.config.position == "centred" else tokens.place
        return Tokens(vectors, tokens.valid, place)

    def _numbered(self, x: Input) -> Float[Tensor, "n d"]:
        grid, own = self.tokenizer.grid(x), self.config.grid
        if grid[1:] != own[1:]:
            raise RequestError(f"The encoder numbers its tokens on a grid of (any, {own[1:]}); the input has {grid}.")
        return sequence(math.prod(grid), self.dim, (x if isinstance(x, Tensor) else x.values).device)

    def _stretches(self, x: Input) -> bool:
        """Whether tables of positions are read by interpolation: neither in texts nor in padded batches."""
        return isinstance(x, Tensor) and not isinstance(self.tokenizer, TextTokenizer)

    def trace(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> list[Tap]:
        """Each block's output, queries, keys and values; prefix tokens come first."""
        tokens = self.embed(x)
        return self.trunk.trace(*self.entering(tokens if keep is None else pick(tokens, keep), x, keep is None))

    def summarise(self, out: Float[Tensor, "b q d"], valid: Bool[Tensor, "b n"] | None) -> Features:
        prefix, tokens = out[:, : self.n_prefix], out[:, self.n_prefix :]
        pooled = self.pool_norm(self._pool(prefix, tokens, valid))
        return Features(tokens, pooled, prefix if self.n_prefix else None, valid)

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

    def entering(self, tokens: Tokens, x: Input, whole: bool) -> tuple[Tensor, Tensor | None, Tensor, list[Tensor]]:
        """What the first block sees: prefix tokens first, then the others; and the biases of attention."""
        bias: list[Tensor] = []
        if len(self.relative):
            place = tokens.place[:1] if whole and not self.tokenizer.own_places else tokens.place
            grid, stretch = self.tokenizer.grid(x), self._stretches(x)
            bias = [table(place, self.n_prefix, grid, stretch) for table in self.relative]
        if self.prefix is None:
            return self.input_norm(tokens.x), tokens.valid, tokens.place, bias
        b, q = len(tokens.x), self.n_prefix
        prefix: Tensor = self.prefix
        if self.prefix_table is not None:
            prefix = torch.cat([prefix[: len(self.prefix_table)] + self.prefix_table, prefix[len(self.prefix_table) :]])
        vectors = torch.cat([prefix.to(tokens.x.dtype).expand(b, -1, -1), tokens.x], 1)
        valid = None if tokens.valid is None else torch.cat([tokens.valid.new_ones(b, q), tokens.valid], 1)
        place = torch.cat([tokens.place.new_zeros(b, q, tokens.place.shape[-1]), tokens.place], 1)
        return self.input_norm(vectors), valid, place, bias


class AttentionPool(nn.Module):
    """A learned query that attends to all tokens, then a residual MLP (SigLIP, 2023)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.query = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.attention = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.mlp = mlp(config)

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


def decoded(
    trunk: nn.Module,
    narrow: nn.Module,
    seen: Features,
    tokens: Float[Tensor, "b n d"],
    valid: Bool[Tensor, "b n"] | None,
) -> Float[Tensor, "b n d"]:
    """What a decoder makes of `tokens`; the class and register tokens of the encoder, narrowed, take part."""
    if seen.prefix is None:
        out: Tensor = trunk(tokens, valid)
        return out
    q = seen.prefix.shape[1]
    valid = None if valid is None else torch.cat([valid.new_ones(len(valid), q), valid], 1)
    out = trunk(torch.cat([narrow(seen.prefix), tokens], 1), valid)
    return out[:, q:]


def only_tokens(encoders: Mapping[str, Encoder], who: str) -> TokenwiseEncoder:
    """The one encoder of a method that hides tokens or aims at single ones. Raises RequestError for any other kind."""
    encoder = only(encoders, who)
    if not isinstance(encoder, TokenwiseEncoder):
        raise RequestError(
            f"{who} hides tokens and needs an encoder made of them, such as --encoder vit-tiny; "
            f"got a {type(encoder).__name__}, which sees every position."
        )
    return encoder
