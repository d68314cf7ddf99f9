"""A multilayer perceptron over all cells of a table's row (Gorishniy et al., 2021 and 2022)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.tokens import TableTokenizerConfig


@dataclass(frozen=True, kw_only=True)
class PerceptronConfig:
    """Each cell becomes a vector of width `cell`, all of them side by side go through `depth` residual blocks of width
    `dim`, each with an inside of `expansion` times that."""

    tokenizer: TableTokenizerConfig
    cell: int = 8
    dim: int = 128
    depth: int = 3
    expansion: int = 2

    def build(self) -> "Perceptron":
        return Perceptron(self)


class Perceptron(Encoder):
    """A row is one token. A missing cell (NaN) has a learned vector of its own, one per column."""

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.tokenizer.modality, config.dim
        self.tokenizer = config.tokenizer.build(config.cell)
        self.missing = nn.Parameter(torch.randn(config.tokenizer.columns, config.cell) * 0.5)
        self.first = nn.Linear(config.tokenizer.columns * config.cell, config.dim)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        if keep is not None:
            raise RequestError(
                "A perceptron sees every cell and cannot leave some out; this method needs an encoder made of tokens, such "
                f"as --encoder vit-micro ({self.modality})."
            )
        cells = self.tokenizer(values(x))
        known = torch.where(cells.valid[..., None], cells.x, self.missing)
        pooled = self.norm(self.blocks(self.first(known.flatten(1))))
        return Features(pooled[:, None], pooled)


class Block(nn.Module):
    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.expansion * config.dim
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return x + self.body(x)
