"""Resampling rasters: a box of each picture to one size, and pictures along a field of positions."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Input, Ragged
from headwater.parts.views.compose import Touch, exact, floats, touch_

Filter = Literal["bilinear", "bicubic"]
SMALL = 48 * 48  # pixels up to which a CPU resizes faster by one batched product than picture by picture


def extents(x: Input) -> tuple[Tensor, Int[Tensor, "b 2"]]:
    """The pixels `[b c h w]`, and the (height, width) of each picture within them."""
    pixels = x if isinstance(x, Tensor) else x.values
    if pixels.ndim != 4:
        raise RequestError(f"A view of pictures takes [b c h w]; got a tensor of shape {tuple(pixels.shape)}.")
    if isinstance(x, Ragged):
        return pixels, x.extent
    return pixels, torch.tensor(pixels.shape[2:], device=pixels.device).expand(len(pixels), 2)


def resize_boxes(
    x: Tensor,
    box: Int[Tensor, "b 4"],
    flip: Bool[Tensor, " b"],
    size: tuple[int, int],
    kind: Filter = "bilinear",
    draw: Callable[[Tensor], list[Touch]] = lambda made: [],
) -> Float[Tensor, "b c s t"]:
    """The box (top, left, height, width) of each picture, in pixels, as `size`, antialiased; mirrored where `flip`.

    Reads nothing outside the box. On a CPU each box is sliced and resized by itself, bytes as bytes (a third of the
    time of floats, and the result is rounded to a byte, as in Pillow); on a GPU, and for small pictures, all boxes at
    once by two batched matrix products. `draw` says of tensors of the result's shape what is done to it.
    """
    if x.device.type != "cpu" or x.shape[2] * x.shape[3] <= SMALL:
        made = _by_products(x, box, flip, size, kind)
        if touches := draw(made):
            touch_(made, touches)
        return made
    out = torch.empty(len(x), x.shape[1], *size)
    boxes, mirrored, top = box.tolist(), flip.tolist(), 255 if x.dtype == torch.uint8 else 1

    def fill(i: int) -> None:
        up, left, h, w = boxes[i]
        part = x[i : i + 1, :, up : up + h, left : left + w]
        if part.dtype == torch.uint8:  # the channels of a pixel side by side: the fast way through the resize
            part = part.contiguous(memory_format=torch.channels_last)
        if (h, w) != size:
            part = F.interpolate(part, size, mode=kind, antialias=True)
        torch.div(part[0].flip(-1) if mirrored[i] else part[0], top, out=out[i])
        if kind == "bicubic":
            out[i].clamp_(0, 1)

    touch_(out, draw(out), fill)
    return out


def _by_products(
    x: Tensor, box: Int[Tensor, "b 4"], flip: Bool[Tensor, " b"], size: tuple[int, int], kind: Filter
) -> Float[Tensor, "b c s t"]:
    with exact(x):
        down = resampling(box[:, 0], box[:, 2], x.shape[2], size[0], kind)
        across = resampling(box[:, 1], box[:, 3], x.shape[3], size[1], kind)
        across = torch.where(flip[:, None, None], across.flip(1), across)
        out = down[:, None] @ floats(x) @ across.mT[:, None]
    return out.clamp_(0, 1) if kind == "bicubic" else out


def resampling(
    start: Int[Tensor, " b"], length: Int[Tensor, " b"], n: int, size: int, kind: Filter
) -> Float[Tensor, "b s n"]:
    """Row s: how much each of n pixels gives to pixel s of `length` pixels from `start` on, resampled to `size`."""
    ratio = (length / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * ratio
    pixel = torch.arange(n, device=start.device)
    distance = ((pixel + 0.5 - centre) / ratio.clamp(min=1)).abs()
    if kind == "bilinear":
        weight = (1 - distance).clamp(min=0)
    else:  # Keys (1981) with a = -1/2, the antialiased bicubic of Pillow and torch
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inside = (pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None])
    weight = weight * inside
    return weight / weight.sum(-1, keepdim=True)


def displace(
    x: Float[Tensor, "b c h w"], place: Float[Tensor, "b h w 2"], padding: Literal["zeros", "border", "reflection"]
) -> Float[Tensor, "b c h w"]:
    """Picture values at `place`, (x, y) in pixels from the centre of the picture, bilinear."""
    half = torch.tensor([x.shape[3] / 2, x.shape[2] / 2], device=x.device)
    return F.grid_sample(x, place / half, mode="bilinear", padding_mode=padding, align_corners=False)


def centred(h: int, w: int, device: torch.device) -> Float[Tensor, "h w 2"]:
    """The (x, y) of each pixel of a picture, in pixels from its centre."""
    y = torch.arange(h, device=device, dtype=torch.float32) + 0.5 - h / 2
    x = torch.arange(w, device=device, dtype=torch.float32) + 0.5 - w / 2
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
