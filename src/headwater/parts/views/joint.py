"""Views that carry boxes and masks along: crops, mirror images, and scaling, of pictures with their annotations.

`(pixels, annotations, rng) -> (pixels, annotations)`, whole batches at a time. A box is cut at the edges of what is
seen; one that loses more than a share of its area is dropped, and the boxes left move to the front. Masks are taken at
the nearest pixel. Views of colour alone need none of this: they leave annotations true.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Annotations, Input
from headwater.core.verbs import values
from headwater.parts.boxes import area, clip
from headwater.parts.views.compose import check_range, check_within, exact, floats
from headwater.parts.views.image import Crop
from headwater.parts.views.raster import Filter, extents, resize_boxes


@runtime_checkable
class JointView(Protocol):
    """A view of pictures and of what is marked on them."""

    def __call__(self, x: Input, marks: Annotations, rng: Rng) -> tuple[Tensor, Annotations]: ...


@dataclass(frozen=True)
class JointCrop:
    """The random resized crop of `Crop`, mirrored with probability `flip`. A box of which less than `least` of its area
    is inside is dropped."""

    size: int
    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    least: float = 0.25
    kind: Filter = "bilinear"

    def __post_init__(self) -> None:
        check_within(self, "least", self.least)
        self._crop()

    def _crop(self) -> Crop:
        return Crop(self.size, self.scale, self.ratio, self.flip, self.kind)

    def __call__(self, x: Input, marks: Annotations, rng: Rng) -> tuple[Tensor, Annotations]:
        pixels, extent = extents(x)
        window = self._crop().boxes(extent, rng)
        flip = rng.rand(len(pixels)) < self.flip
        size = (self.size, self.size)
        made = resize_boxes(pixels, window, flip, size, self.kind)
        return made, carried(marks, window.float(), flip, size, self.least)


@dataclass(frozen=True)
class JointResize:
    """The whole picture at size × size, antialiased; its aspect ratio is not kept."""

    size: int
    kind: Filter = "bilinear"

    def __call__(self, x: Input, marks: Annotations, rng: Rng) -> tuple[Tensor, Annotations]:
        pixels, extent = extents(x)
        window = torch.cat([torch.zeros_like(extent), extent], 1)
        never = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        size = (self.size, self.size)
        made = resize_boxes(pixels, window, never, size, self.kind)
        return made, carried(marks, window.float(), never, size, 0.0)


@dataclass(frozen=True)
class JointFlip:
    """The mirror image (left and right change places) with probability `p`, of pictures of one size."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_within(self, "p", self.p)

    def __call__(self, x: Input, marks: Annotations, rng: Rng) -> tuple[Tensor, Annotations]:
        pixels = floats(values(x))
        size = (pixels.shape[2], pixels.shape[3])
        flip = rng.rand(len(pixels)) < self.p
        window = torch.tensor([0.0, 0.0, *size], device=pixels.device).expand(len(pixels), 4)
        return torch.where(flip[:, None, None, None], pixels.flip(-1), pixels), carried(marks, window, flip, size, 0.0)


@dataclass(frozen=True)
class JointScale:
    """Large-scale jitter (Ghiasi et al., 2021): the picture, its aspect ratio kept, is made to fit size × size, then
    U(scale) times that large. Of what is larger a random part is seen; what is smaller lies at a random place, with zeros
    (and pixels of no class) around it."""

    size: int
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    least: float = 0.25

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale, low=1e-2)
        check_within(self, "flip", self.flip)
        check_within(self, "least", self.least)

    def __call__(self, x: Input, marks: Annotations, rng: Rng) -> tuple[Tensor, Annotations]:
        pixels, extent = extents(x)
        b, size = len(pixels), (self.size, self.size)
        side = extent.amax(1) / rng.uniform(*self.scale, b)  # of the window, in pixels of the picture
        start = (extent - side[:, None]) * rng.rand(b, 2)  # below zero where the window is the larger
        window = torch.cat([start, side[:, None].expand(b, 2)], 1)
        flip = rng.rand(b) < self.flip
        with exact(pixels):
            down = _taken(window[:, 0], side, extent[:, 0], pixels.shape[2], self.size)
            across = _taken(window[:, 1], side, extent[:, 1], pixels.shape[3], self.size)
            across = torch.where(flip[:, None, None], across.flip(1), across)
            made = down[:, None] @ floats(pixels) @ across.mT[:, None]
        return made, carried(marks, window, flip, size, self.least)


def _taken(
    start: Float[Tensor, " b"], length: Float[Tensor, " b"], extent: Int[Tensor, " b"], n: int, size: int
) -> Float[Tensor, "b s n"]:
    """Row s: how much each of n pixels gives to pixel s of a window that may reach beyond the picture; such rows are
    zero."""
    ratio = (length / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * ratio
    pixel = torch.arange(n, device=start.device)
    most = extent[:, None, None]
    weight = (1 - ((pixel + 0.5 - centre) / ratio.clamp(min=1)).abs()).clamp(min=0) * (pixel < most)
    inside = (centre >= 0) & (centre < most)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-6) * inside


def carried(
    marks: Annotations, window: Float[Tensor, "b 4"], flip: Bool[Tensor, " b"], size: tuple[int, int], least: float
) -> Annotations:
    """What is marked in the window (top, left, height, width, in pixels) of each picture, seen at `size`, mirrored where
    `flip`. The number of places stays; those of dropped boxes are filled up (zeros, class -1)."""
    start = torch.stack([window[:, 1], window[:, 0]] * 2, 1)[:, None]
    ratio = torch.stack([size[1] / window[:, 3], size[0] / window[:, 2]] * 2, 1)[:, None]
    whole = (marks.boxes - start) * ratio
    seen = clip(whole, torch.tensor(size, device=whole.device))
    left, top, right, bottom = seen.unbind(-1)
    seen = torch.where(flip[:, None, None], torch.stack([size[1] - right, top, size[1] - left, bottom], -1), seen)
    visible, all_of_it = area(seen), area(whole)
    kept = (marks.classes >= 0) & (visible > 0) & (visible >= least * all_of_it * (1 - 1e-5))
    order = (~kept).int().argsort(dim=1, stable=True)
    kept = kept.gather(1, order)
    boxes = torch.where(kept[..., None], seen.gather(1, order[..., None].expand(-1, -1, 4)), 0.0)
    classes = torch.where(kept, marks.classes.gather(1, order), -1)
    return Annotations(boxes, classes, None if marks.masks is None else _sampled(marks.masks, window, flip, size))


def _sampled(
    masks: Int[Tensor, "b h w"], window: Float[Tensor, "b 4"], flip: Bool[Tensor, " b"], size: tuple[int, int]
) -> Int[Tensor, "b s t"]:
    """The class at the centre of each pixel of the window; -1 outside the mask."""
    b = len(masks)
    places = []
    for axis, n in enumerate(size):
        place = torch.arange(n, device=masks.device) + 0.5
        places.append((window[:, axis, None] + place * (window[:, axis + 2, None] / n)).floor().long())
    rows, columns = places
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < masks.shape[1]))[:, :, None] & ((columns >= 0) & (columns < masks.shape[2]))[
        :, None
    ]
    rows, columns = rows.clamp(0, masks.shape[1] - 1), columns.clamp(0, masks.shape[2] - 1)
    found = masks[torch.arange(b, device=masks.device)[:, None, None], rows[:, :, None], columns[:, None]]
    return torch.where(inside, found, -1)
