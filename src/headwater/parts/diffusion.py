"""Noise that is added step by step, and ways back: schedules, and a sampler (Ho et al., 2020; Song et al., 2021).

Values are of about unit variance. A time t counts from 0, where hardly anything is noise, to the last step, where hardly
anything else is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """How much is left of the values at each of so many times: as half a cosine wave, squared (Nichol and Dhariwal, 2021),
    or by linearly growing steps."""

    steps: int = 1000
    kind: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise RequestError(f"NoiseSchedule.steps must be 2 or more; got {self.steps}.")

    def kept(self) -> Float[Tensor, " t"]:
        """The share of the variance that is still the values' own, at each time, in double precision."""
        if self.kind == "linear":
            lost = torch.linspace(0.1, 20.0, self.steps, dtype=torch.float64) / self.steps
        else:
            angle = (torch.arange(self.steps + 1, dtype=torch.float64) / self.steps + 0.008) / 1.008 * math.pi / 2
            wave = angle.cos().square()
            lost = (1 - wave[1:] / wave[:-1]).clamp(max=0.999)
        return (1 - lost).cumprod(0)

    def noised(self, x: Float[Tensor, "b ..."], t: Int[Tensor, " b"], noise: Tensor) -> Float[Tensor, "b ..."]:
        """The values at time t."""
        signal, spread = self._scales(t, x)
        return signal * x + spread * noise

    def clean(self, noised: Float[Tensor, "b ..."], t: Int[Tensor, " b"], noise: Tensor) -> Float[Tensor, "b ..."]:
        """What the values were, if this is the noise."""
        signal, spread = self._scales(t, noised)
        return (noised - spread * noise) / signal

    def noise(self, noised: Float[Tensor, "b ..."], t: Int[Tensor, " b"], clean: Tensor) -> Float[Tensor, "b ..."]:
        """What the noise is, if these were the values."""
        signal, spread = self._scales(t, noised)
        return (noised - signal * clean) / spread

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.kept().to(t.device)[t].view(-1, *[1] * (like.ndim - 1))
        return kept.sqrt().to(like.dtype), (1 - kept).sqrt().to(like.dtype)


@dataclass(frozen=True, kw_only=True)
class DDIM:
    """From noise to values in about so many `steps`. `eta`: how much new noise each adds; 0 adds none, 1 is the sampler of
    DDPM. `limit`: no value is taken to be larger (0: any may be)."""

    steps: int = 125
    eta: float = 1.0
    limit: float = 0.0

    def times(self, schedule: NoiseSchedule) -> list[int]:
        """From the last to 0."""
        return [*range(schedule.steps - 1, 0, -max(1, schedule.steps // self.steps)), 0]

    @torch.no_grad()
    def __call__(
        self,
        guess: Callable[[Tensor, Tensor], Tensor],
        x: Float[Tensor, "b ..."],
        schedule: NoiseSchedule,
        rng: Rng,
    ) -> Float[Tensor, "b ..."]:
        """`guess` says what the noise is in values [b ...] at times [b]; `x` is all noise."""
        kept, times = schedule.kept().tolist(), self.times(schedule)
        for now, following in pairwise(times):
            clean, noise = self._parted(guess, x, now, schedule)
            a, b = kept[now], kept[following]
            fresh = self.eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
            x = math.sqrt(b) * clean + math.sqrt(max(0.0, 1 - b - fresh**2)) * noise
            x = x + fresh * rng.randn(*x.shape).to(x.dtype)
        return self._parted(guess, x, 0, schedule)[0]

    def _parted(
        self, guess: Callable[[Tensor, Tensor], Tensor], x: Tensor, now: int, schedule: NoiseSchedule
    ) -> tuple[Tensor, Tensor]:
        t = torch.full((len(x),), now, device=x.device)
        noise = guess(x, t)
        clean = schedule.clean(x, t, noise)
        if self.limit:
            clean = clean.clamp(-self.limit, self.limit)
            noise = schedule.noise(x, t, clean)
        return clean, noise
