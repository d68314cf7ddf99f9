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
from headwater.parts.views.compose import Retouch, Touch, check_range, check_within
from headwater.parts.views.raster import SMALL

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
FAINT = math.sqrt(2 * math.log(1000))  # standard deviations at which a Gaussian is a thousandth of its height
BLOCK = 16  # pixels that a CPU blurs by one product; more would multiply by more zeros, fewer would be more products


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

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        strength = (self.brightness, self.contrast, self.saturation, self.hue)
        order = [n for n in range(4) if strength[n]]
        rng.host.shuffle(order)
        chosen = rng.rand(len(x)) < self.p
        factors = self.factors(len(x), rng).view(-1, 4, 1, 1, 1).unbind(1)
        order = [n for n in order if n < 2 or x.shape[1] == 3]

        def change(part: Tensor, *its: Tensor) -> Tensor:
            for n, factor in zip(order, its, strict=True):
                part = STEPS[n](part, factor).clamp_(0, 1)
            return part

        return Touch(chosen, change, tuple(factors[n] for n in order))


@dataclass(frozen=True)
class Grey(Retouch):
    """Without colour, with probability `p`: three channels become their luma; other numbers of channels stay."""

    p: float = 0.2

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        chosen = rng.rand(len(x)) < self.p
        return Touch(chosen, lambda part: luma(part).expand_as(part) if part.shape[1] == 3 else part)


@dataclass(frozen=True)
class Solarise(Retouch):
    """Values from `threshold` on are inverted (v becomes 1 - v), with probability `p` (BYOL, 2020)."""

    threshold: float = 0.5
    p: float = 1.0

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        return Touch(rng.rand(len(x)) < self.p, lambda part: torch.where(part >= self.threshold, 1 - part, part))


@dataclass(frozen=True)
class Noise(Retouch):
    """Gaussian noise of standard deviation `std` on every value, clamped to [0, 1]."""

    std: float

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        everything = torch.ones(len(x), dtype=torch.bool, device=x.device)
        return Touch(
            everything, lambda part, noise: part.add_(noise, alpha=self.std).clamp_(0, 1), (rng.randn(*x.shape),)
        )


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

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        chosen = rng.rand(len(x)) < self.p
        radius = min(self.kernel // 2, x.shape[2] - 1, x.shape[3] - 1, int(FAINT * self.sigma[1]))
        offset = torch.arange(-radius, radius + 1, device=x.device)
        weight = (-0.5 * (offset / rng.uniform(*self.sigma, len(x))[:, None]) ** 2).exp()
        weight = weight * (weight >= 1e-3)
        weight = weight / weight.sum(1, keepdim=True)
        if x.device.type != "cpu" or x.shape[2] * x.shape[3] <= SMALL:
            return Touch(chosen, _by_axes, (weight,))
        # row i of a band is the filter, moved i places to the right: one place is one entry less than a row
        reach = BLOCK + 2 * radius
        band = F.pad(weight, (0, BLOCK)).repeat(1, BLOCK)[:, : BLOCK * reach].view(-1, BLOCK, reach)
        return Touch(chosen, _by_blocks, (band,))


def _by_blocks(x: Float[Tensor, "b c h w"], band: Float[Tensor, "b s k"]) -> Float[Tensor, "b c h w"]:
    """Fewest operations: columns, then rows, in blocks of BLOCK, each a product of the band with what it reaches."""
    _, c, h, w = x.shape
    reach, across, down = band.shape[2], -(-w // BLOCK), -(-h // BLOCK)
    side = (reach - BLOCK) // 2
    padded = F.pad(x, (side, side, side, side), mode="reflect")
    if h % BLOCK or w % BLOCK:
        padded = F.pad(padded, (0, across * BLOCK - w, 0, down * BLOCK - h))
    tall, wide = padded.shape[2:]
    for i, its in enumerate(band.unbind()):
        part = padded[i].as_strided((across, reach, c * tall), (BLOCK, 1, wide))
        part = its.expand(across, -1, -1) @ part  # of shape (w) (c h)
        part = part.as_strided((down, reach, across * BLOCK * c), (BLOCK, 1, tall))
        part = its.expand(down, -1, -1) @ part  # of shape (h) (w c)
        x[i] = part.view(down * BLOCK, across * BLOCK, c).permute(2, 0, 1)[:, :h, :w]
    return x


def _by_axes(x: Float[Tensor, "b c h w"], weight: Float[Tensor, "b k"]) -> Float[Tensor, "b c h w"]:
    """Fewest kernels: a product with the banded matrix of the filter, its ends folded back at the edges, for each axis."""
    for axis in (3, 2):
        n, radius = x.shape[axis], weight.shape[1] // 2
        place = torch.arange(n, device=x.device)[:, None] + torch.arange(-radius, radius + 1, device=x.device)
        place = (n - 1 - (n - 1 - place.abs()).abs()).expand(len(x), -1, -1)
        band = x.new_zeros(len(x), n, n).scatter_add_(2, place, weight[:, None].expand(-1, n, -1))
        x = x @ band.mT[:, None] if axis == 3 else band[:, None] @ x
    return x


def luma(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    grey: Tensor = x[:, :1] * LUMA[0]
    return grey.add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x.mul_(factor)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    mean = luma(mean) if x.shape[1] == 3 else mean.mean(1, keepdim=True)
    return x.mul_(factor).add_(mean * (1 - factor))


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(x), x, factor, out=x)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue in the HSV cone; the largest and the smallest of the three values stay.

    Hues are counted from green in sixths of a circle and times the chroma, so that nothing is divided by it.
    """
    red, green, blue = x.split(1, 1)
    high, low = red.maximum(green), red.minimum(green)
    torch.maximum(high, blue, out=high), torch.minimum(low, blue, out=low)
    # The way from green is high + red + blue - green - 2 low, towards blue where it exceeds red and towards red else.
    way = (red + blue).sub_(green).add_(high).sub_(low, alpha=2).copysign_(blue - red)
    chroma = high.sub_(low)
    way.addcmul_(chroma, 6 * turn)
    torch.add(way, chroma, alpha=2, out=red)
    green.copy_(way)
    torch.sub(way, chroma, alpha=2, out=blue)
    for _ in range(2):  # how far the hue is from each colour, the shorter way round the circle
        x.abs_().sub_(chroma, alpha=3)
    x.abs_().sub_(chroma, alpha=2).clamp_(max=0)
    return torch.sub(low, torch.maximum(x, chroma.neg_(), out=x), out=x)


STEPS = (_brightness, _contrast, _saturation, _hue)
