"""Clouds of points: one token per group of neighbours, by a small PointNet (Point-BERT, 2021; Point-MAE, 2022)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Ragged, Tokens
from headwater.parts.grouping import along_a_curve, farthest, nearest
from headwater.parts.losses import chamfer
from headwater.parts.tokens.base import Tokenizer, inside, take


@dataclass(frozen=True, kw_only=True)
class PointsTokenizerConfig:
    """`groups` tokens, each of the `size` points nearest to its centre; the centres are spread by farthest-point sampling.

    A cloud is moved to the origin and scaled into the unit ball first. Of its `channels` the first three are x, y and z.
    """

    groups: int = 64
    size: int = 32
    channels: int = 3
    modality: str = "points"

    def build(self, dim: int) -> Tokenizer:
        return PointsTokenizer(self, dim)


class PointsTokenizer(Tokenizer):
    alike = False
    own_places = True

    def __init__(self, config: PointsTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank = config, 3
        self.patch_dim = 3 * config.size
        width = max(32, dim // 2)
        self.first = nn.Sequential(nn.Linear(config.channels, width), nn.GELU(), nn.Linear(width, width))
        self.second = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, dim))

    def grid(self, x: Input) -> tuple[int, ...]:
        """Groups stand in the order of a curve through space, so a run of them is a region."""
        return (self.config.groups,)

    def grouped(self, x: Input) -> tuple[Float[Tensor, "b g 3"], Float[Tensor, "b g s c"]]:
        """The centre of each group in the unit ball, and its points relative to that centre."""
        values = x if isinstance(x, Tensor) else x.values
        if isinstance(x, Graph) or values.ndim != 3 or values.shape[1] != self.config.channels:
            raise RequestError(
                f"{self.config.modality}: clouds are [b {self.config.channels} n], x y z first; got {tuple(values.shape)}."
            )
        valid = inside(values.shape[2:], x.extent) if isinstance(x, Ragged) else None
        needed = max(self.config.groups, self.config.size)
        if values.device.type == "cpu":
            fewest = int(x.extent.min()) if isinstance(x, Ragged) else values.shape[2]
            if fewest < needed:
                raise RequestError(
                    f"{self.config.modality}: a cloud of {fewest} points cannot make {self.config.groups} groups of "
                    f"{self.config.size}; it takes {needed}. Set fewer or smaller groups, or leave such clouds out."
                )
        cloud = values.transpose(1, 2).float()
        place, more = ball(cloud[..., :3], valid), cloud[..., 3:]
        centre = take(place, farthest(place, self.config.groups, valid))
        centre = take(centre, along_a_curve(centre))
        member = nearest(centre, place, self.config.size, valid)
        flat = member.flatten(1)
        local = take(place, flat).view(*member.shape, 3) - centre[:, :, None]
        return centre, torch.cat([local, take(more, flat).view(*member.shape, -1)], -1)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The points of each group, x y z after x y z, relative to its centre; nearest to the centre first."""
        return self.grouped(x)[1][..., :3].flatten(2)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b 3 m"]:
        """The points of all groups, each relative to its own centre."""
        return patches.view(len(patches), -1, 3).transpose(1, 2)

    def places(self, x: Input) -> Float[Tensor, "b n 3"]:
        return grid_of(self.grouped(x)[0])

    def distance(
        self, guess: Float[Tensor, "b k p"], target: Float[Tensor, "b k p"], power: int = 2
    ) -> Float[Tensor, "b k"]:
        """Chamfer's: the mean way (squared, with power 2) from each point to the nearest of the other set, both ways
        added; which point is guessed first does not matter (Fan et al., 2016)."""
        return chamfer(guess.unflatten(-1, (-1, 3)), target.unflatten(-1, (-1, 3)), power)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return None  # every cloud has all its groups

    def forward(self, x: Input) -> Tokens:
        centre, points = self.grouped(x)
        local = self.first(points.to(next(self.first.parameters()).dtype))
        whole = local.amax(2, keepdim=True).expand_as(local)
        tokens = self.second(torch.cat([whole, local], -1)).amax(2)
        return Tokens(tokens, None, grid_of(centre))


def grid_of(centre: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """The unit ball as a grid of sixteen steps, which is what sines of places tell apart."""
    return (centre + 1) * 8


def ball(place: Float[Tensor, "b n 3"], valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n 3"]:
    """Each cloud moved to the origin by its mean and scaled until its farthest point lies on the unit sphere."""
    weight = torch.ones_like(place[..., :1]) if valid is None else valid[..., None].to(place.dtype)
    moved = (place - (place * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)) * weight
    return moved / moved.norm(dim=-1).amax(1)[:, None, None].clamp(min=1e-9)
