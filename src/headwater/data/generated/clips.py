"""Clips of one moving shape: moving-shapes, 1,200 clips [3 8 32 32]; the class is the way it moves.

Shape, colour, size, place and speed vary independently of the motion, and all motions begin alike: no single frame tells
the class.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.generated.scenes import COLOURS, SHAPES, distance
from headwater.data.labels import Labels

CLIPS, FRAMES, SIDE = 1200, 8, 32
MOTIONS = ("across", "up and down", "circle", "grow", "blink", "shake")


def path(
    motion: str, time: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the centre is (x, y, in pixels from the start), how large and how bright the shape is, at each time in [0, 1]."""
    still = np.zeros_like(time)
    sign, reach = draw.choice([-1.0, 1.0]), draw.uniform(5, 9)
    wave = np.sin(2 * np.pi * (time * draw.uniform(0.8, 1.2)))
    if motion == "across":
        return sign * reach * (2 * time - 1), still, still + 1, still + 1
    if motion == "up and down":
        return still, sign * reach * wave, still + 1, still + 1
    if motion == "circle":
        angle = 2 * np.pi * time + draw.uniform(0, 2 * np.pi)
        return 0.8 * reach * np.cos(angle), sign * 0.8 * reach * np.sin(angle), still + 1, still + 1
    if motion == "grow":
        return still, still, 1 + sign * 0.45 * (2 * time - 1), still + 1
    if motion == "blink":
        return still, still, still + 1, 0.5 + 0.5 * np.sign(np.cos(2 * np.pi * 2 * time + draw.uniform(0, 6.28)))
    return sign * 2.5 * (np.arange(len(time)) % 2 * 2 - 1), draw.normal(0, 1.5, len(time)), still + 1, still + 1


def clips(n: int) -> tuple[UInt8[Tensor, "n 3 8 32 32"], np.ndarray]:
    """n clips and the motion of each."""
    out = np.empty((n, 3, FRAMES, SIDE, SIDE), np.uint8)
    kinds = np.empty(n, np.int64)
    grid, palette = np.arange(SIDE) + 0.5, np.array(list(COLOURS.values()), np.float64)
    time = np.linspace(0, 1, FRAMES)
    for i in range(n):
        draw = np.random.default_rng((3, i))
        kinds[i], shape, colour = draw.integers(len(MOTIONS)), draw.integers(len(SHAPES)), draw.integers(len(COLOURS))
        radius, (x, y) = draw.uniform(4, 7), draw.uniform(12, SIDE - 12, 2)
        dx, dy, size, light = path(MOTIONS[kinds[i]], time, draw)
        r = (radius * size)[:, None, None]
        u, v = (grid[None, None, :] - (x + dx)[:, None, None]) / r, (grid[None, :, None] - (y + dy)[:, None, None]) / r
        cover = np.clip(0.5 - distance(SHAPES[shape], u, v) * r, 0, 1) * light[:, None, None]
        ground = (
            draw.uniform(40, 150) + draw.normal(0, 5, (3, 1, SIDE, SIDE)) + draw.normal(0, 3, (3, FRAMES, SIDE, SIDE))
        )
        out[i] = np.clip(ground + cover * (palette[colour][:, None, None, None] - ground), 0, 255).round()
    return torch.from_numpy(out), kinds


def moving_shapes(name: str) -> Memory:
    values, kinds = clips(CLIPS)
    return Memory(name, {"video": values}, Labels(kinds, MOTIONS))


SETS = {"moving-shapes": moving_shapes}
