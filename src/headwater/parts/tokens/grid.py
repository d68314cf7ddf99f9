"""Regular grids of values cut into equal patches."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates, inside


@dataclass(frozen=True, kw_only=True)
class GridTokenizerConfig:
    """Regular grids of any rank: series (t), spectrograms and images (h w), video and volumes (t h w).

    gaps   NaN is a missing value: it counts as the mean, and a patch of nothing else is not valid
    fill   what does not divide into patches is filled up at the end; otherwise that is an error
    """

    modality: str
    channels: int
    patch: tuple[int, ...]
    gaps: bool = False
    fill: bool = False

    def build(self, dim: int) -> Tokenizer:
        return GridTokenizer(self, dim)


class GridTokenizer(Tokenizer):
    def __init__(self, config: GridTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, len(config.patch)
        self.patch_dim = config.channels * math.prod(config.patch)
        self.normalise = Normalise(config.channels)
        self.embed = nn.Linear(self.patch_dim, dim)
        # content as strong as positions are, however few values a patch has: otherwise, with small patches, what
        # distinguishes samples drowns, and methods that predict features learn to predict places
        nn.init.normal_(self.embed.weight, std=self.patch_dim**-0.5)
        nn.init.zeros_(self.embed.bias)

    def grid(self, x: Input) -> tuple[int, ...]:
        """Patches along each axis. A plain tensor must divide, unless `fill`; a ragged one is filled up to whole patches."""
        size, patch = (x if isinstance(x, Tensor) else x.values).shape[2:], self.config.patch
        if len(size) != len(patch):
            raise RequestError(
                f"{self.config.modality}: patches of {patch} need {len(patch)} axes, the input has {len(size)}."
            )
        if isinstance(x, Tensor) and not self.config.fill and any(s % p for s, p in zip(size, patch, strict=True)):
            fits = [d for d in range(1, min(size) + 1) if all(s % d == 0 for s in size)]
            near = min(fits, key=lambda d: abs(d - patch[0]))
            raise RequestError(
                f"{self.config.modality}: an input of size {tuple(size)} does not divide into patches of {patch}; "
                f"a patch of {near} would (--set encoder.tokenizer.patch={tuple([near] * len(patch))!r})."
            )
        return tuple(-(-s // p) for s, p in zip(size, patch, strict=True))

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The normalised values of each patch, pixel by pixel with the channels of a pixel side by side; NaN for what is
        missing, and for what lies beyond a sample's extent."""
        self.grid(x)  # which says so where patches do not fit
        dense = x if isinstance(x, Tensor) else x.values
        dense = self.normalise(dense)
        if isinstance(x, Ragged):
            dense = torch.where(inside(dense.shape[2:], x.extent)[:, None], dense, torch.nan)
        return split(dense, self.config.patch, torch.nan)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b c ..."]:
        """The inverse of `patches`: back to values as they were before normalisation."""
        x = joined(patches, grid, self.config.patch)
        shape = (1, -1, *[1] * self.rank)
        return x * self.normalise.std.view(shape) + self.normalise.mean.view(shape)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        """A patch is real when any of it lies within the sample's extent and, with `gaps`, any of that is known."""
        real = None if isinstance(x, Tensor) else self._within(x)
        if not self.config.gaps:
            return real
        known = ~(x if isinstance(x, Tensor) else x.values).isnan()
        known = split(known.to(torch.float32), self.config.patch).amax(-1) > 0
        return known if real is None else known & real

    def _within(self, x: Ragged | Graph) -> Bool[Tensor, "b n"]:
        patch = torch.tensor(self.config.patch, device=x.extent.device)
        return inside(self.grid(x), -(-x.extent // patch)).flatten(1)

    def forward(self, x: Input) -> Tokens:
        patches = self.patches(x)
        if self.config.gaps or self.config.fill or not isinstance(x, Tensor):
            patches = patches.nan_to_num(0.0)  # the mean, after normalisation
        tokens = self.embed(patches)
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))


def split(dense: Float[Tensor, "b c ..."], patch: tuple[int, ...], fill: float = 0.0) -> Float[Tensor, "b n p"]:
    """The values of each patch, pixel by pixel with the channels of a pixel side by side; what lacks of whole patches at the
    end is filled up."""
    r = len(patch)
    grid = tuple(-(-s // p) for s, p in zip(dense.shape[2:], patch, strict=True))
    short = [g * p - s for g, p, s in zip(grid, patch, dense.shape[2:], strict=True)]
    if any(short):
        dense = F.pad(dense, [v for s in reversed(short) for v in (0, s)], value=fill)
    b, c = dense.shape[:2]
    parts = dense.reshape(b, c, *[s for pair in zip(grid, patch, strict=True) for s in pair])
    outer, inner = [2 + 2 * i for i in range(r)], [3 + 2 * i for i in range(r)]
    return parts.permute(0, *outer, *inner, 1).reshape(b, math.prod(grid), c * math.prod(patch))


def joined(patches: Float[Tensor, "b n p"], grid: tuple[int, ...], patch: tuple[int, ...]) -> Float[Tensor, "b c ..."]:
    """The inverse of `split`."""
    r = len(patch)
    x = patches.reshape(len(patches), *grid, *patch, -1)
    order = [0, 1 + 2 * r, *[a for i in range(r) for a in (1 + i, 1 + r + i)]]
    return x.permute(order).reshape(len(x), x.shape[-1], *[g * p for g, p in zip(grid, patch, strict=True)])
