"""Views of clouds `[b c n]`, or `Ragged` where they differ in size; the first three channels are x, y and z."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.parts.ragged import ragged_of
from headwater.parts.views.compose import check_range, check_within


@dataclass(frozen=True)
class Move:
    """Each cloud turned about its z axis, or any way, scaled by U(scale) and, along each axis, by U(stretch), with noise
    of `jitter` times its own extent on every point."""

    turn: Literal["none", "z", "any"] = "z"
    scale: tuple[float, float] = (0.8, 1.25)
    stretch: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale)
        check_range(self, "stretch", self.stretch)

    def __call__(self, x: Input, rng: Rng) -> Input:
        cloud = ragged_of(x)
        place, more = cloud.values[:, :3], cloud.values[:, 3:]
        b, _, n = place.shape
        grow = rng.uniform(*self.scale, b, 1) * rng.uniform(*self.stretch, b, 3)
        turned = (turns(b, self.turn, rng) * grow[:, None]) @ place
        size = turned.flatten(1).abs().amax(1)[:, None, None]
        turned = turned + self.jitter * size * rng.randn(b, 3, n)
        made = torch.cat([turned, more], 1)
        return made if isinstance(x, Tensor) else Ragged(made, cloud.extent)


@dataclass(frozen=True)
class Part:
    """The share U(keep) of each cloud's points nearest to a random one of them, or, unless `near`, any of them."""

    keep: tuple[float, float] = (0.6, 1.0)
    near: bool = True

    def __post_init__(self) -> None:
        check_range(self, "keep", self.keep, high=1.0)
        check_within(self, "keep", self.keep[0], low=1e-3)

    def __call__(self, x: Input, rng: Rng) -> Ragged:
        cloud = ragged_of(x)
        values, extent = cloud.values, cloud.extent
        b, _, n = values.shape
        count = (rng.uniform(*self.keep, b, 1) * extent).round().long().clamp(min=1)
        real = torch.arange(n, device=values.device) < extent
        score = rng.rand(b, n)
        if self.near:
            start = (rng.rand(b, 1) * extent).long()
            first = values[:, :3].gather(2, start[:, None].expand(-1, 3, -1))
            score = (values[:, :3] - first).square().sum(1)
        order = score.masked_fill(~real, torch.inf).argsort(1)
        made = values.gather(2, order[:, None].expand_as(values))
        at = torch.arange(n, device=values.device)
        return Ragged(made * (at < count)[:, None], count)


def turns(b: int, kind: str, rng: Rng) -> Float[Tensor, "b 3 3"]:
    """Random rotations: about z by any angle, or uniform over all (Shoemake, 1992)."""
    if kind == "any":
        q = rng.randn(b, 4)
        w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        return torch.stack([torch.stack(row, 1) for row in rows], 1)
    angle = 2 * torch.pi * rng.rand(b) * (kind == "z")
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
