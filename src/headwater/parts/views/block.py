"""Views of grids of three axes, `[b c t h w]` of clips and `[b c d h w]` of volumes."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.parts.views.compose import Retouch, Touch, check_range, check_within, exact, floats
from headwater.parts.views.raster import resampling


@dataclass(frozen=True)
class BoxCrop:
    """A random box, resampled to `size` (linear, antialiased); each axis mirrored with its probability in `flip`.

    The box takes a share U(scale) of each axis, independently, and lies anywhere within the sample's own extent. All
    frames of a clip get the same box, so motion stays what it was. Bytes become floats in [0, 1]; floats keep their unit.
    """

    size: tuple[int, int, int]
    scale: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for pair in self.scale:
            check_range(self, "scale", pair, high=1.0)
        for p in self.flip:
            check_within(self, "flip", p)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c t h w"]:
        values = x if isinstance(x, Tensor) else x.values
        if values.ndim != 5:
            raise RequestError(f"BoxCrop takes [b c t h w]; got a tensor of shape {tuple(values.shape)}.")
        b = len(values)
        whole = torch.tensor(values.shape[2:], device=values.device).expand(b, 3)
        extent = x.extent if isinstance(x, Ragged) else whole
        low = torch.tensor([pair[0] for pair in self.scale], device=values.device)
        high = torch.tensor([pair[1] for pair in self.scale], device=values.device)
        side = ((low + (high - low) * rng.rand(b, 3)) * extent).round().long().clamp(min=1).minimum(extent)
        start = (rng.rand(b, 3) * (extent - side + 1)).long().minimum(extent - side)
        mirrored = rng.rand(b, 3) < torch.tensor(self.flip, device=values.device)
        out = floats(values)
        with exact(out):
            for axis, name in enumerate("thw"):
                weight = resampling(start[:, axis], side[:, axis], values.shape[2 + axis], self.size[axis], "bilinear")
                weight = torch.where(mirrored[:, axis, None, None], weight.flip(1), weight)
                out = torch.einsum(f"bs{name},bcthw->bc{'thw'.replace(name, 's')}", weight, out)
        return out


@dataclass(frozen=True)
class EveryFrame(Retouch):
    """A change of pixels, the same in all frames of a clip: `EveryFrame(Colour(0.4, 0.4))`."""

    view: Retouch

    def draw(self, x: Float[Tensor, "b c t h w"], rng: Rng) -> Touch:
        touch = self.view.draw(x.flatten(2, 3), rng)  # the frames one below the other, as one tall picture
        return replace(touch, change=lambda part, *its: touch.change(part.flatten(2, 3), *its).view_as(part))
