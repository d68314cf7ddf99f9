"""Views of sounds `[b c t]`, or `Ragged` where they differ in length."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.parts.ragged import ragged_of
from headwater.parts.views.compose import check_range, check_within


@dataclass(frozen=True)
class Playback:
    """A stretch of U(scale) of each sound, played at a pace of U(speed): faster is also higher.

    Read by linear interpolation. What comes out differs in length.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale, high=1.0)
        check_range(self, "speed", self.speed, low=0.1)

    def __call__(self, x: Input, rng: Rng) -> Ragged:
        sound = ragged_of(x)
        b, _, t = sound.values.shape
        whole = sound.extent
        length = (rng.uniform(*self.scale, b, 1) * whole).clamp(min=1).minimum(whole.float())
        start = rng.rand(b, 1) * (whole - length)
        pace = rng.uniform(*self.speed, b, 1)
        extent = (length / pace).floor().long().clamp(min=1)
        most = int(t / self.speed[0])
        if sound.values.device.type == "cpu":  # elsewhere asking for the longest would make the device wait
            most = int(extent.max())
        at = torch.arange(most, device=sound.values.device)
        place = (start + at * pace).clamp(max=t - 1)
        low = place.floor().long()
        share = (place - low)[:, None]
        wide = (b, sound.values.shape[1], most)
        first, second = (sound.values.gather(2, i.clamp(max=t - 1)[:, None].expand(wide)) for i in (low, low + 1))
        made = torch.lerp(first, second, share)
        return Ragged(torch.where((at < extent)[:, None], made, 0.0), extent)


@dataclass(frozen=True)
class Loudness:
    """Each sound louder or softer by N(0, gain²) decibels, with noise of up to `noise` of its own deviation, inverted
    half of the time, and silent for a stretch of up to `silence` of its length (SpecAugment's masking in time)."""

    gain: float = 6.0
    noise: float = 0.1
    silence: float = 0.0

    def __post_init__(self) -> None:
        check_within(self, "silence", self.silence)

    def __call__(self, x: Input, rng: Rng) -> Input:
        sound = ragged_of(x)
        values, extent = sound.values, sound.extent[:, :, None]
        b, c, t = values.shape
        at = torch.arange(t, device=values.device)
        inside = at < extent
        deviation = ((values * inside).square().sum(2, keepdim=True) / (extent * 1.0)).sqrt()
        factor = 10 ** (self.gain * rng.randn(b, 1, 1) / 20) * (1 - 2.0 * rng.randint(2, b, 1, 1))
        made = factor * (values + deviation * (self.noise * rng.rand(b, 1, 1)) * rng.randn(b, c, t))
        length = rng.rand(b, 1, 1) * self.silence * extent
        start = rng.rand(b, 1, 1) * (extent - length)
        made = made * (inside & ~((at >= start) & (at < start + length)))
        return made if isinstance(x, Tensor) else Ragged(made, sound.extent)


@dataclass(frozen=True)
class Delay:
    """Each sound begins later or earlier by up to `most` of its length; silence enters at one end, and what leaves at the
    other is lost."""

    most: float = 0.1

    def __post_init__(self) -> None:
        check_within(self, "most", self.most)

    def __call__(self, x: Input, rng: Rng) -> Input:
        sound = ragged_of(x)
        b, c, t = sound.values.shape
        whole = sound.extent
        at = torch.arange(t, device=sound.values.device)
        place = at - (rng.uniform(-self.most, self.most, b, 1) * whole).round().long()
        kept = (place >= 0) & (place < whole) & (at < whole)
        moved = sound.values.gather(2, place.clamp(0, t - 1)[:, None].expand(b, c, t))
        made = torch.where(kept[:, None], moved, 0.0)
        return made if isinstance(x, Tensor) else Ragged(made, whole)


@dataclass(frozen=True)
class BandStop:
    """A band of pitch is silenced in each sound: of U(0, most) of the mel scale up to half of `rate`, anywhere on it.

    SpecAugment (2019) hides bands of a spectrogram; this hides them in the wave, before there is one, by its Fourier
    transform over the whole sound.
    """

    rate: int
    most: float = 0.2

    def __post_init__(self) -> None:
        check_within(self, "most", self.most)

    def __call__(self, x: Input, rng: Rng) -> Input:
        sound = ragged_of(x)
        b, _, t = sound.values.shape
        width = self.most * rng.rand(b, 1)
        low = rng.rand(b, 1) * (1 - width)
        pitch = torch.linspace(0, self.rate / 2, t // 2 + 1, device=sound.values.device)
        mel = torch.log1p(pitch / 700) / math.log1p(self.rate / 2 / 700)
        kept = (mel < low) | (mel >= low + width)
        inside = (torch.arange(t, device=pitch.device) < sound.extent)[:, None]
        made = torch.fft.irfft(torch.fft.rfft(sound.values * inside) * kept[:, None], t) * inside
        return made if isinstance(x, Tensor) else Ragged(made, sound.extent)
