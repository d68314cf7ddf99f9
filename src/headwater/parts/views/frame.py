"""How other libraries bring a picture to the size that their encoder sees."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.parts.views.compose import check_within, floats
from headwater.parts.views.raster import Filter, extents


@dataclass(frozen=True)
class Frame:
    """The whole picture resized, antialiased, and then cut at the centre to `size` (height, width).

    stretch  both sides are resized to those of `size` over `part`; otherwise the picture keeps its shape and covers them
    part     the share of the resized picture's side that the cut keeps

    `CentreCrop` cuts first and is faster; this one rounds where `transformers` and timm do, so their encoders see
    what they saw when they learned.
    """

    size: tuple[int, int]
    stretch: bool = False
    part: float = 1.0
    kind: Filter = "bilinear"

    def __post_init__(self) -> None:
        check_within(self, "part", self.part, low=0.01)

    def __call__(self, x: Input, rng: Rng) -> Float[Tensor, "b c h w"]:
        pixels, extent = extents(x)
        shapes = [(int(h), int(w)) for h, w in extent.tolist()]
        if len({*shapes}) == 1:
            return self._framed(pixels[:, :, : shapes[0][0], : shapes[0][1]])
        return torch.cat([self._framed(pixels[i : i + 1, :, :h, :w]) for i, (h, w) in enumerate(shapes)])

    def _framed(self, x: Tensor) -> Float[Tensor, "b c h w"]:
        (h, w), (height, width) = self.size, self._resized(x.shape[2], x.shape[3])
        if (height, width) != tuple(x.shape[2:]):
            if x.device.type != "cpu":  # bytes are resized as bytes, rounding as Pillow does, on CPUs alone
                x = floats(x)
            x = F.interpolate(
                x.contiguous(memory_format=torch.channels_last), (height, width), mode=self.kind, antialias=True
            )
            x = x.clamp_(0, 1) if x.is_floating_point() and self.kind == "bicubic" else x
        top, left = (height - h) // 2, (width - w) // 2
        return floats(x[:, :, top : top + h, left : left + w]).contiguous()

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        h, w = (round(s / self.part) for s in self.size)
        if self.stretch:
            return h, w
        if h * width >= w * height:  # the rows decide: resized to h, the columns still cover w
            return h, max(w, int(h * width / height))
        return max(h, int(w * height / width)), w
