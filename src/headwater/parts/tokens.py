"""Raw input -> patches -> tokens: the only parts that know a modality, and the moving of token sets.

A tokenizer offers `grid(x)`, `patches(x)` (what a reconstruction has to predict), `unpatch` (its exact inverse) and
`forward(x) -> Tokens`. Normalisation by the mean and deviation of the data is its first act, so that whoever holds an
encoder feeds it plain values: pixels as decoded, cells as written.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input, Ragged, Tokens


class Normalise(nn.Module):
    """(x - mean) / std per channel (the second axis); uint8 becomes [0, 1] first."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """A channel that never varies is only centred."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Shaped[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        if x.shape[1] != len(self.mean):
            raise RequestError(
                f"The encoder was made for {len(self.mean)} channels, the input has {x.shape[1]} (shape {tuple(x.shape)})."
            )
        shape = (1, -1, *[1] * (x.ndim - 2))
        x = x if x.is_floating_point() else x.float() / 255
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Tokenizer(nn.Module, ABC):
    """`patch_dim` values stand behind each token; `rank` is the number of axes of the grid."""

    rank: int
    patch_dim: int

    @abstractmethod
    def grid(self, x: Input) -> tuple[int, ...]:
        """The number of tokens along each axis."""

    @abstractmethod
    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The normalised values behind each token: what a reconstruction has to predict."""

    @abstractmethod
    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        """The inverse of `patches`: values as they were before normalisation."""

    @abstractmethod
    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        """Which tokens are real; None when all are."""

    @abstractmethod
    def forward(self, x: Input) -> Tokens: ...


@dataclass(frozen=True, kw_only=True)
class GridTokenizerConfig:
    """Regular grids of any rank: series (t), spectrograms and images (h w), video and volumes (t h w)."""

    modality: str
    channels: int
    patch: tuple[int, ...]

    def build(self, dim: int) -> Tokenizer:
        return GridTokenizer(self, dim)


class GridTokenizer(Tokenizer):
    def __init__(self, config: GridTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, len(config.patch)
        self.patch_dim = config.channels * math.prod(config.patch)
        self.normalise = Normalise(config.channels)
        self.embed = nn.Linear(self.patch_dim, dim)

    def grid(self, x: Input) -> tuple[int, ...]:
        """Patches along each axis. A plain tensor must divide; a ragged one is padded up to whole patches."""
        size, patch = (x.values if isinstance(x, Ragged) else x).shape[2:], self.config.patch
        if len(size) != len(patch):
            raise RequestError(
                f"{self.config.modality}: patches of {patch} need {len(patch)} axes, the input has {len(size)}."
            )
        if isinstance(x, Tensor) and any(s % p for s, p in zip(size, patch, strict=True)):
            fits = [d for d in range(1, min(size) + 1) if all(s % d == 0 for s in size)]
            near = min(fits, key=lambda d: abs(d - patch[0]))
            raise RequestError(
                f"{self.config.modality}: an input of size {tuple(size)} does not divide into patches of {patch}; "
                f"a patch of {near} would (--set encoder.tokenizer.patch={tuple([near] * len(patch))!r})."
            )
        return tuple(-(-s // p) for s, p in zip(size, patch, strict=True))

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The normalised values of each patch, pixel by pixel with the channels of a pixel side by side."""
        grid, patch, r = self.grid(x), self.config.patch, self.rank
        dense = x.values if isinstance(x, Ragged) else x
        short = [g * p - s for g, p, s in zip(grid, patch, dense.shape[2:], strict=True)]
        dense = self.normalise(dense)
        if isinstance(x, Ragged):
            dense = dense * _inside(dense.shape[2:], x.extent)[:, None]  # padding is zero after normalisation too
        if any(short):
            dense = F.pad(dense, [v for s in reversed(short) for v in (0, s)])
        b, c = dense.shape[:2]
        split = dense.reshape(b, c, *[s for pair in zip(grid, patch, strict=True) for s in pair])
        outer, inner = [2 + 2 * i for i in range(r)], [3 + 2 * i for i in range(r)]
        return split.permute(0, *outer, *inner, 1).reshape(b, math.prod(grid), self.patch_dim)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b c ..."]:
        """The inverse of `patches`: back to values as they were before normalisation."""
        b, c, patch, r = len(patches), self.config.channels, self.config.patch, self.rank
        x = patches.view(b, *grid, *patch, c)
        order = [0, 1 + 2 * r, *[a for i in range(r) for a in (1 + i, 1 + r + i)]]
        x = x.permute(order).reshape(b, c, *[g * p for g, p in zip(grid, patch, strict=True)])
        shape = (1, -1, *[1] * r)
        return x * self.normalise.std.view(shape) + self.normalise.mean.view(shape)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        """A patch is real when any of it lies within the sample's extent."""
        if isinstance(x, Tensor):
            return None
        patch = torch.tensor(self.config.patch, device=x.extent.device)
        return _inside(self.grid(x), -(-x.extent // patch)).flatten(1)

    def forward(self, x: Input) -> Tokens:
        tokens = self.embed(self.patches(x))
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))


@dataclass(frozen=True, kw_only=True)
class TableTokenizerConfig:
    """One token per column: x -> x * weight[column] + bias[column] (FT-Transformer). NaN is a missing cell."""

    columns: int
    modality: str = "table"

    def build(self, dim: int) -> Tokenizer:
        return TableTokenizer(self, dim)


class TableTokenizer(Tokenizer):
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
        if isinstance(x, Ragged):
            raise RequestError("table: every row has the same columns; got rows of unequal length.")
        cells: Tensor = self.normalise(x)
        return cells


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
        return ((x.values if isinstance(x, Ragged) else x).shape[1],)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        raise RequestError(
            "text: words are names, not values, and cannot be reconstructed as values; mask and classify them."
        )

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        raise RequestError("text: words are names, not values; there is nothing to put together.")

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return _inside(self.grid(x), x.extent) if isinstance(x, Ragged) else None

    def forward(self, x: Input) -> Tokens:
        tokens = self.embed(x.values if isinstance(x, Ragged) else x)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))


TokenizerConfig = GridTokenizerConfig | TableTokenizerConfig | TextTokenizerConfig


def coordinates(grid: tuple[int, ...], device: torch.device | str) -> Float[Tensor, "n r"]:
    axes = torch.meshgrid(*[torch.arange(g, device=device, dtype=torch.float32) for g in grid], indexing="ij")
    return torch.stack([a.flatten() for a in axes], 1)


def take(x: Shaped[Tensor, "b n d"], index: Int[Tensor, "b k"]) -> Shaped[Tensor, "b k d"]:
    """Row index[i, j] of sample i."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def put(x: Float[Tensor, "b k d"], index: Int[Tensor, "b k"], base: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """The inverse of `take`: `base` with x written at `index`."""
    return base.to(x.dtype).scatter(1, index[..., None].expand_as(x), x)


def pick(tokens: Tokens, keep: Int[Tensor, "b k"]) -> Tokens:
    """The tokens named by `keep`, with their places and their validity."""
    valid = None if tokens.valid is None else tokens.valid.gather(1, keep)
    return Tokens(take(tokens.x, keep), valid, take(tokens.place, keep))


def _inside(size: tuple[int, ...] | torch.Size, extent: Int[Tensor, "b r"]) -> Bool[Tensor, "b ..."]:
    """True where a position of a grid of `size` lies within each sample's extent."""
    inside = torch.ones(len(extent), *size, dtype=torch.bool, device=extent.device)
    for axis, s in enumerate(size):
        hit = torch.arange(s, device=extent.device) < extent[:, axis, None]
        inside &= hit.view(len(extent), *[s if a == axis else 1 for a in range(len(size))])
    return inside
