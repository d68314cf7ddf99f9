"""Series cut into patches in time: all channels in one token or each in tokens of its own, in their units or in none."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates, inside
from headwater.parts.tokens.grid import GridTokenizer, GridTokenizerConfig


@dataclass(frozen=True, kw_only=True)
class SeriesTokenizerConfig:
    """NaN is a missing value: it counts as the mean, and a patch of nothing else is not valid.

    instance_norm  each channel of each series by its own mean and deviation (RevIN, 2022), whatever those of the data:
                   level and scale, which often differ between sensors and days, are then not seen
    independent    a token holds a patch of one channel, and all channels share one embedding (PatchTST, 2023); attention
                   still looks across channels, and any number of them may come
    gaps           values may be missing from series of equal length; those that differ are looked at in any case
    """

    channels: int
    patch: int
    instance_norm: bool = False
    independent: bool = False
    gaps: bool = False
    modality: str = "series"

    def build(self, dim: int) -> Tokenizer:
        return SeriesTokenizer(self, dim)


class SeriesTokenizer(Tokenizer):
    """On a grid of (time), or of (channel, time) where channels are independent. Series that do not divide are filled up
    at the end."""

    def __init__(self, config: SeriesTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, 2 if config.independent else 1
        cut = GridTokenizerConfig(
            modality=config.modality,
            channels=1 if config.independent else config.channels,
            patch=(config.patch,),
            gaps=True,
            fill=True,
        )
        self.cut = GridTokenizer(cut, dim)
        self.patch_dim = self.cut.patch_dim
        self.normalise = None if config.instance_norm else Normalise(config.channels)

    def grid(self, x: Input) -> tuple[int, ...]:
        """Raises RequestError where no series of the batch is as long as one patch."""
        values = self._values(x)
        _, c, t = values.shape
        if t < self.config.patch:
            raise RequestError(
                f"{self.config.modality}: a series of {t} samples is shorter than one patch of {self.config.patch}; "
                f"give longer ones, or an encoder with a patch of at most {t}."
            )
        n = -(-t // self.config.patch)
        return (c, n) if self.config.independent else (n,)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """Normalised values, sample by sample with its channels side by side; NaN where one is missing."""
        self.grid(x)
        return self._unfolded(self.cut.patches(self._folded(self._normalised(x))), len(x))

    def unpatch(
        self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...], like: Input | None = None
    ) -> Float[Tensor, "b c t"]:
        """The inverse of `patches`. With `instance_norm` the values have mean 0 and deviation 1, unless the series are given
        whose mean and deviation they are to have."""
        b, n = len(patches), grid[-1]
        folded = patches.reshape(-1, n, self.patch_dim) if self.config.independent else patches
        out = self.cut.unpatch(folded, (n,))
        out = out.reshape(b, -1, out.shape[-1])
        if self.normalise is not None:
            return out * self.normalise.std[:, None] + self.normalise.mean[:, None]
        if like is None:
            return out
        mean, std = self._moments(self._known(like))
        return out * std + mean

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        if isinstance(x, Tensor) and not self.config.gaps:
            return None
        self.grid(x)
        known = self.cut.valid(self._folded(self._known(x)))
        assert known is not None
        return known.reshape(len(x), -1)

    def forward(self, x: Input) -> Tokens:
        tokens = self.cut.embed(self.patches(x).nan_to_num(0.0))
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))

    def _values(self, x: Input) -> Float[Tensor, "b c t"]:
        values = x if isinstance(x, Tensor) else x.values
        if isinstance(x, Graph) or values.ndim != 3:
            raise RequestError(f"{self.config.modality}: series are [b c t]; got {tuple(values.shape)}.")
        return values

    def _known(self, x: Input) -> Float[Tensor, "b c t"]:
        """NaN on padding too."""
        values = self._values(x)
        if isinstance(x, Ragged):
            return torch.where(inside(values.shape[2:], x.extent)[:, None], values, torch.nan)
        return values

    def _normalised(self, x: Input) -> Float[Tensor, "b c t"]:
        values = self._known(x)
        if self.normalise is not None:
            out: Tensor = self.normalise(values)
            return out
        mean, std = self._moments(values)
        return (values - mean) / std

    def _moments(self, values: Float[Tensor, "b c t"]) -> tuple[Float[Tensor, "b c 1"], Float[Tensor, "b c 1"]]:
        """Of the known values; a channel that never varies is only centred."""
        n = (~values.isnan()).sum(-1, keepdim=True).clamp(min=1)
        mean = values.nansum(-1, keepdim=True) / n
        std = ((values - mean).square().nansum(-1, keepdim=True) / n).sqrt()
        return mean, torch.where(std > 1e-6 * (1 + mean.abs()), std, 1.0)

    def _folded(self, values: Float[Tensor, "b c t"]) -> Float[Tensor, "b2 c2 t"]:
        return values.flatten(0, 1)[:, None] if self.config.independent else values

    def _unfolded(self, patches: Float[Tensor, "b2 n p"], b: int) -> Float[Tensor, "b n2 p"]:
        return patches.reshape(b, -1, self.patch_dim)
