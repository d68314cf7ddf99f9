"""Vector quantisers: vectors become numbers of entries of a learned book, and back (van den Oord et al., 2017)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class QuantiserConfig:
    """`entries` in a book of `dim` numbers each, which are few: vectors are looked up by direction, in a space of their own
    (Yu et al., 2021). `commitment` weighs how far what is looked up stays from its entry; the way back has weight 1.
    `layers` above one: each quantises what those before it left over (Zeghidour et al., 2021).
    """

    entries: int
    dim: int = 8
    commitment: float = 0.15
    layers: int = 1

    def build(self, width: int) -> "Quantiser":
        return Quantiser(self, width)


@dataclass(frozen=True)
class Quantised:
    """What a quantiser makes of vectors: the sum of the entries found, through which the gradient passes as if nothing had
    happened; their numbers, one per layer; and what each vector costs, to be minimised."""

    x: Float[Tensor, "b n d"]
    ids: Int[Tensor, "b n q"]
    cost: Float[Tensor, "b n"]


class Quantiser(nn.Module):
    def __init__(self, config: QuantiserConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Book(config, width) for _ in range(config.layers))

    def forward(self, x: Float[Tensor, "b n d"]) -> Quantised:
        rest, found, ids, cost = x, torch.zeros_like(x), [], x.new_zeros(x.shape[:2])
        for book in self.layers:
            made, number, price = book(rest)
            rest, found, cost = rest - made, found + made, cost + price
            ids.append(number)
        return Quantised(found, torch.stack(ids, 2), cost)

    def decode(self, ids: Int[Tensor, "b n q"]) -> Float[Tensor, "b n d"]:
        """The vectors behind the numbers of the first q layers."""
        made = [book.decode(number) for book, number in zip(self.layers, ids.unbind(2), strict=False)]  # type: ignore[operator]
        return torch.stack(made).sum(0)


class Book(nn.Module):
    """One layer: down to a few numbers, the entry of nearest direction, and up again."""

    def __init__(self, config: QuantiserConfig, width: int) -> None:
        super().__init__()
        self.commitment = config.commitment
        self.down, self.up = nn.Linear(width, config.dim), nn.Linear(config.dim, width)
        self.entries = nn.Embedding(config.entries, config.dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], Int[Tensor, "b n"], Tensor]:
        low = self.down(x)
        ids = self.nearest(low)
        entry = self.entries(ids)
        away, follow = (low - entry.detach()).square().mean(-1), (entry - low.detach()).square().mean(-1)
        through = low + (entry - low).detach()
        return self.up(through), ids, self.commitment * away + follow

    def nearest(self, low: Float[Tensor, "b n e"]) -> Int[Tensor, "b n"]:
        return (F.normalize(low, dim=-1) @ F.normalize(self.entries.weight, dim=-1).T).argmax(-1)

    def decode(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        out: Tensor = self.up(self.entries(ids))
        return out
