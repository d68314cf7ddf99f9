"""Text to text: a transformer that reads and one that writes, as T5 has them (Raffel et al., 2020).

Only distances matter: each head adds a learned number to the attention between two tokens, by how far one stands from
the other, and the first layer's numbers serve all layers. Norms have no bias and take no mean, nothing has a bias, and
attention is not scaled: its queries begin smaller instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input, Ragged, Tokens
from headwater.parts.encoders import TokenwiseEncoder, mean_of
from headwater.parts.tokens import TextTokenizer, TextTokenizerConfig, pick

TANH = partial(F.gelu, approximate="tanh")
CURVES: dict[str, Callable[..., Tensor]] = {"relu": F.relu, "gelu": F.gelu, "gelu-tanh": TANH, "silu": F.silu}
Pair = tuple[Tensor, Tensor]  # keys and values, each [b h n e]


@dataclass(frozen=True, kw_only=True)
class T5TrunkConfig:
    """`head_dim` is the width of one head, whatever the width of the tokens. A `gated` MLP multiplies what it activates
    by a second linear map (Shazeer, 2020). `buckets` of distances, of which half are for near tokens and one each; those
    beyond `distance` share the last.
    """

    dim: int
    depth: int
    heads: int
    head_dim: int = 64
    hidden: int = 1024
    gated: bool = True
    activation: Literal["relu", "gelu", "gelu-tanh", "silu"] = "gelu-tanh"
    buckets: int = 32
    distance: int = 128
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.distance <= self.buckets // 2:
            raise RequestError(
                f"T5TrunkConfig: buckets must be at least 4 and distance more than half of them; got buckets={self.buckets} "
                f"and distance={self.distance}."
            )


@dataclass(frozen=True, kw_only=True)
class T5EncoderConfig:
    """The half that reads; the mean of the valid tokens is pooled."""

    tokenizer: TextTokenizerConfig
    trunk: T5TrunkConfig

    def build(self) -> "T5Encoder":
        return T5Encoder(self)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The half that writes.

    head    how many ids a head of its own tells apart, as in T5 1.1; 0: the table of words is the head (tied), as in T5
    scaled  what goes into the head is divided by the root of the width first, as in T5 before 1.1
    start   the id that stands before every text; end, the one that closes it
    """

    trunk: T5TrunkConfig
    head: int = 0
    scaled: bool = False
    start: int = 0
    end: int = 1

    def build(self) -> "Decoder":
        return Decoder(self)


def bucket(offset: Int[Tensor, "*n"], number: int, distance: int, both: bool) -> Int[Tensor, "*n"]:
    """Which of `number` buckets a key at this offset from its query falls into: near ones have one each, farther ones share
    wider and wider ones up to `distance`. With `both`, half are for what lies ahead; without, all for what lies behind."""
    number = number // 2 if both else number
    away = offset.abs() if both else (-offset).clamp(min=0)
    near = number // 2
    share = (away.clamp(min=1) / near).log() / math.log(distance / near)
    far = (near + (share * (number - near)).long()).clamp(max=number - 1)
    return torch.where(away < near, away, far) + (offset > 0) * (number if both else 0)


class RelativePositions(nn.Module):
    """A learned number per head and bucket of distances."""

    def __init__(self, config: T5TrunkConfig, both: bool) -> None:
        super().__init__()
        self.buckets, self.distance, self.both = config.buckets, config.distance, both
        self.table = nn.Embedding(config.buckets, config.heads)
        nn.init.normal_(self.table.weight, std=config.dim**-0.5)

    def forward(self, query: Int[Tensor, "b n"], key: Int[Tensor, "b m"]) -> Float[Tensor, "b h n m"]:
        found: Tensor = self.table(bucket(key[:, None] - query[..., None], self.buckets, self.distance, self.both))
        return found.permute(0, 3, 1, 2)


def linear(dim: int, out: int, shrunk: int = 1) -> nn.Linear:
    """No bias, and answers as large as what comes in; queries are `shrunk` by what scaled attention divides by."""
    made = nn.Linear(dim, out, bias=False)
    nn.init.normal_(made.weight, std=(dim * shrunk) ** -0.5)
    return made


def mix(q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "#b #h #n m"] | None) -> Float[Tensor, "b n e"]:
    bias = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0).transpose(1, 2).flatten(2)


def deaf_to_padding(valid: Bool[Tensor, "b m"]) -> Float[Tensor, "b 1 1 m"]:
    """What to add to attention so that nothing hears what is not valid; a sample without a valid token hears all of it,
    rather than become NaN."""
    heard = (valid | ~valid.any(1, keepdim=True))[:, None, None]
    return torch.zeros(heard.shape, device=valid.device).masked_fill(~heard, -torch.inf)


class SelfAttention(nn.Module):
    def __init__(self, config: T5TrunkConfig) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_dim
        self.qkv, self.out = linear(config.dim, 3 * inner), linear(inner, config.dim)
        nn.init.normal_(self.qkv.weight[:inner], std=(config.dim * config.head_dim) ** -0.5)

    def split(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v


class CrossAttention(nn.Module):
    def __init__(self, config: T5TrunkConfig) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_dim
        self.q, self.kv = linear(config.dim, inner, config.head_dim), linear(config.dim, 2 * inner)
        self.out = linear(inner, config.dim)

    def asked(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n e"]:
        found: Tensor = self.q(x).unflatten(2, (self.heads, -1))
        return found.transpose(1, 2)

    def told(self, memory: Float[Tensor, "b m d"]) -> Pair:
        k, v = self.kv(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v


class FeedForward(nn.Module):
    def __init__(self, config: T5TrunkConfig) -> None:
        super().__init__()
        self.gated, self.activation = config.gated, config.activation
        self.up = linear(config.dim, config.hidden * (1 + config.gated))
        self.down = linear(config.hidden, config.dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        active, *by = self.up(x).chunk(1 + self.gated, -1)
        risen = CURVES[self.activation](active)
        out: Tensor = self.down(risen * by[0] if by else risen)
        return out


class EncoderBlock(nn.Module):
    def __init__(self, config: T5TrunkConfig) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(config.dim, eps=config.eps), SelfAttention(config)
        self.norm2, self.mlp = nn.RMSNorm(config.dim, eps=config.eps), FeedForward(config)

    def forward(self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "#b h n n"]) -> Float[Tensor, "b n d"]:
        x = x + self.attention.out(mix(*self.attention.split(self.norm1(x)), bias))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class DecoderBlock(nn.Module):
    def __init__(self, config: T5TrunkConfig) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(config.dim, eps=config.eps), SelfAttention(config)
        self.norm2, self.cross = nn.RMSNorm(config.dim, eps=config.eps), CrossAttention(config)
        self.norm3, self.mlp = nn.RMSNorm(config.dim, eps=config.eps), FeedForward(config)

    def forward(
        self, x: Float[Tensor, "b n d"], bias: Tensor, told: Pair, deaf: Tensor | None, past: Pair | None
    ) -> tuple[Float[Tensor, "b n d"], Pair]:
        """Also the keys and values of all tokens so far, those of `past` first."""
        q, k, v = self.attention.split(self.norm1(x))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        x = x + self.attention.out(mix(q, k, v, bias))
        x = x + self.cross.out(mix(self.cross.asked(self.norm2(x)), *told, deaf))
        return x + self.mlp(self.norm3(x)), (k, v)


class T5Encoder(TokenwiseEncoder):
    def __init__(self, config: T5EncoderConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.tokenizer.modality, config.trunk.dim
        self.tokenizer = config.tokenizer.build(self.dim)
        assert isinstance(self.tokenizer, TextTokenizer)
        nn.init.normal_(self.tokenizer.embed.weight)
        self.positions = RelativePositions(config.trunk, both=True)
        self.blocks = nn.ModuleList(EncoderBlock(config.trunk) for _ in range(config.trunk.depth))
        self.norm = nn.RMSNorm(self.dim, eps=config.trunk.eps)

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, "*b d"] | None = None,
    ) -> Features:
        """Encode all tokens, or only those that `keep` names, at the distances they had. Those that are `hidden` are
        `stand_in` instead: one vector [d], or one for each place [b n d], such as those of sentinels."""
        tokens = self.tokenizer(x)
        if hidden is not None and stand_in is not None:
            vectors = torch.where(hidden[..., None], stand_in.to(tokens.x.dtype), tokens.x)
            tokens = Tokens(vectors, tokens.valid, tokens.place)
        tokens = tokens if keep is None else pick(tokens, keep)
        place = torch.arange(tokens.x.shape[1], device=tokens.x.device)[None] if keep is None else keep
        vectors, valid = tokens.x, tokens.valid
        bias = self.positions(place, place)
        bias = bias if valid is None else bias + deaf_to_padding(valid)
        for block in self.blocks:
            vectors = block(vectors, bias)
        out = self.norm(vectors)
        return Features(out, mean_of(out, valid), None, valid)


class Decoder(nn.Module):
    """Writes a text, word after word, from what an encoder said of another.

    `words` is the table of word vectors that it shares with the encoder: `encoder.tokenizer.embed.weight`, with the
    vectors of further ids, such as sentinels, below it where a method adds some.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.trunk.dim
        self.positions = RelativePositions(config.trunk, both=False)
        self.blocks = nn.ModuleList(DecoderBlock(config.trunk) for _ in range(config.trunk.depth))
        self.norm = nn.RMSNorm(self.dim, eps=config.trunk.eps)
        self.head = linear(self.dim, config.head) if config.head else None

    def forward(
        self, target: Int[Tensor, "b t"], memory: Features, words: Float[Tensor, "v d"]
    ) -> Float[Tensor, "b t w"]:
        """Logits of every id of `target`, each from those before it: cross entropy with `target` is the loss.

        Places without a target (below zero, such as -100) count as padding at the end; leave their logits out.
        """
        config = self.config
        given = F.pad(target, (1, -1), value=config.start)
        place = torch.arange(given.shape[1], device=given.device)[None]
        bias = self.positions(place, place)
        bias = bias.masked_fill(place > place.mT, -torch.inf)
        x = F.embedding(given.masked_fill(given < 0, config.start), words)
        told, deaf = self._heard(memory)
        for block, pair in zip(self.blocks, told, strict=True):
            x, _ = block(x, bias, pair, deaf, None)
        return self._logits(x, words)

    @torch.no_grad()
    def generate(self, memory: Features, words: Float[Tensor, "v d"], most: int) -> Ragged:
        """The likeliest id each time (greedy), up to `end` or `most` ids: [b t], each text with its `end` if it came. Keys
        and values of earlier ids are kept."""
        told, deaf = self._heard(memory)
        token = torch.full((len(memory.tokens), 1), self.config.start, device=memory.tokens.device)
        going, written = torch.ones_like(token, dtype=torch.bool), list[Tensor]()
        past: Sequence[Pair | None] = [None] * len(self.blocks)
        while len(written) < most and going.any():
            place = torch.arange(len(written) + 1, device=token.device)[None]
            bias, x, kept = self.positions(place[:, -1:], place), F.embedding(token, words), []
            for block, pair, before in zip(self.blocks, told, past, strict=True):
                x, now = block(x, bias, pair, deaf, before)
                kept.append(now)
            token, past = self._logits(x, words).argmax(-1), kept
            written.append(torch.where(going, token, -1))
            going = going & (token != self.config.end)
        ids = torch.cat(written, 1) if written else token[:, :0]
        return Ragged(ids.clamp(min=0), (ids >= 0).sum(1, keepdim=True))

    def _heard(self, memory: Features) -> tuple[list[Pair], Tensor | None]:
        told = []
        for block in self.blocks:
            assert isinstance(block, DecoderBlock)
            told.append(block.cross.told(memory.tokens))
        return told, None if memory.valid is None else deaf_to_padding(memory.valid)

    def _logits(self, x: Float[Tensor, "b n d"], words: Float[Tensor, "v d"]) -> Float[Tensor, "b n w"]:
        x = self.norm(x) * (self.dim**-0.5 if self.config.scaled else 1.0)
        return F.linear(x, words if self.head is None else self.head.weight)
