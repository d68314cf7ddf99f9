"""Rows of a table: one token per column, numbers and words alike."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input, Tokens
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates


@dataclass(frozen=True, kw_only=True)
class TableTokenizerConfig:
    """A number becomes x * weight[column] + bias[column], a word the vector of its own (FT-Transformer, 2021).

    `categories` counts the words of each column, 0 for numbers; none at all: only numbers. NaN is a missing cell.
    """

    columns: int
    categories: tuple[int, ...] = ()
    modality: str = "table"

    def __post_init__(self) -> None:
        if self.categories and len(self.categories) != self.columns:
            raise RequestError(f"TableTokenizerConfig: {len(self.categories)} categories for {self.columns} columns.")

    def build(self, dim: int) -> Tokenizer:
        return TableTokenizer(self, dim)


class TableTokenizer(Tokenizer):
    alike = False  # columns have units of their own

    counts: Tensor
    first: Tensor

    def __init__(self, config: TableTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, 1
        counts = torch.tensor(config.categories or [0] * config.columns)
        self.patch_dim = max(1, int(counts.max()))
        self.normalise = Normalise(config.columns)
        self.weight = nn.Parameter(torch.randn(config.columns, dim) * 0.5)
        self.bias = nn.Parameter(torch.randn(config.columns, dim) * 0.5)
        self.register_buffer("counts", counts, persistent=False)
        sizes = torch.where(counts > 0, counts + 1, 0)  # one more, for words never met
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.words = nn.Embedding(int(sizes.sum()), dim) if counts.any() else None
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=0.5)

    def grid(self, x: Input) -> tuple[int, ...]:
        return (self.config.columns,)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """What stands in each cell: a standardised number (0 where it is missing), or a one where the word is among the
        words of its column. What a column has no use for is NaN."""
        numbers, codes = self._cells(x)
        out = numbers.nan_to_num(0.0)[..., None]
        if self.words is None:
            return out
        out = F.pad(out, (0, self.patch_dim - 1), value=torch.nan)
        at = torch.arange(self.patch_dim, device=out.device)
        hit = (codes.nan_to_num(-1.0)[..., None] == at).to(out.dtype).masked_fill(at >= self.counts[:, None], torch.nan)
        return torch.where((self.counts > 0)[:, None], hit, out)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b n"]:
        """Numbers in their own units, and the codes of the words."""
        numbers = patches[..., 0] * self.normalise.std + self.normalise.mean
        at = torch.arange(self.patch_dim, device=patches.device)
        codes = patches.masked_fill(at >= self.counts[:, None].clamp(min=1), -torch.inf).argmax(-1).to(patches.dtype)
        return torch.where(self.counts > 0, codes, numbers)

    def distance(
        self, guess: Float[Tensor, "b k p"], target: Float[Tensor, "b k p"], power: int = 2
    ) -> Float[Tensor, "b k"]:
        """The error of a number, or the sum over the words of a column (Brier's score, with power 2)."""
        error = torch.where(target.isnan(), 0.0, guess - target.nan_to_num(0.0)).abs()
        return (error.square() if power == 2 else error).sum(-1)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return ~self._cells(x)[1].isnan()

    def forward(self, x: Input) -> Tokens:
        numbers, codes = self._cells(x)
        tokens = numbers.nan_to_num(0.0)[..., None] * self.weight + self.bias
        if self.words is not None:
            known = codes.nan_to_num(0.0).long().clamp(min=0).minimum(self.counts)
            named = self.words((self.first + known).clamp(max=len(self.words.weight) - 1)) + self.bias
            tokens = torch.where((self.counts > 0)[:, None], named, tokens)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))

    def _cells(self, x: Input) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Standardised, and as they are."""
        if not isinstance(x, Tensor):
            raise RequestError("table: every row has the same columns; got rows of unequal length.")
        numbers: Tensor = self.normalise(x)
        return numbers, x
