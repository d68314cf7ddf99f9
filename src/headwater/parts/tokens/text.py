"""Texts: whole numbers, each with a vector of its own."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input, Ragged, Tokens
from headwater.parts.tokens.base import Tokenizer, coordinates, inside


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    """Whole numbers -> vectors. `vocabulary` counts the ids; texts end where their extent ends."""

    vocabulary: int
    modality: str = "text"

    def build(self, dim: int) -> Tokenizer:
        return TextTokenizer(self, dim)


class TextTokenizer(Tokenizer):
    def __init__(self, config: TextTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.patch_dim, self.rank = config, 1, 1
        self.embed = nn.Embedding(config.vocabulary, dim)
        nn.init.normal_(self.embed.weight, std=0.02)

    def grid(self, x: Input) -> tuple[int, ...]:
        return ((x if isinstance(x, Tensor) else x.values).shape[1],)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        raise RequestError(
            "text: words are names, not values, and cannot be reconstructed as values; mask and classify them."
        )

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        raise RequestError("text: words are names, not values; there is nothing to put together.")

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return inside(self.grid(x), x.extent) if isinstance(x, Ragged) else None

    def forward(self, x: Input) -> Tokens:
        tokens = self.embed(x if isinstance(x, Tensor) else x.values)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))
