"""Sound as log-mel patches, or as one token per few frames: the front end of AST, Audio-MAE and most of speech.

A frame is computed from samples that lie within the sound: no padding, whatever the batch, reaches a real frame.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.ragged import ragged_of
from headwater.parts.tokens.base import Tokenizer, coordinates
from headwater.parts.tokens.grid import GridTokenizer, GridTokenizerConfig

PREEMPHASIS, LOWEST = 0.97, 20.0  # Kaldi's, the latter in Hz
FEW = 16  # sounds whose spectra are held at once to learn their mean


@dataclass(frozen=True, kw_only=True)
class SpectrogramTokenizerConfig:
    """`patch` counts frames and mel bins: (16, 16) are AST's patches; with (4, mels) a token is 4 frames, 40 ms of sound,
    and tokens stand in a row.

    rate          sampling rate, Hz
    window, hop   length of a frame and distance between two, in seconds; the window is Hann's
    floor         the power below which all is silence
    kaldi         as Kaldi computes it: frames without their mean, pre-emphasised, and mel bins from 20 Hz
    frames        how many frames there always are: beyond the end of a sound its log-mel values are 0, as AST's are, and
                  these are tokens too; a longer sound is an error. 0: as many as a sound has
    stride        from patch to patch, where they overlap; needs `frames`, and what does not fill a patch is left out
    """

    rate: int
    patch: tuple[int, int] = (16, 16)
    mels: int = 128
    channels: int = 1
    window: float = 0.025
    hop: float = 0.010
    floor: float = 1e-6
    kaldi: bool = False
    frames: int = 0
    stride: tuple[int, int] | None = None
    modality: str = "audio"

    def __post_init__(self) -> None:
        if self.stride and not self.frames:
            raise RequestError("SpectrogramTokenizerConfig: patches that overlap (stride) need a number of frames.")
        if self.mels % self.patch[1] and not self.frames:
            raise RequestError(f"SpectrogramTokenizerConfig: {self.mels} mel bins do not divide into {self.patch[1]}.")

    def build(self, dim: int) -> Tokenizer:
        return SpectrogramTokenizer(self, dim)


class LogMel(nn.Module):
    """Waves [b c t] -> the logarithm of mel-weighted power [b c frames mels], HTK's mel scale."""

    taper: Tensor
    bank: Tensor

    def __init__(self, config: SpectrogramTokenizerConfig) -> None:
        super().__init__()
        self.width, self.step = round(config.window * config.rate), round(config.hop * config.rate)
        self.size, self.floor = 1 << (self.width - 1).bit_length(), config.floor
        self.kaldi, make = config.kaldi, kaldi_bank if config.kaldi else mel_bank
        taper = torch.hann_window(self.width, periodic=not config.kaldi)
        self.register_buffer("taper", taper, persistent=False)
        self.register_buffer("bank", make(config.mels, self.size // 2 + 1, config.rate), persistent=False)

    def frames(self, samples: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """How many frames so many samples make; at least one."""
        return 1 + (samples - self.width).clamp(min=0) // self.step

    def forward(self, wave: Float[Tensor, "b c t"]) -> Float[Tensor, "b c n m"]:
        wave = F.pad(wave, (0, max(0, self.width - wave.shape[2])))
        with torch.autocast(wave.device.type, enabled=False):  # a spectrum in 16 bits is mostly rounding
            pieces = wave.float().unfold(2, self.width, self.step)
            if self.kaldi:
                pieces = pieces - pieces.mean(-1, keepdim=True)
                pieces = pieces - PREEMPHASIS * torch.cat([pieces[..., :1], pieces[..., :-1]], -1)
            power = torch.view_as_real(torch.fft.rfft(pieces * self.taper, self.size)).square().sum(-1)
            return (power @ self.bank).clamp(min=self.floor).log()


class SpectrogramTokenizer(Tokenizer):
    def __init__(self, config: SpectrogramTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, 1 if config.patch[1] == config.mels else 2
        self.stride = config.stride or config.patch
        self.logmel = LogMel(config)
        self.cut = GridTokenizer(
            GridTokenizerConfig(modality=config.modality, channels=config.channels, patch=config.patch), dim
        )
        self.patch_dim = self.cut.patch_dim

    def calibrate(self, x: Input) -> None:
        """Normalise by the mean and deviation of the log-mel values of these sounds."""
        seen = []
        for part in range(0, len(x), FEW):  # spectra take much more room than sounds
            some = slice(part, part + FEW)
            picture = self.picture(x[some] if isinstance(x, Tensor) else Ragged(x.values[some], x.extent[some]))
            at = torch.arange(picture.values.shape[2]) < picture.extent[:, :1]
            seen.append(picture.values.transpose(1, 2)[at])
        std, mean = torch.std_mean(torch.cat(seen), (0, 2))
        self.cut.normalise.set(mean, std)

    def picture(self, x: Input) -> Ragged:
        """The log-mel spectrogram of each sound, [b c frames mels]."""
        sound = ragged_of(x)
        if isinstance(sound, Graph) or sound.values.ndim != 3:
            raise RequestError(f"{self.config.modality}: sounds are [b c t]; got {tuple(sound.values.shape)}.")
        made = self.logmel(sound.values)
        mels = sound.extent.new_full((len(sound), 1), self.config.mels)
        return Ragged(made, torch.cat([self.logmel.frames(sound.extent), mels], 1))

    def grid(self, x: Input) -> tuple[int, ...]:
        if self.config.frames:
            sizes = zip((self.config.frames, self.config.mels), self.config.patch, self.stride, strict=True)
            return tuple((s - p) // step + 1 for s, p, step in sizes)[: self.rank]
        n = int(self.logmel.frames(torch.tensor((x if isinstance(x, Tensor) else x.values).shape[2])))
        grid = math.ceil(n / self.config.patch[0]), self.config.mels // self.config.patch[1]
        return grid[: self.rank]

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """Normalised log-mel values, a patch per token; NaN for frames beyond the end of a sound."""
        if self.config.frames:
            return self._overlapping(x, torch.nan)
        return self.cut.patches(self.picture(x))

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b c t m"]:
        """The log-mel values, the mean of them where patches overlap; phases are gone, so there is no way back to the
        wave."""
        if self.config.frames:
            (height, width), channels = self.config.patch, self.config.channels
            full = (*grid, 1)[:2]
            tall, wide = ((n - 1) * s + p for n, s, p in zip(full, self.stride, self.config.patch, strict=True))
            parts = patches.unflatten(2, (height * width, channels)).transpose(2, 3).flatten(2).transpose(1, 2)
            summed = F.fold(parts, (tall, wide), self.config.patch, stride=self.stride)
            seen = F.fold(torch.ones_like(parts), (tall, wide), self.config.patch, stride=self.stride)
            normalise = self.cut.normalise
            return summed / seen * normalise.std.view(-1, 1, 1) + normalise.mean.view(-1, 1, 1)
        return self.cut.unpatch(patches, grid if self.rank == 2 else (*grid, 1))

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        if isinstance(x, Tensor) or self.config.frames:
            return None
        frames = self.logmel.frames(x.extent)
        n, *m = self.grid(x)
        real = torch.arange(n, device=frames.device) < -(-frames // self.config.patch[0])
        return real.repeat_interleave(math.prod(m), 1)

    def forward(self, x: Input) -> Tokens:
        if self.config.frames:
            tokens = self.cut.embed(self._overlapping(x, 0.0))
            place = coordinates(self.grid(x), tokens.device).to(tokens.dtype)
            return Tokens(tokens, None, place.expand(len(tokens), -1, -1))
        made: Tokens = self.cut(self.picture(x))
        return Tokens(made.x, self.valid(x), made.place[..., : self.rank])

    def _overlapping(self, x: Input, beyond: float) -> Float[Tensor, "b n p"]:
        """Normalised patches of exactly `frames` frames; those beyond the end of a sound have the log-mel value `beyond`."""
        picture, (height, width) = self.picture(x), self.config.patch
        n = picture.values.shape[2]
        short = self.config.frames - n
        if short < 0:
            most = (self.config.frames - 1) * self.logmel.step + self.logmel.width
            raise RequestError(
                f"{self.config.modality}: the encoder takes sounds of at most {self.config.frames} frames "
                f"({most / self.config.rate:.2f} s), and got one of {n}; files are read in shorter pieces with "
                "reading={'seconds': ...}."
            )
        real = (torch.arange(n, device=picture.extent.device) < picture.extent[:, :1])[:, None, :, None]
        values = F.pad(torch.where(real, picture.values, beyond), (0, 0, 0, short), value=beyond)
        cut = self.cut.normalise(values).unfold(2, height, self.stride[0]).unfold(3, width, self.stride[1])
        return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def mel_bank(mels: int, bins: int, rate: int) -> Float[Tensor, "f m"]:
    """Triangles of equal width on HTK's mel scale, mel = 2595 log10(1 + f / 700), from 0 Hz to half the rate."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    at = torch.linspace(0, rate / 2, bins, dtype=torch.float64)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def kaldi_bank(mels: int, bins: int, rate: int) -> Float[Tensor, "f m"]:
    """Triangles on Kaldi's mel scale, mel = 1127 ln(1 + f / 700), straight in mel and not in Hz, from 20 Hz."""

    def mel(f: Tensor) -> Tensor:
        return 1127 * (1 + f / 700).log()

    low, high = mel(torch.tensor([LOWEST, rate / 2], dtype=torch.float64))
    edges = low + (high - low) * torch.linspace(0, 1, mels + 2, dtype=torch.float64)
    at = mel(torch.linspace(0, rate / 2, bins, dtype=torch.float64))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
