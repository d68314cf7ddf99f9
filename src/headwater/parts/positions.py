"""Where a token stands: fixed sines, learned tables, rotations and biases inside attention."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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


def sequence(n: int, dim: int, device: torch.device) -> Float[Tensor, "n d"]:
    """Sines and cosines of the number of each token, in turn: the layout of VideoMAE, whatever the axes behind them."""
    number = torch.arange(n, device=device, dtype=torch.float32)[:, None]
    return sincos(number, dim).unflatten(1, (2, -1)).transpose(1, 2).flatten(1)


def centred(place: Float[Tensor, "b n r"], valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n r"]:
    """The middle of each patch as an angle, from -2 pi to 2 pi across the sample's own grid, so that a rotation means the
    same at every size (DINOv3, 2025)."""
    known = place.float() if valid is None else place.float() * valid[..., None]
    return 2 * math.pi * ((2 * place.float() + 1) / (known.amax(1, keepdim=True) + 1) - 1)


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


class RelativeBias(nn.Module):
    """A learned bias of attention for each head and each difference of places on a grid (BEiT; Bao et al., 2021).

    The table ends with three rows more: from a prefix token to one of the grid, from one of the grid to a prefix token,
    and among prefix tokens. At other sizes it is read as `LearnedPositions` is.
    """

    def __init__(self, grid: tuple[int, ...], heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros(math.prod(_spans(grid)) + 3, heads))

    def forward(
        self, place: Float[Tensor, "b n r"], prefix: int, grid: tuple[int, ...], stretch: bool = True
    ) -> Float[Tensor, "b h m m"]:
        """The bias from each token (rows) to each other, the `prefix` ones first. `grid` is what the places lie on."""
        table, extra = self.table[:-3], self.table[-3:]
        if grid != self.grid and stretch:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
            old = table.T.unflatten(1, _spans(self.grid))[None]
            table = F.interpolate(old, size=_spans(grid), mode=mode, align_corners=False)[0].flatten(1).T
        elif any(g > s for g, s in zip(grid, self.grid, strict=True)):
            raise RequestError(f"The encoder has biases for at most {self.grid} tokens; the input has {grid}.")
        sides = grid if stretch else self.grid
        apart = place.long()[:, :, None] - place.long()[:, None]
        index = torch.zeros_like(apart[..., 0])
        for axis, (side, span) in enumerate(zip(sides, _spans(sides), strict=True)):
            index = index * span + apart[..., axis] + side - 1
        among = index.new_full((len(index), prefix, prefix), len(table) + 2)
        above = torch.cat([among, index.new_full((len(index), prefix, index.shape[2]), len(table))], 2)
        index = torch.cat([above, F.pad(index, (prefix, 0), value=len(table) + 1)], 1)
        return torch.cat([table, extra])[index].permute(0, 3, 1, 2)


def _spans(grid: tuple[int, ...]) -> tuple[int, ...]:
    """How many differences there are along each axis."""
    return tuple(2 * g - 1 for g in grid)


def rotation(
    place: Float[Tensor, "b n r"], head_dim: int, base: float = 100.0
) -> tuple[Float[Tensor, "b 1 n e"], Float[Tensor, "b 1 n e"]]:
    """Cosines and sines for `rotate`: the head's width is shared equally by the axes (axial RoPE; Su et al., 2021). `base`
    suits the tens of places of a picture's side; long sequences take 10,000."""
    per = head_dim // (2 * place.shape[-1])
    speed = base ** (-torch.arange(per, device=place.device, dtype=place.dtype) / per)
    angle = (place[..., None] * speed).flatten(-2)
    angle = F.pad(angle, (0, head_dim // 2 - angle.shape[-1]))  # what is left over does not turn
    return angle.cos()[:, None], angle.sin()[:, None]


def rotate(
    x: Float[Tensor, "b h n d"], cos: Float[Tensor, "b 1 n e"], sin: Float[Tensor, "b 1 n e"]
) -> Float[Tensor, "b h n d"]:
    """Turn each pair (x[i], x[i + d/2]) by its angle: attention then sees differences of places only."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
