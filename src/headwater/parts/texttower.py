"""The text halves of models of image and text: a transformer of which one token is pooled, as CLIP and SigLIP have it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Graph, Input
from headwater.core.verbs import Encoder
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig

LARGEST = -1


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """`longest`: how many tokens have a (learned) position.

    end   the id whose first token is pooled; LARGEST: the token with the largest id, as in OpenAI's first checkpoints
    fill  the id that every text is filled with up to `longest`, and which is heard like any other: the last place is
          pooled then, whatever stands there (SigLIP)
    head  the width of a linear map of what is pooled; 0: none
    """

    tokenizer: TextTokenizerConfig
    trunk: TransformerConfig
    longest: int
    end: int = LARGEST
    fill: int | None = None
    head: int = 0

    def build(self) -> "TextTower":
        return TextTower(self)


class TextTower(Encoder):
    """`dim` is the width of what is pooled; tokens are as wide as the trunk."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config, self.modality, dim = config, config.tokenizer.modality, config.trunk.dim
        grid = (config.longest,)
        self.body = TokenEncoderConfig(
            tokenizer=config.tokenizer, trunk=config.trunk, position="learned", grid=grid
        ).build()
        self.head = nn.Linear(dim, config.head) if config.head else nn.Identity()
        self.dim = config.head or dim

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        """The tokens that `x` has. Those that it is filled with are heard and pooled, but not told."""
        if keep is not None or isinstance(x, Graph):
            raise RequestError(
                "The text tower of CLIP or SigLIP reads whole texts; a method that leaves tokens out needs an encoder such as "
                "vit-micro."
            )
        ids, valid = x if isinstance(x, Tensor) else x.values, self.body.tokenizer.valid(x)
        if self.config.fill is None:
            tokens = self.body(x).tokens
            return Features(tokens, self.head(at_the_end(tokens, ids, valid, self.config.end)), None, valid)
        filled = ids if valid is None else ids.masked_fill(~valid, self.config.fill)
        room = max(0, self.config.longest - ids.shape[1])
        tokens = self.body(F.pad(filled, (0, room), value=self.config.fill)).tokens
        return Features(tokens[:, : ids.shape[1]], self.head(tokens[:, -1]), None, valid)


def at_the_end(
    x: Float[Tensor, "b n d"], ids: Int[Tensor, "b n"], valid: Bool[Tensor, "b n"] | None, end: int
) -> Float[Tensor, "b d"]:
    """The token where `end` first stands; the first token of a text without one, as the reference has it."""
    score = ids if end == LARGEST else (ids == end).long()
    score = score if valid is None else score.masked_fill(~valid, -1)
    return x[torch.arange(len(x), device=x.device), score.argmax(1)]
