"""Boxes on pictures: their formats, areas and overlaps, and the annotations of several pictures in one batch.

A box is (left, top, right, bottom) in pixels from the top left corner of the picture: its edges, so that a box around
one pixel is one pixel wide.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.types import Annotations

LEAST = 1e-9  # an area that is divided by is at least this


def from_corner(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """(left, top, width, height), as in COCO, to edges."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def from_centre(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """(centre x, centre y, width, height), as in DETR, to edges."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def to_centre(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Edges to (centre x, centre y, width, height)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def area(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Width times height; 0 for a box whose right edge lies left of its left one, or its bottom above its top."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def clip(boxes: Float[Tensor, "*b 4"], size: Int[Tensor, "*#b 2"]) -> Float[Tensor, "*b 4"]:
    """The part of each box within a picture of `size` (height, width); of zero area where there is none."""
    most = size.flip(-1).to(boxes.dtype)
    return boxes.clamp(min=0).minimum(torch.cat([most, most], -1))


def iou(a: Float[Tensor, "*#b 4"], b: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*b"]:
    """Intersection over union of boxes pair by pair, in [0, 1]; 0 for two boxes without area.

    Shapes broadcast: `iou(a[:, None], b)` of n and m boxes is [n m].
    """
    common, union = _overlap(a, b)
    return common / union.clamp(min=LEAST)


def giou(a: Float[Tensor, "*#b 4"], b: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*b"]:
    """Generalised intersection over union (Rezatofighi et al., 2019), in (-1, 1]: the overlap, less the share of the
    smallest box around both that belongs to neither. Broadcasts as `iou` does."""
    common, union = _overlap(a, b)
    around = area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1))
    return common / union.clamp(min=LEAST) - (around - union) / around.clamp(min=LEAST)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of the intersection and of the union."""
    shared = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1)
    common = area(shared)
    return common, area(a) + area(b) - common


def around(mask: Bool[Tensor, "*b h w"]) -> Float[Tensor, "*b 4"]:
    """The smallest box around the True pixels; zeros where there are none."""
    columns, rows = mask.any(-2), mask.any(-1)
    edges = []
    for line in (columns, rows):
        n = line.shape[-1]
        first = line.int().argmax(-1)
        last = n - line.flip(-1).int().argmax(-1)
        edges.append((first, torch.where(line.any(-1), last, 0)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], -1).float()


def none(masks: Int[Tensor, "b h w"] | None = None, b: int = 1) -> Annotations:
    """Annotations without boxes, of b pictures."""
    return Annotations(torch.zeros(b, 0, 4), torch.zeros(b, 0, dtype=torch.int64), masks)


def together(given: Sequence[Annotations | None]) -> Annotations | None:
    """The annotations of several pictures as one batch: places without a box get zeros and the class -1, pixels beyond
    a smaller picture the class -1. None where no picture has any."""
    if given[0] is None:
        return None
    marks = [m for m in given if m is not None]
    most = max(m.boxes.shape[1] for m in marks)
    boxes = torch.zeros(len(marks), most, 4)
    classes = torch.full((len(marks), most), -1)
    for i, m in enumerate(marks):
        boxes[i, : m.boxes.shape[1]] = m.boxes[0]
        classes[i, : m.boxes.shape[1]] = m.classes[0]
    drawn = [m.masks[0] for m in marks if m.masks is not None]
    if not drawn:
        return Annotations(boxes, classes)
    sides = (max(d.shape[0] for d in drawn), max(d.shape[1] for d in drawn))
    masks = torch.full((len(drawn), *sides), -1)
    for row, d in zip(masks, drawn, strict=True):
        row[: d.shape[0], : d.shape[1]] = d
    return Annotations(boxes, classes, masks)
