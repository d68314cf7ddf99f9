"""Encoders of sound whose positions come from a convolution over the tokens: wav2vec 2.0 (Baevski et al., 2020) and
HuBERT (Hsu et al., 2021).

Only how far tokens stand apart matters to it, so a sound may be as long as it likes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input, Tokens
from headwater.parts.encoders import TokenwiseEncoder, mean_of
from headwater.parts.tokens import Tokenizer, TokenizerConfig, pick
from headwater.parts.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderConfig:
    """`kernel` tokens around each one, in `groups` of channels, tell it where it stands. In a post-norm trunk, as in the
    base models, the sum of token and position is normalised before the first block."""

    tokenizer: TokenizerConfig
    trunk: TransformerConfig
    kernel: int = 128
    groups: int = 16

    def __post_init__(self) -> None:
        if self.trunk.dim % self.groups:
            raise RequestError(
                f"SpeechEncoderConfig: dim {self.trunk.dim} does not divide into {self.groups} groups of channels."
            )

    def build(self) -> "SpeechEncoder":
        return SpeechEncoder(self)


class SpeechEncoder(TokenwiseEncoder):
    """Pools the mean of the valid tokens."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.modality, self.dim = config.tokenizer.modality, config.trunk.dim
        self.tokenizer = in_a_row(config.tokenizer, self.dim)
        self.positions = ConvPositions(self.dim, config.kernel, config.groups)
        after = config.trunk.norm == "post"
        self.input_norm = nn.LayerNorm(self.dim, eps=config.trunk.eps) if after else nn.Identity()
        self.trunk = config.trunk.build()

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
    ) -> Features:
        """As every `TokenwiseEncoder`; tokens that are not kept count as silence in the convolution."""
        tokens = covered(self.tokenizer(x), hidden, stand_in)
        seen = seen_of(tokens, keep)
        vectors = tokens.x if seen is None else torch.where(seen[..., None], tokens.x, 0.0)
        tokens = Tokens(vectors + self.positions(vectors), tokens.valid, tokens.place)
        tokens = tokens if keep is None else pick(tokens, keep)
        out = self.trunk(self.input_norm(tokens.x), tokens.valid, tokens.place)
        return Features(out, mean_of(out, tokens.valid), None, tokens.valid)


class ConvPositions(nn.Module):
    """A convolution over `kernel` tokens and a GELU. Each of its taps is a direction times a gain (weight norm; Salimans
    and Kingma, 2016)."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.randn(dim, dim // groups, kernel) * (4 / (kernel * dim)) ** 0.5)
        self.gain = nn.Parameter(self.direction.detach().square().sum((0, 1), keepdim=True).sqrt())
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        length = self.direction.square().sum((0, 1), keepdim=True).sqrt()
        weight, k = self.direction * (self.gain / length), self.direction.shape[2]
        out = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=k // 2, groups=self.groups)
        return F.gelu(out[:, :, : x.shape[1]]).transpose(1, 2)  # of an even kernel one too many comes out


def in_a_row(config: TokenizerConfig, dim: int) -> Tokenizer:
    """Raises RequestError where tokens do not follow each other."""
    tokenizer = config.build(dim)
    if tokenizer.rank != 1 or tokenizer.own_places:
        raise RequestError(
            "Convolutions over time need tokens that stand in a row, such as frames of sound or the wave itself; "
            f"those of this {type(config).__name__.removesuffix('Config')} do not."
        )
    return tokenizer


def covered(tokens: Tokens, hidden: Bool[Tensor, "b n"] | None, stand_in: Float[Tensor, " d"] | None) -> Tokens:
    """The tokens with `stand_in` in the place of the hidden ones."""
    if hidden is None or stand_in is None:
        return tokens
    vectors = torch.where(hidden[..., None], stand_in.to(tokens.x.dtype), tokens.x)
    return Tokens(vectors, tokens.valid, tokens.place)


def seen_of(tokens: Tokens, keep: Int[Tensor, "b k"] | None) -> Bool[Tensor, "b n"] | None:
    """The tokens that are real and kept; None: all."""
    if keep is None:
        return tokens.valid
    kept = torch.zeros(tokens.x.shape[:2], dtype=torch.bool, device=tokens.x.device).scatter(1, keep, True)
    return kept if tokens.valid is None else kept & tokens.valid
