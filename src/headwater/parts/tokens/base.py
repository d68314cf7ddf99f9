"""What every tokenizer offers, normalisation, and the moving of token sets."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input, Tokens


class Normalise(nn.Module):
    """(x - mean) / std per channel (the second axis); uint8 becomes [0, 1] first. A grey picture has all three colours alike."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """A channel that never varies is only centred. Grey moments are those of all colours."""
        if len(mean) not in (1, len(self.mean)):
            raise RequestError(f"The encoder was made for {len(self.mean)} channels, and these data have {len(mean)}.")
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Shaped[Tensor, "b c ..."]) -> Float[Tensor, "b channels ..."]:
        grey = x.ndim == 4 and x.shape[1] == 1 and len(self.mean) == 3
        if x.shape[1] != len(self.mean) and not grey:
            raise RequestError(
                f"The encoder was made for {len(self.mean)} channels, the input has {x.shape[1]} (shape {tuple(x.shape)})."
            )
        shape = (1, -1, *[1] * (x.ndim - 2))
        x = x if x.is_floating_point() else x.float() / 255
        return (x - self.mean.view(shape)) / self.std.view(shape)


class Tokenizer(nn.Module, ABC):
    """`patch_dim` values stand behind each token, and it stands at a place with `rank` coordinates.

    guess_dim   how many values a method says per token to restore it; more than patch_dim where `distance` weighs choices
    alike       the values of a patch are of one kind, so that its own mean and deviation mean something
    own_places  tokens stand elsewhere in every sample (points); on a grid they stand alike in all
    """

    rank: int
    patch_dim: int
    alike: ClassVar[bool] = True
    own_places: ClassVar[bool] = False

    @property
    def guess_dim(self) -> int:
        return self.patch_dim

    @abstractmethod
    def grid(self, x: Input) -> tuple[int, ...]:
        """The number of tokens along each axis."""

    @abstractmethod
    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The normalised values behind each token: what a reconstruction has to predict. NaN where there is nothing to
        know, on padding and where a value is missing; `distance` passes over it."""

    @abstractmethod
    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Shaped[Tensor, "b ..."]:
        """The inverse of `patches`: values as they were before normalisation."""

    def places(self, x: Input) -> Float[Tensor, "#b n r"]:
        """Where each token stands; one row for all samples where they stand alike."""
        device = (x if isinstance(x, Tensor) else x.values).device
        return coordinates(self.grid(x), device)[None]

    def distance(
        self, guess: Float[Tensor, "b k g"], target: Float[Tensor, "b k p"], power: int = 2
    ) -> Float[Tensor, "b k"]:
        """How wrong a reconstruction is, per token: the mean of |error| to this power over its values that are known."""
        known = ~target.isnan()
        error = torch.where(known, guess - target.nan_to_num(0.0), 0.0).abs()
        return (error.square() if power == 2 else error).sum(-1) / known.sum(-1).clamp(min=1)

    @abstractmethod
    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        """Which tokens are real; None when all are."""

    @abstractmethod
    def forward(self, x: Input) -> Tokens: ...


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


def inside(size: tuple[int, ...] | torch.Size, extent: Int[Tensor, "b r"]) -> Bool[Tensor, "b ..."]:
    """True where a position of a grid of `size` lies within each sample's extent."""
    within = torch.ones(len(extent), *size, dtype=torch.bool, device=extent.device)
    for axis, s in enumerate(size):
        hit = torch.arange(s, device=extent.device) < extent[:, axis, None]
        within &= hit.view(len(extent), *[s if a == axis else 1 for a in range(len(size))])
    return within
