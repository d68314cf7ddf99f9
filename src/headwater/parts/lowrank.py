"""Linear maps as two thinner ones: factorised by singular values, and as an architecture that is built so from the start."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.parts.surgery import linear_maps

OMIT = ("norm", "head", "embed", "merge")
FEWEST = 10  # a map with fewer outputs is left whole


def rank(linear: nn.Linear, ratio: float) -> int:
    """The rank at which the two factors have a `ratio`-th of the weights, at least 1."""
    a, b = linear.in_features, linear.out_features
    return max(1, min(a, b, math.floor(a * b / (ratio * (a + b)))))


class Factored(nn.Sequential):
    """in → rank without bias, then rank → out."""

    def __init__(self, like: nn.Linear, rank: int) -> None:
        made = {"device": like.weight.device, "dtype": like.weight.dtype}
        super().__init__(
            nn.Linear(like.in_features, rank, bias=False, **made),
            nn.Linear(rank, like.out_features, bias=like.bias is not None, **made),
        )

    @property
    def product(self) -> Float[Tensor, "e d"]:
        """The weight that the two are together."""
        return self.get_parameter("1.weight") @ self.get_parameter("0.weight")

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Linear, rank: int) -> "Factored":
        """The nearest of this rank to a linear map; each factor gets the root of the singular values."""
        made = cls(linear, rank)
        u, s, v = torch.linalg.svd(linear.weight.double(), full_matrices=False)
        root = s[:rank].sqrt()
        made.get_parameter("0.weight").copy_(root[:, None] * v[:rank])
        made.get_parameter("1.weight").copy_(u[:, :rank] * root)
        if linear.bias is not None:
            made.get_parameter("1.bias").copy_(linear.bias)
        return made


def factorise(encoder: Encoder, ratio: float, omit: tuple[str, ...], who: str, by_values: bool = True) -> Encoder:
    """Every linear map, in place, except those with a word of `omit` in their names and those with few outputs; without
    `by_values` the factors are fresh. Raises RequestError where none is left."""
    maps = {n: m for n, m in linear_maps(encoder).items() if m.out_features >= FEWEST and not any(w in n for w in omit)}
    if not maps:
        raise RequestError(
            f"{who} found no linear map to factorise in this {type(encoder).__name__}: none that has {FEWEST} outputs and "
            f"no {' or '.join(omit)} in its name."
        )
    for name, linear in maps.items():
        parent, _, leaf = name.rpartition(".")
        made = (Factored.of if by_values else Factored)(linear, rank(linear, ratio))
        setattr(encoder.get_submodule(parent), leaf, made)
    return encoder


@dataclass(frozen=True, kw_only=True)
class FactoredConfig:
    """The encoder `of` with its linear maps factorised, `ratio` times smaller each."""

    of: Any
    ratio: float
    omit: tuple[str, ...] = OMIT

    @property
    def tokenizer(self) -> Any:
        return self.of.tokenizer

    def build(self) -> Encoder:
        return factorise(self.of.build(), self.ratio, self.omit, "FactoredConfig", by_values=False)
