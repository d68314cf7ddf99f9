"""Views of series `[b c t]` and of rows of a table `[b n]`, in whatever unit they have: nothing is clamped."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.core.verbs import values
from headwater.parts.tokens.base import inside
from headwater.parts.views.compose import check_range, check_within


@dataclass(frozen=True)
class Jitter:
    """Gaussian noise of standard deviation `std` on every value of a series or a row; a missing value stays missing.

    With `relative`, `std` counts in standard deviations of the sample's own channel, whatever unit that has.
    """

    std: float
    relative: bool = False

    def __call__(self, x: Input, rng: Rng) -> Input:
        def change(x: Tensor) -> Tensor:
            return x + self.std * (_deviation(x) if self.relative else 1.0) * rng.randn(*x.shape)

        return _each(x, change)


@dataclass(frozen=True)
class Scale:
    """Each channel (or cell of a row) times a factor of N(1, std²) (Um et al., 2017)."""

    std: float

    def __call__(self, x: Input, rng: Rng) -> Input:
        return _each(x, lambda x: x * (1 + self.std * rng.randn(*_per_channel(x))))


@dataclass(frozen=True)
class Shift:
    """Each channel (or cell of a row) plus one offset of N(0, std²): its level moves, not its time (CoST, 2022).

    With `relative`, `std` counts in standard deviations of the sample's own channel, whatever unit that has.
    """

    std: float
    relative: bool = False

    def __call__(self, x: Input, rng: Rng) -> Input:
        def change(x: Tensor) -> Tensor:
            return x + self.std * (_deviation(x) if self.relative else 1.0) * rng.randn(*_per_channel(x))

        return _each(x, change)


@dataclass(frozen=True)
class DropChannels:
    """Each channel is set to zero with probability `p`; one that is drawn anew is kept where all would be lost."""

    p: float

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c t"]:
        x = values(x)
        draw = rng.rand(*x.shape[:2])
        keep = (draw >= self.p) | (draw == draw.amax(1, keepdim=True))
        return x * keep[..., None]


@dataclass(frozen=True)
class Window:
    """A random stretch of the series, U(scale) of its length, resampled linearly to `length` samples.

    `scale=None`: exactly `length` samples as they are, nothing resampled. A ragged batch comes out regular; the
    stretch lies within each series' own extent.
    """

    length: int
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_range(self, "scale", self.scale, high=1.0)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c s"]:
        data = x if isinstance(x, Tensor) else x.values
        b, _, t = data.shape
        whole = x.extent[:, 0] if isinstance(x, Ragged) else torch.full((b,), t, device=data.device)
        share, start = rng.rand(b, 2).unbind(1)
        step = torch.arange(self.length, device=data.device)
        if self.scale is None:
            if data.device.type == "cpu" and int(whole.min()) < self.length:
                raise RequestError(
                    f"Window: a series of {int(whole.min())} samples holds no window of {self.length}; "
                    "ask for a shorter one, or for a resampled one by `scale`."
                )
            room = whole - self.length
            first = (start * (room + 1)).long().minimum(room)
            return data.gather(2, (first[:, None] + step)[:, None].expand(-1, data.shape[1], -1))
        span = (self.scale[0] + (self.scale[1] - self.scale[0]) * share) * (whole - 1)
        place = start * (whole - 1 - span)
        return _read(data, place[:, None] + span[:, None] * step / max(1, self.length - 1))


@dataclass(frozen=True)
class Warp:
    """Time runs faster and slower along the series, smoothly; its ends and its order stay (Um et al., 2017).

    strength  standard deviation of the logarithm of the speed
    knots     how many independent speeds there are along the series, linear in between
    """

    strength: float = 0.2
    knots: int = 4

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c t"]:
        x = values(x)
        t = x.shape[2]
        pace = self.strength * rng.randn(len(x), 1, self.knots)
        speed = F.interpolate(pace, t - 1, mode="linear", align_corners=True)[:, 0].exp()
        place = F.pad(speed.cumsum(1), (1, 0))
        return _read(x, place * ((t - 1) / place[:, -1:]))


@dataclass(frozen=True)
class Corrupt:
    """A random `ratio` of the cells of each row take the value of the same column in another row (SCARF, 2022).

    The other row is drawn per cell from the rows at hand (on several machines, from this machine's). Exactly
    round(ratio · columns) cells per row are drawn. A missing cell (NaN) stays missing, and none becomes missing.
    """

    ratio: float = 0.6

    def __post_init__(self) -> None:
        check_within(self, "ratio", self.ratio)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b n"]:
        x = values(x)
        b, n = x.shape
        if b < 2:
            raise RequestError("Corrupt takes values from other rows of the batch; this batch has one row only.")
        hit = torch.zeros_like(x, dtype=torch.bool)
        hit.scatter_(1, rng.rand(b, n).argsort(1)[:, : round(self.ratio * n)], True)
        other = torch.arange(b, device=x.device)[:, None] + 1 + rng.randint(b - 1, b, n)
        donor = x.gather(0, other % b)
        return torch.where(hit & ~x.isnan() & ~donor.isnan(), donor, x)


def _each(x: Input, change: Callable[[Tensor], Tensor]) -> Input:
    """A change of values; what fills a ragged batch up counts as missing meanwhile, and stays zero."""
    if not isinstance(x, Ragged):
        return change(values(x))
    within = inside(x.values.shape[2:], x.extent)[:, None]
    made = change(torch.where(within, x.values, torch.nan))
    return Ragged(torch.where(within, made, 0.0), x.extent)


def _deviation(x: Tensor) -> Tensor:
    """The standard deviation of each channel of each sample over its other axes, missing values passed over."""
    axes = tuple(range(2, x.ndim))
    known = ~x.isnan()
    count = known.sum(axes, keepdim=True).clamp(min=1)
    mean = torch.where(known, x, 0).sum(axes, keepdim=True) / count
    return (torch.where(known, x - mean, 0).square().sum(axes, keepdim=True) / count).sqrt()


def _per_channel(x: Tensor) -> list[int]:
    return [*x.shape[:2], *[1] * (x.ndim - 2)]


def _read(x: Float[Tensor, "b c t"], place: Float[Tensor, "b s"]) -> Float[Tensor, "b c s"]:
    """Values at fractional times, linear between samples."""
    before = place.floor().clamp(0, max(0, x.shape[2] - 2)).long()
    after = (before + 1).clamp(max=x.shape[2] - 1)
    wide = (len(x), x.shape[1], place.shape[1])
    low, high = (x.gather(2, at[:, None].expand(wide)) for at in (before, after))
    return torch.lerp(low, high, (place - before)[:, None])
