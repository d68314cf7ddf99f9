"""Masks from filtered noise (ColorMAE; Hinojosa et al., 2024): how coarse the hidden regions are is chosen by a colour."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask
from headwater.parts.masks import Grid, RandomMask, Valid, hide, n_hidden

COLOURS = ("red", "green", "blue", "purple")
REACH = 3.0  # standard deviations after which a blur is cut off


@dataclass(frozen=True)
class NoiseMask:
    """Hide the places where Gaussian noise, blurred in one way or another, is lowest.

    red     the wider blur of white noise: large regions
    green   the narrower blur less the wider: regions of one size, the paper's best
    blue    white noise less the narrower blur: hidden places keep apart from each other
    purple  white noise less green

    `blur` holds the standard deviations of both, in places of the grid. Noise is filtered along the last two axes (along
    the one there is, in series); along axes before them, such as groups of bands, it is drawn anew. The noise reaches
    beyond the grid, so that its edges are like its middle. The paper crops a stock of filtered noise instead.
    """

    ratio: float
    colour: str = "green"
    blur: tuple[float, float] = (0.7, 1.6)

    def __post_init__(self) -> None:
        RandomMask(self.ratio)  # which says so where the ratio is none
        if self.colour not in COLOURS:
            raise RequestError(f"NoiseMask.colour is one of {', '.join(COLOURS)}; got {self.colour!r}.")
        if not 0 < self.blur[0] < self.blur[1]:
            raise RequestError(f"NoiseMask.blur is (narrower, wider), both above 0; got {self.blur}.")

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        score = -self.noise(b, grid, rng).flatten(1)
        return hide(score / score.abs().amax(), n_hidden("NoiseMask", self.ratio, math.prod(grid)), valid)

    def noise(self, b: int, grid: Grid, rng: Rng) -> Float[Tensor, "b ..."]:
        """The filtered noise [b, *grid]: what is low is hidden."""
        flat = len(grid) - min(2, len(grid))  # axes that are not filtered
        margin = math.ceil(REACH * self.blur[1])
        white = rng.randn(b, *grid[:flat], *[g + 2 * margin for g in grid[flat:]])
        axes = range(1 + flat, 1 + len(grid))
        narrow, wide = (_blurred(white, axes, sigma, margin) for sigma in self.blur)
        for axis in axes:
            white = white.narrow(axis, margin, white.shape[axis] - 2 * margin)
        filtered: Tensor = {
            "red": wide,
            "green": narrow - wide,
            "blue": white - narrow,
            "purple": white - (narrow - wide),
        }[self.colour]
        return filtered


def _blurred(x: Tensor, axes: range, sigma: float, margin: int) -> Tensor:
    """Blurred along these axes, each shorter by the margin at both ends."""
    offset = torch.arange(-margin, margin + 1, device=x.device)
    weight = (-0.5 * (offset / sigma) ** 2).exp()
    weight = weight / weight.sum()
    for axis in axes:
        x = (x.unfold(axis, len(weight), 1) * weight).sum(-1)
    return x
