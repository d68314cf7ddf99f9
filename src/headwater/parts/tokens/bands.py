"""Pictures of many bands: each group of bands has tokens of its own at every place."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates, inside
from headwater.parts.tokens.grid import joined, split


@dataclass(frozen=True, kw_only=True)
class BandsTokenizerConfig:
    """`groups` holds the numbers of the bands of each group, counted from 0; every band stands in one of them. A token is
    a square of `patch` pixels of one group."""

    groups: tuple[tuple[int, ...], ...]
    patch: int
    modality: str = "image"

    def __post_init__(self) -> None:
        bands = sorted(band for group in self.groups for band in group)
        if not bands or bands != list(range(len(bands))) or not all(self.groups):
            raise RequestError(
                f"BandsTokenizerConfig: groups {self.groups} must hold each band once, numbered from 0 to the last; leave "
                "bands out as the data are opened, with reading={'bands': [...]}."
            )

    def build(self, dim: int) -> Tokenizer:
        return BandsTokenizer(self, dim)


class BandsTokenizer(Tokenizer):
    """SatMAE's tokens (Cong et al., 2022) on a grid of (group, row, column), each group with an embedding of its own.

    A place has three coordinates, so that fixed sines give a third of the width to each of column, row and group (SatMAE:
    a quarter to the group). On this grid `RandomMask` hides in each group by itself, SatMAE's independent masks, and
    `TubeMask` the same places in all groups, its consistent ones.

    What is behind a token are the values of its group's bands among those of all bands, NaN for the bands of the others:
    so a method's one linear map to values has rows for every band, which is a map for each group.
    """

    rank = 3

    def __init__(self, config: BandsTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(sum(map(len, config.groups)))
        self.patch_dim = len(self.normalise.mean) * config.patch**2
        sizes = [len(group) * config.patch**2 for group in config.groups]
        self.embed = nn.ModuleList(nn.Linear(size, dim) for size in sizes)
        for layer, size in zip(self.embed, sizes, strict=True):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=size**-0.5)  # as strong as the positions, as in `GridTokenizer`
            nn.init.zeros_(layer.bias)

    def grid(self, x: Input) -> tuple[int, ...]:
        """(groups, rows, columns). A plain tensor must divide; a ragged one is filled up to whole patches."""
        size, p = (x if isinstance(x, Tensor) else x.values).shape[2:], self.config.patch
        if isinstance(x, Graph) or len(size) != 2:
            raise RequestError(
                f"{self.config.modality}: groups of bands need pictures [b c h w]; got axes of {tuple(size)}."
            )
        if isinstance(x, Tensor) and any(s % p for s in size):
            near = max(d for d in range(1, p) if all(s % d == 0 for s in size))
            raise RequestError(
                f"{self.config.modality}: an input of size {tuple(size)} does not divide into patches of {p}; "
                f"a patch of {near} would (--set encoder.tokenizer.patch={near})."
            )
        return len(self.config.groups), *(-(-s // p) for s in size)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """Normalised values, pixel by pixel with all bands side by side; NaN for the bands of other groups, and beyond a
        sample's extent."""
        values = self._values(x)
        parts = []
        for group in self.config.groups:
            own = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
            own[list(group)] = True
            parts.append(torch.where(own, values, torch.nan))
        return torch.cat(parts, 1).flatten(2)

    def _values(self, x: Input) -> Float[Tensor, "b m q c"]:
        """Of each place and pixel of a patch."""
        self.grid(x)  # which says so where patches do not fit
        dense = self.normalise(x if isinstance(x, Tensor) else x.values)
        if isinstance(x, Ragged):
            dense = torch.where(inside(dense.shape[2:], x.extent)[:, None], dense, torch.nan)
        side = self.config.patch
        return split(dense, (side, side), torch.nan).unflatten(2, (side**2, -1))

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b c h w"]:
        """The inverse of `patches`; of each token the bands of its own group count."""
        g, *place = grid
        side, bands = self.config.patch, len(self.normalise.mean)
        parts = patches.reshape(len(patches), g, math.prod(place), side**2, bands)
        values = parts.new_empty(parts[:, 0].shape)
        for k, group in enumerate(self.config.groups):
            values[..., list(group)] = parts[:, k][..., list(group)]
        x = joined(values.flatten(2), (place[0], place[1]), (side, side))
        return x * self.normalise.std.view(1, -1, 1, 1) + self.normalise.mean.view(1, -1, 1, 1)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        """A token is real when any of its patch lies within the sample's extent."""
        if isinstance(x, Tensor):
            return None
        groups, *place = self.grid(x)
        return inside((place[0], place[1]), -(-x.extent // self.config.patch)).flatten(1).repeat(1, groups)

    def forward(self, x: Input) -> Tokens:
        values = self._values(x)
        if isinstance(x, Ragged):
            values = values.nan_to_num(0.0)  # the mean, after normalisation
        parts = [
            embed(values[..., list(group)].flatten(2))
            for embed, group in zip(self.embed, self.config.groups, strict=True)
        ]
        tokens = torch.cat(parts, 1)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))
