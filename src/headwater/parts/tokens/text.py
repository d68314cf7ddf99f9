"""Texts: whole numbers, each with a vector of its own."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from headwater.core.types import Input, Ragged, Tokens
from headwater.parts.tokens.base import Tokenizer, coordinates, inside

IGNORED = -1  # stands for the id of what is no token


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    """Whole numbers -> vectors. `vocabulary` counts the ids; texts end where their extent ends.

    `scaled`: vectors are times the root of their width, and so as large as sines of their places, which would drown them
    otherwise (Vaswani et al., 2017).
    """

    vocabulary: int
    modality: str = "text"
    scaled: bool = False

    def build(self, dim: int) -> Tokenizer:
        return TextTokenizer(self, dim)


class TextTokenizer(Tokenizer):
    """Behind each token stands its id; to restore it is to choose among the vocabulary, as masked language models do."""

    alike = False

    def __init__(self, config: TextTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.patch_dim, self.rank = config, 1, 1
        self.embed = nn.Embedding(config.vocabulary, dim)
        self.scale = dim**0.5 if config.scaled else 1.0
        nn.init.normal_(self.embed.weight, std=1 / self.scale if config.scaled else 0.02)

    @property
    def guess_dim(self) -> int:
        return self.config.vocabulary

    def grid(self, x: Input) -> tuple[int, ...]:
        return ((x if isinstance(x, Tensor) else x.values).shape[1],)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The ids, as floats; NaN on padding."""
        ids = x if isinstance(x, Tensor) else x.values
        valid = self.valid(x)
        ids = ids[..., None].to(self.embed.weight.dtype)
        return ids if valid is None else ids.masked_fill(~valid[..., None], torch.nan)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Shaped[Tensor, "b n"]:
        """The ids of the patches, or the likeliest of the guesses."""
        return (patches.argmax(-1) if patches.shape[-1] == self.guess_dim else patches[..., 0]).long()

    def distance(
        self, guess: Float[Tensor, "b k g"], target: Float[Tensor, "b k p"], power: int = 2
    ) -> Float[Tensor, "b k"]:
        """The cross-entropy of each token; a power means nothing here."""
        ids = target[..., 0].nan_to_num(IGNORED).long()
        return F.cross_entropy(guess.transpose(1, 2), ids, ignore_index=IGNORED, reduction="none")

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return inside(self.grid(x), x.extent) if isinstance(x, Ragged) else None

    def vectors(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        vectors: Tensor = self.embed(ids) * self.scale
        return vectors

    def forward(self, x: Input) -> Tokens:
        tokens = self.vectors(x if isinstance(x, Tensor) else x.values)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))
