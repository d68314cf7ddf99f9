"""Rows of a table: one token per column."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input, Tokens
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates


@dataclass(frozen=True, kw_only=True)
class TableTokenizerConfig:
    """One token per column: x -> x * weight[column] + bias[column] (FT-Transformer). NaN is a missing cell."""

    columns: int
    modality: str = "table"

    def build(self, dim: int) -> Tokenizer:
        return TableTokenizer(self, dim)


class TableTokenizer(Tokenizer):
    alike = False  # columns have units of their own

    def __init__(self, config: TableTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.patch_dim, self.rank = config, 1, 1
        self.normalise = Normalise(config.columns)
        self.weight = nn.Parameter(torch.randn(config.columns, dim) * 0.5)
        self.bias = nn.Parameter(torch.randn(config.columns, dim) * 0.5)

    def grid(self, x: Input) -> tuple[int, ...]:
        return (self.config.columns,)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """Standardised cells; a missing one is 0, the mean."""
        return self._cells(x).nan_to_num(0.0)[..., None]

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b n"]:
        return patches[..., 0] * self.normalise.std + self.normalise.mean

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return ~self._cells(x).isnan()

    def forward(self, x: Input) -> Tokens:
        tokens = self.patches(x) * self.weight + self.bias
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))

    def _cells(self, x: Input) -> Float[Tensor, "b n"]:
        if not isinstance(x, Tensor):
            raise RequestError("table: every row has the same columns; got rows of unequal length.")
        cells: Tensor = self.normalise(x)
        return cells
