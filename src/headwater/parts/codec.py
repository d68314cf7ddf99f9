"""Sounds as tokens: coarse ones of what an encoder says of them, and layers of finer ones of how they sound."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.types import Input
from headwater.parts.encoders import TokenwiseEncoder
from headwater.parts.quantise import QuantiserConfig


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """`width` of what the acoustic quantiser sees, `hidden` of the perceptrons around both quantisers."""

    semantic: QuantiserConfig
    acoustic: QuantiserConfig
    width: int = 256
    hidden: int = 1024


@dataclass(frozen=True)
class Codes:
    """The tokens of sounds, and which of them are real."""

    semantic: Int[Tensor, "b n"]
    acoustic: Int[Tensor, "b n q"]
    valid: Bool[Tensor, "b n"]


class Codec(nn.Module):
    """Two quantised autoencoders of the patches behind the tokens of an encoder: one of what it says of each, which knows
    the others, and one of each patch by itself."""

    def __init__(self, config: CodecConfig, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.encoder, p = encoder, encoder.tokenizer.patch_dim
        self.semantic = config.semantic.build(encoder.dim)
        self.acoustic = config.acoustic.build(config.width)
        self.meant = perceptron(encoder.dim, config.hidden, p)
        self.heard, self.sounds = perceptron(p, config.hidden, config.width), perceptron(config.width, config.hidden, p)

    def forward(self, x: Input) -> tuple[Codes, Float[Tensor, "b n"]]:
        """The tokens, and what each costs: the squared errors of both ways back to the patch, and of the quantisers."""
        features, tokenizer = self.encoder(x), self.encoder.tokenizer
        patches = tokenizer.patches(x)
        meant, heard = self.semantic(features.tokens), self.acoustic(self.heard(patches.nan_to_num(0.0)))
        cost = meant.cost + heard.cost
        for guess in (self.meant(meant.x), self.sounds(heard.x)):
            cost = cost + tokenizer.distance(guess, patches)
        valid = features.valid if features.valid is not None else torch.ones_like(meant.ids[..., 0], dtype=torch.bool)
        return Codes(meant.ids[..., 0], heard.ids, valid), cost

    def decode(self, acoustic: Int[Tensor, "b n q"]) -> Float[Tensor, "b n p"]:
        """Patches from acoustic tokens."""
        out: Tensor = self.sounds(self.acoustic.decode(acoustic))
        return out


def perceptron(dim: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))
