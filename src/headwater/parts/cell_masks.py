"""Masks of small cells that take turns: which tokens a decoder leaves out (VideoMAE V2)."""

from dataclasses import dataclass

import torch

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask
from headwater.parts.masks import Grid, Valid, hide

CELL = 2  # places along each side
PLACES = CELL**2


@dataclass(frozen=True)
class RunningCellMask:
    """Leave out `ratio` of the four places of every cell of 2 x 2, the next ones at each point of the first axis, time.

    All cells of a sample do alike, from a phase drawn for each; after four points of time every place was left out
    equally often. The ratio is a number of quarters.
    """

    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.ratio * PLACES not in range(1, PLACES):
            raise RequestError(f"RunningCellMask.ratio is 0.25, 0.5 or 0.75; got {self.ratio}.")

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        if len(grid) != 3 or any(g % CELL for g in grid[1:]):
            raise RequestError(
                f"RunningCellMask needs a grid of (time, rows, columns), rows and columns even; got {grid}."
            )
        phase = rng.randint(PLACES, b, 1, 1, 1)
        time, row, column = (torch.arange(g, device=phase.device) for g in grid)
        place = CELL * (row[:, None] % CELL) + column % CELL
        turn = (phase + time[:, None, None] + place) % PLACES
        left_out = (turn < self.ratio * PLACES).flatten(1).float()
        order = torch.linspace(0, 0.5, left_out.shape[1], device=phase.device)  # both halves in the order of the grid
        return hide((left_out + order) / 2, round(self.ratio * left_out.shape[1]), valid)
