"""Views that change what pixels hold and not where they are. Floats in [0, 1] in, floats in [0, 1] out.

They take any number of channels, except that saturation, hue and greyness exist for three (red, green, blue) only.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.parts.views.compose import Retouch, check_range, check_within, chosen_only_, exact
from headwater.parts.views.raster import SMALL

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Colour(Retouch):
    """Colour jitter, with probability `p`: brightness, contrast, saturation and hue, in random order.

    The first three by factors of U(max(0, 1 - v), 1 + v); hue, in the HSV cone, by U(-hue, hue) of a full circle.
    Each result is clamped to [0, 1] before the next. As in torchvision, but for this: the order is drawn once for the
    batch, not for each picture (every picture's own distribution is the same). For other than three channels,
    saturation and hue do nothing and the mean that contrast keeps is that of all channels.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)
        check_within(self, "hue", self.hue, high=0.5)
        for name in ("brightness", "contrast", "saturation"):
            check_within(self, name, getattr(self, name), high=math.inf)

    def factors(self, b: int, rng: Rng) -> Float[Tensor, "b 4"]:
        """Factors of brightness, contrast and saturation, and the turn of the hue in circles."""
        wide = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue], device=rng.device)
        low = torch.tensor([1.0, 1.0, 1.0, 0.0], device=rng.device) - wide
        high = low + 2 * wide
        low[:3].clamp_(min=0)
        drawn: Tensor = low + (high - low) * rng.rand(b, 4)
        return drawn

    def retouch_(self, x: Float[Tensor, "b c h w"], rng: Rng) -> None:
        strength = (self.brightness, self.contrast, self.saturation, self.hue)
        order = [n for n in range(4) if strength[n]]
        rng.host.shuffle(order)
        chosen = rng.rand(len(x)) < self.p
        factors = self.factors(len(x), rng)
        steps = [(n, STEPS[n]) for n in order if n < 2 or x.shape[1] == 3]

        def change(part: Tensor, factor: Tensor) -> Tensor:
            for n, step in steps:
                part = step(part, factor[:, n].view(-1, 1, 1, 1)).clamp_(0, 1)
            return part

        chosen_only_(x, chosen, change, factors)


@dataclass(frozen=True)
class Grey(Retouch):
    """Without colour, with probability `p`: three channels become their luma; other numbers of channels stay."""

    p: float = 0.2

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def retouch_(self, x: Float[Tensor, "b c h w"], rng: Rng) -> None:
        chosen = rng.rand(len(x)) < self.p
        if x.shape[1] == 3:
            chosen_only_(x, chosen, lambda part: _luma(part).expand_as(part))


@dataclass(frozen=True)
class Solarise(Retouch):
    """Values from `threshold` on are inverted (v becomes 1 - v), with probability `p` (BYOL, 2020)."""

    threshold: float = 0.5
    p: float = 1.0

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def retouch_(self, x: Float[Tensor, "b c h w"], rng: Rng) -> None:
        chosen_only_(x, rng.rand(len(x)) < self.p, lambda part: torch.where(part >= self.threshold, 1 - part, part))


@dataclass(frozen=True)
class Noise(Retouch):
    """Gaussian noise of standard deviation `std` on every value, clamped to [0, 1]."""

    std: float

    def retouch_(self, x: Float[Tensor, "b c h w"], rng: Rng) -> None:
        x.add_(rng.randn(*x.shape), alpha=self.std).clamp_(0, 1)


@dataclass(frozen=True)
class Blur(Retouch):
    """Gaussian blur of standard deviation U(sigma) pixels, with probability `p`; the edge is mirrored.

    The filter is `kernel` pixels wide (odd); weights below a thousandth of the middle one, which could not change a
    byte, are left out.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5
    kernel: int = 23

    def __post_init__(self) -> None:
        check_range(self, "sigma", self.sigma, low=1e-3)
        check_within(self, "p", self.p)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise RequestError(f"Blur: the kernel has an odd number of pixels; got {self.kernel}.")

    def retouch_(self, x: Float[Tensor, "b c h w"], rng: Rng) -> None:
        chosen = rng.rand(len(x)) < self.p
        chosen_only_(x, chosen, self._blur, rng.uniform(*self.sigma, len(x)))

    def _blur(self, x: Tensor, sigma: Tensor) -> Tensor:
        large_on_cpu = x.device.type == "cpu" and x.shape[2] * x.shape[3] > SMALL
        for axis in (3, 2):
            radius = min(self.kernel // 2, x.shape[axis] - 1)
            offset = torch.arange(-radius, radius + 1, device=x.device)
            weight = (-0.5 * (offset / sigma[:, None]) ** 2).exp()
            weight = weight * (weight >= 1e-3)
            weight = weight / weight.sum(1, keepdim=True)
            x = (_shifted_sums if large_on_cpu else _product)(x, weight, axis)
        return x


def _shifted_sums(x: Tensor, weight: Float[Tensor, "b k"], axis: int) -> Tensor:
    """Fewest operations: one pass per weight that is not zero for all."""
    used = weight.amax(0).nonzero().flatten().tolist()
    radius, n = weight.shape[1] // 2, x.shape[axis]
    reach = radius - used[0]
    padded = F.pad(x, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode="reflect")
    out = padded.narrow(axis, reach, n) * weight[:, radius].view(-1, 1, 1, 1)
    for k in range(1, reach + 1):
        pair = padded.narrow(axis, reach - k, n) + padded.narrow(axis, reach + k, n)
        out.addcmul_(pair, weight[:, radius + k].view(-1, 1, 1, 1))
    return out


def _product(x: Tensor, weight: Float[Tensor, "b k"], axis: int) -> Tensor:
    """Fewest kernels: a product with the banded matrix of the filter, its ends folded back at the edges."""
    n, radius = x.shape[axis], weight.shape[1] // 2
    place = torch.arange(n, device=x.device)[:, None] + torch.arange(-radius, radius + 1, device=x.device)
    place = (n - 1 - (n - 1 - place.abs()).abs()).expand(len(x), -1, -1)
    band = x.new_zeros(len(x), n, n).scatter_add_(2, place, weight[:, None].expand(-1, n, -1))
    with exact(x):
        return x @ band.mT[:, None] if axis == 3 else band[:, None] @ x


def _luma(x: Tensor) -> Tensor:
    grey: Tensor = x[:, :1] * LUMA[0]
    return grey.add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x.mul_(factor)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    mean = _luma(mean) if x.shape[1] == 3 else mean.mean(1, keepdim=True)
    return x.mul_(factor).add_(mean * (1 - factor))


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    grey = _luma(x).mul_(1 - factor)
    return x.mul_(factor).add_(grey)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue in the HSV cone; the largest and the smallest of the three values stay."""
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    high, low = red.maximum(green).maximum(blue), red.minimum(green).minimum(blue)
    chroma = high - low
    # Round the colour circle from green, the way to (r, g, b) is 1 + r + b - g sixths, towards blue where b > r and
    # towards red otherwise, if the least of the three is 0 and the greatest 1: no case distinctions needed.
    way = (red + blue).sub_(green).add_(high).sub_(low, alpha=2).copysign_(blue - red)
    hue = way.div_((chroma * 6).clamp_(min=1e-6)).add_(turn + 7 / 3)  # in circles, and positive for frac
    thirds = torch.tensor([0, 2 / 3, 1 / 3], device=x.device).view(1, 3, 1, 1)
    share = (hue + thirds).frac_().sub_(0.5).abs_().mul_(6).sub_(1).clamp_(0, 1)
    return share.mul_(chroma).add_(low)


STEPS = (_brightness, _contrast, _saturation, _hue)
