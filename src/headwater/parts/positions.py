"""Where a token stands: fixed sines, learned tables, rotations inside attention."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError


def sincos(place: Float[Tensor, "*b n r"], dim: int) -> Float[Tensor, "*b n d"]:
    """Sines and cosines of every coordinate, so any grid size works without new weights (Vaswani et al., 2017).

    The width is shared equally by the axes, the last axis first, sines before cosines: the layout of MAE's code.
    """
    per = dim // (2 * place.shape[-1])
    speed = 10_000.0 ** (-torch.arange(per, device=place.device, dtype=torch.float64) / per)
    parts = []
    for axis in reversed(range(place.shape[-1])):
        angle = place[..., axis, None].double() * speed
        parts += [angle.sin(), angle.cos()]
    out = torch.cat(parts, -1).to(place.dtype)
    return F.pad(out, (0, dim - out.shape[-1]))


class LearnedPositions(nn.Module):
    """A table of vectors for one grid (Dosovitskiy et al., 2020), read at other sizes by interpolation.

    Without `stretch` a smaller grid reads the table from its start, so that a position means the same in every text and
    a padded sample does not depend on the longest of its batch.
    """

    def __init__(self, grid: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros(1, math.prod(grid), dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: tuple[int, ...], stretch: bool = True, offset: int = 0) -> Float[Tensor, "1 n d"]:
        if grid == self.grid and not offset:
            return self.table
        table = self.table.transpose(1, 2).unflatten(2, self.grid)
        if not stretch:
            if any(offset + g > s for g, s in zip(grid, self.grid, strict=True)):
                most = tuple(s - offset for s in self.grid)
                raise RequestError(f"The encoder has positions for at most {most} tokens; the input has {grid}.")
            return table[(..., *[slice(offset, offset + g) for g in grid])].flatten(2).transpose(1, 2)
        mode = {1: "linear", 2: "bicubic", 3: "trilinear"}[len(grid)]
        return F.interpolate(table, size=grid, mode=mode, align_corners=False).flatten(2).transpose(1, 2)


def rotation(place: Float[Tensor, "b n r"], head_dim: int) -> tuple[Float[Tensor, "b 1 n e"], Float[Tensor, "b 1 n e"]]:
    """Cosines and sines for `rotate`: the head's width is shared equally by the axes (axial RoPE; Su et al., 2021)."""
    per = head_dim // (2 * place.shape[-1])
    speed = 100.0 ** (-torch.arange(per, device=place.device, dtype=place.dtype) / per)
    angle = (place[..., None] * speed).flatten(-2)
    angle = F.pad(angle, (0, head_dim // 2 - angle.shape[-1]))  # what is left over does not turn
    return angle.cos()[:, None], angle.sin()[:, None]


def rotate(
    x: Float[Tensor, "b h n d"], cos: Float[Tensor, "b 1 n e"], sin: Float[Tensor, "b 1 n e"]
) -> Float[Tensor, "b h n d"]:
    """Turn each pair (x[i], x[i + d/2]) by its angle: attention then sees differences of places only."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
