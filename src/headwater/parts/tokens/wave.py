"""Sound as it is, without a spectrum: the stack of convolutions over raw samples that wav2vec 2.0 and HuBERT begin with.

A frame is computed from samples that lie within the sound, and its normalisation sees no padding either.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.ragged import ragged_of
from headwater.parts.tokens.base import Tokenizer, coordinates, inside


@dataclass(frozen=True, kw_only=True)
class WaveTokenizerConfig:
    """A token per `hop` samples, each seen with those that follow it, `reach` in all: 20 and 25 ms at 16 kHz.

    width            channels of every convolution
    kernels, strides of each of them
    norm             after the first one, per channel over time (wav2vec 2.0 base, HuBERT base), or after each, over the
                     channels (the large ones)
    standardise      each sound has mean 0 and deviation 1 before anything else
    eps              of the layer norm before the projection
    """

    rate: int
    channels: int = 1
    width: int = 512
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    norm: Literal["group", "layer"] = "group"
    bias: bool = False
    standardise: bool = True
    eps: float = 1e-5
    modality: str = "audio"

    def __post_init__(self) -> None:
        if len(self.kernels) != len(self.strides):
            raise RequestError(f"WaveTokenizerConfig: {len(self.kernels)} kernels for {len(self.strides)} strides.")

    @property
    def hop(self) -> int:
        return math.prod(self.strides)

    @property
    def reach(self) -> int:
        reach = 1
        for k, s in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            reach = (reach - 1) * s + k
        return reach

    def build(self, dim: int) -> Tokenizer:
        return WaveTokenizer(self, dim)


class TimeNorm(nn.Module):
    """Each channel of each sound by its own mean and deviation over time: a group norm of one channel per group, which
    passes over padding."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c t"], length: Int[Tensor, " b"] | None) -> Float[Tensor, "b c t"]:
        if length is None:
            return F.group_norm(x, len(self.weight), self.weight, self.bias, self.eps)
        real = inside(x.shape[2:], length[:, None])[:, None]
        n = length.view(-1, 1, 1)
        mean = (x * real).sum(2, keepdim=True) / n
        var = ((x - mean) * real).square().sum(2, keepdim=True) / n
        return (x - mean) * (var + self.eps).rsqrt() * self.weight[:, None] + self.bias[:, None]


class WaveStem(nn.Module):
    """Waves [b c t] -> features [b n width]. `norms` holds a TimeNorm for the first convolution, or a layer norm for each."""

    def __init__(self, config: WaveTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList()
        for i, (k, s) in enumerate(zip(config.kernels, config.strides, strict=True)):
            conv = nn.Conv1d(config.width if i else config.channels, config.width, k, s, bias=config.bias)
            nn.init.kaiming_normal_(conv.weight)
            self.convs.append(conv)
        layers = config.norm == "layer"
        made: Iterable[nn.Module] = (
            nn.LayerNorm(config.width) if layers else TimeNorm(config.width) for _ in config.kernels
        )
        self.norms = nn.ModuleList(list(made)[: None if layers else 1])

    def frames(self, samples: Int[Tensor, "*s"], layers: int | None = None) -> Int[Tensor, "*s"]:
        """How many frames so many samples make, after all convolutions or the first few; at least one."""
        sizes = [*zip(self.config.kernels, self.config.strides, strict=True)][:layers]
        for k, s in sizes:
            samples = (samples - k).clamp(min=0) // s + 1
        return samples

    def forward(self, wave: Float[Tensor, "b c t"], extent: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b n w"]:
        t = wave.shape[2]
        if t < self.config.reach:  # what fills up a single frame is padding too
            wave = F.pad(wave, (0, self.config.reach - t))
            extent = torch.full((len(wave),), t, device=wave.device) if extent is None else extent
        x = wave
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if self.config.norm == "layer":
                x = self.norms[i](x.transpose(1, 2)).transpose(1, 2)
            elif i == 0:
                x = self.norms[0](x, None if extent is None else self.frames(extent, 1))
            x = F.gelu(x)
        return x.transpose(1, 2)


class WaveTokenizer(Tokenizer):
    """A stem, a layer norm and a projection. Neighbouring frames share the few samples by which `reach` exceeds `hop`."""

    def __init__(self, config: WaveTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, 1
        self.patch_dim = config.channels * config.hop
        self.stem = WaveStem(config)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.embed = nn.Linear(config.width, dim)

    def grid(self, x: Input) -> tuple[int, ...]:
        t = (x if isinstance(x, Tensor) else x.values).shape[2]
        return (int(self.stem.frames(torch.tensor(t))),)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The samples that each frame begins with, one `hop` of them, sample by sample with its channels side by side; NaN
        beyond the end of a sound. The few after the last are behind no token."""
        sound = self._standard(x)
        (n,), hop = self.grid(x), self.config.hop
        real = inside(sound.values.shape[2:], sound.extent)[:, None]
        wave = torch.where(real, sound.values, torch.nan)
        wave = F.pad(wave, (0, max(0, n * hop - wave.shape[2])), value=torch.nan)[:, :, : n * hop]
        return wave.unflatten(2, (n, hop)).permute(0, 2, 3, 1).flatten(2)

    def unpatch(
        self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...], like: Input | None = None
    ) -> Float[Tensor, "b c t"]:
        """The inverse of `patches`. Standardised sounds have mean 0 and deviation 1, unless the sounds are given whose mean
        and deviation they are to have."""
        wave = patches.unflatten(2, (self.config.hop, self.config.channels)).permute(0, 3, 1, 2).flatten(2)
        if like is None or not self.config.standardise:
            return wave
        mean, std = self._moments(self._sound(like))
        return wave * std + mean

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        if isinstance(x, Tensor):
            return None
        return inside(self.grid(x), self.stem.frames(x.extent))

    def features(self, x: Input) -> Float[Tensor, "b n w"]:
        """Frames before they are projected, normalised: what wav2vec 2.0 makes its targets of."""
        sound = self._standard(x)
        out: Tensor = self.norm(self.stem(sound.values, None if isinstance(x, Tensor) else sound.extent[:, 0]))
        return out

    def forward(self, x: Input) -> Tokens:
        tokens = self.embed(self.features(x))
        place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
        return Tokens(tokens, self.valid(x), place.expand(len(tokens), -1, -1))

    def _sound(self, x: Input) -> Ragged:
        sound = ragged_of(x)
        if isinstance(sound, Graph) or sound.values.ndim != 3 or sound.values.shape[1] != self.config.channels:
            raise RequestError(
                f"{self.config.modality}: sounds are [b {self.config.channels} t]; got {tuple(sound.values.shape)}."
            )
        return sound

    def _standard(self, x: Input) -> Ragged:
        """Zero on padding."""
        sound = self._sound(x)
        real = inside(sound.values.shape[2:], sound.extent)[:, None]
        values = sound.values
        if self.config.standardise:
            mean, std = self._moments(sound)
            values = (values - mean) / std
        return Ragged(torch.where(real, values, 0.0), sound.extent)

    def _moments(self, sound: Ragged) -> tuple[Float[Tensor, "b c 1"], Float[Tensor, "b c 1"]]:
        real = inside(sound.values.shape[2:], sound.extent)[:, None]
        n = sound.extent[:, :, None]
        mean = (sound.values * real).sum(2, keepdim=True) / n
        var = ((sound.values - mean) * real).square().sum(2, keepdim=True) / n
        return mean, (var + 1e-7).sqrt()
