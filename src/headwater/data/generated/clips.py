"""Clips of one moving shape: moving-shapes, 1,200 grey clips [1 8 32 32]; the class is the way it moves.

Shape, size, place, speed and brightness vary independently of the motion: no single frame tells the class.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.generated.scenes import distance
from headwater.data.labels import Labels

CLIPS, FRAMES, SIDE = 1200, 8, 32
SHAPES = ("circle", "square", "diamond")
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


def clips(n: int) -> tuple[UInt8[Tensor, "n 1 8 32 32"], np.ndarray]:
    """n clips and the motion of each."""
    out = np.empty((n, 1, FRAMES, SIDE, SIDE), np.uint8)
    kinds = np.empty(n, np.int64)
    grid, time = np.arange(SIDE) + 0.5, np.linspace(0, 1, FRAMES)
    for i in range(n):
        draw = np.random.default_rng((3, i))
        kinds[i], shape = draw.integers(len(MOTIONS)), SHAPES[draw.integers(len(SHAPES))]
        radius, (x, y) = draw.uniform(4, 6), draw.uniform(14, SIDE - 14, 2)
        dx, dy, size, light = path(MOTIONS[kinds[i]], time, draw)
        r = (radius * size)[:, None, None]
        u, v = (grid[None, None, :] - (x + dx)[:, None, None]) / r, (grid[None, :, None] - (y + dy)[:, None, None]) / r
        cover = np.clip(0.5 - distance(shape, u, v) * r, 0, 1) * light[:, None, None]
        picture = 60 + draw.uniform(110, 160) * cover + draw.normal(0, 8, (FRAMES, SIDE, SIDE))
        out[i, 0] = np.clip(picture, 0, 255).round()
    return torch.from_numpy(out), kinds


def moving_shapes(name: str) -> Memory:
    values, kinds = clips(CLIPS)
    return Memory(name, {"video": values}, Labels(kinds, MOTIONS))


SETS = {"moving-shapes": moving_shapes}
