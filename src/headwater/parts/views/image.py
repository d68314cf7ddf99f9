"""Views that move pixels: crops, flips, affine and elastic maps, and exact quarter turns."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import values
from headwater.parts.views.compose import Remake, Retouch, Touch, check_range, check_within, exact, floats
from headwater.parts.views.raster import Filter, centred, displace, extents, resize_boxes

Padding = Literal["zeros", "border", "reflection"]


class Boxed(Remake):
    """A box of each picture at size × size, antialiased."""

    size: int
    kind: Filter

    @abstractmethod
    def boxes(self, extent: Int[Tensor, "b 2"], rng: Rng) -> Int[Tensor, "b 4"]:
        """(top, left, height, width) for pictures of (height, width) `extent`, in pixels."""

    def flips(self, b: int, rng: Rng) -> Bool[Tensor, " b"]:
        """Which are mirrored."""
        return torch.zeros(b, dtype=torch.bool, device=rng.device)

    def retouched(self, x: Input, rng: Rng, more: Sequence[Retouch]) -> Float[Tensor, "b c s s"]:
        pixels, extent = extents(x)
        box, flip = self.boxes(extent, rng), self.flips(len(pixels), rng)
        square = (self.size, self.size)
        return resize_boxes(pixels, box, flip, square, self.kind, lambda made: [one.draw(made, rng) for one in more])


@dataclass(frozen=True)
class Crop(Boxed):
    """The random resized crop of Inception (Szegedy et al., 2015), and a mirror image with probability `flip`.

    A box of area U(scale) of the picture and of log-uniform aspect ratio (width over height), uniform among the
    places where it fits; of ten draws the first that fits, else the largest centred box of a permitted ratio. All ten
    are drawn at once, so this is the usual sequential procedure exactly. The resize is antialiased.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    kind: Filter = "bilinear"

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale, high=1.0)
        check_range(self, "ratio", self.ratio, low=1e-3)
        check_within(self, "flip", self.flip)

    def flips(self, b: int, rng: Rng) -> Bool[Tensor, " b"]:
        return rng.rand(b) < self.flip

    def boxes(self, extent: Int[Tensor, "b 2"], rng: Rng) -> Int[Tensor, "b 4"]:
        b = len(extent)
        height, width = extent.unbind(1)
        area = rng.uniform(*self.scale, b, 10) * (height * width)[:, None]
        ratio = rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), b, 10).exp()
        w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
        first = fits.int().argmax(1, keepdim=True)
        found = fits.any(1)
        full_h = torch.minimum(height, (width / self.ratio[0]).round().long()).clamp(min=1)
        full_w = torch.minimum(width, (height * self.ratio[1]).round().long()).clamp(min=1)
        h = torch.where(found, h.gather(1, first)[:, 0], full_h)
        w = torch.where(found, w.gather(1, first)[:, 0], full_w)
        room = torch.stack([height - h, width - w], 1)
        random = (rng.rand(b, 2) * (room + 1)).long().minimum(room)
        top, left = torch.where(found[:, None], random, room // 2).unbind(1)
        return torch.stack([top, left, h, w], 1)


@dataclass(frozen=True)
class Resize(Boxed):
    """The whole picture at size × size, antialiased; its aspect ratio is not kept."""

    size: int
    kind: Filter = "bilinear"

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c s s"]:
        whole = isinstance(x, Tensor) and x.shape[2:] == (self.size, self.size)
        return floats(values(x)) if whole else super().__call__(x, rng)

    def boxes(self, extent: Int[Tensor, "b 2"], rng: Rng) -> Int[Tensor, "b 4"]:
        return torch.cat([torch.zeros_like(extent), extent], 1)


@dataclass(frozen=True)
class CentreCrop(Boxed):
    """The central square, its side `part` of the shorter side of the picture, at size × size; the usual test view."""

    size: int
    part: float = 0.875
    kind: Filter = "bilinear"

    def __post_init__(self) -> None:
        check_within(self, "part", self.part, low=0.01)

    def boxes(self, extent: Int[Tensor, "b 2"], rng: Rng) -> Int[Tensor, "b 4"]:
        side = (extent.amin(1, keepdim=True) * self.part).round().long().clamp(min=1).expand(-1, 2)
        return torch.cat([(extent - side) // 2, side], 1)


@dataclass(frozen=True)
class Flip(Retouch):
    """The mirror image (left and right change places) with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def draw(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Touch:
        return Touch(rng.rand(len(x)) < self.p, lambda part: part.flip(-1))


@dataclass(frozen=True)
class Affine:
    """A random turn, shift, zoom and shear about the centre, in one bilinear sampling.

    degrees    turned by U(-degrees, degrees)
    translate  moved by U(-translate, translate) of the width and, independently, of the height
    scale      content magnified by U(scale)
    shear      sheared along the width by an angle of U(-shear, shear) degrees
    padding    what lies outside the picture: "zeros", "border" or "reflection"
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    padding: Padding = "zeros"

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale, low=1e-3)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c h w"]:
        pixels = floats(values(x))
        b, _, h, w = pixels.shape
        turn, lean, zoom, *move = rng.rand(b, 5).unbind(1)
        turn = (2 * turn - 1) * math.radians(self.degrees)
        lean = ((2 * lean - 1) * math.radians(self.shear)).tan()
        zoom = self.scale[0] + (self.scale[1] - self.scale[0]) * zoom
        side = torch.tensor([w, h], device=pixels.device)
        shift = (2 * torch.stack(move, 1) - 1) * self.translate * side
        # out = zoom · turn · shear · (in) + shift; sampling needs the inverse, from out to in
        turned = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], 1).view(b, 2, 2)
        one, none = torch.ones_like(lean), torch.zeros_like(lean)
        sheared = torch.stack([one, -lean, none, one], 1).view(b, 2, 2)
        with exact(pixels):
            inverse = sheared @ turned / zoom[:, None, None]
            place = (centred(h, w, pixels.device).view(1, -1, 2) - shift[:, None]) @ inverse.mT
        return displace(pixels, place.view(b, h, w, 2), self.padding)


@dataclass(frozen=True)
class Elastic:
    """A smooth random field moves every pixel (Simard et al., 2003).

    strength    root mean square of the displacement along each axis, in pixels
    smoothness  standard deviation of the Gaussian that smooths the field, in pixels
    """

    strength: float
    smoothness: float
    padding: Padding = "zeros"

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c h w"]:
        pixels = floats(values(x))
        b, _, h, w = pixels.shape
        field = rng.randn(b, 2, h, w)
        for n, axis in ((w, -1), (h, -2)):
            place = torch.arange(n, device=pixels.device, dtype=torch.float32)
            blur = (-0.5 * ((place[:, None] - place) / self.smoothness) ** 2).exp()
            blur = blur * (blur > 1e-6)  # denormal numbers would slow the product down tenfold
            blur = blur / blur.norm(dim=1, keepdim=True)  # of unit noise, this makes unit variance everywhere
            with exact(pixels):
                field = field @ blur.mT if axis == -1 else blur @ field
        place = centred(h, w, pixels.device) + self.strength * field.permute(0, 2, 3, 1)
        return displace(pixels, place, self.padding)


def rotations(x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b4 c h h"], Int[Tensor, " b4"]]:
    """Each picture turned by 0, 1, 2, 3 quarter turns counter-clockwise, and how many (RotNet, 2018).

    The four copies of a picture follow each other. Pixels change places only: interpolation would give the turn away.
    """
    if x.shape[-1] != x.shape[-2]:
        raise RequestError(f"Quarter turns need square pictures; got {x.shape[-2]} × {x.shape[-1]}. Crop them first.")
    turned = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)], 1).flatten(0, 1)
    return turned, torch.arange(4, device=x.device).repeat(len(x))
