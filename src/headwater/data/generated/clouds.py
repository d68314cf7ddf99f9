"""Points on surfaces: surfaces, 1,200 clouds [3 256]; the class is the surface.

Each is turned any way, stretched along its own axes and noisy, so that neither its outline nor its size tells the class.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.labels import Labels

CLOUDS, POINTS = 1200, 256
SURFACES = ("sphere", "cube", "torus", "cylinder", "cone", "helix", "cross of planes")


def surface(kind: str, draw: np.random.Generator) -> np.ndarray:
    """Points [256 3] spread over a surface of about unit size."""
    u, v = draw.uniform(0, 2 * np.pi, POINTS), draw.uniform(-1, 1, POINTS)
    if kind == "sphere":
        r = np.sqrt(1 - v**2)
        return np.stack([r * np.cos(u), r * np.sin(u), v], 1)
    if kind == "cube":
        p = draw.uniform(-0.8, 0.8, (POINTS, 3))
        p[np.arange(POINTS), draw.integers(3, size=POINTS)] = 0.8 * draw.choice([-1.0, 1.0], POINTS)
        return p
    if kind == "torus":
        w = draw.uniform(0, 2 * np.pi, POINTS)
        r = 0.75 + 0.28 * np.cos(w)
        return np.stack([r * np.cos(u), r * np.sin(u), 0.28 * np.sin(w)], 1)
    if kind == "cylinder":
        return np.stack([0.6 * np.cos(u), 0.6 * np.sin(u), v], 1)
    if kind == "cone":
        r = np.sqrt(draw.uniform(0, 1, POINTS))
        return np.stack([0.9 * r * np.cos(u), 0.9 * r * np.sin(u), 1 - 2 * r], 1)
    if kind == "helix":
        w = draw.uniform(0, 4 * np.pi, POINTS)
        return np.stack([0.7 * np.cos(w), 0.7 * np.sin(w), w / (2 * np.pi) - 1], 1)
    p = draw.uniform(-0.9, 0.9, (POINTS, 3))
    p[np.arange(POINTS), draw.integers(2, size=POINTS)] = 0
    return p


def clouds(n: int) -> tuple[Float32[Tensor, "n 3 256"], np.ndarray]:
    """n clouds and the surface of each."""
    out = np.empty((n, 3, POINTS), np.float32)
    kinds = np.empty(n, np.int64)
    for i in range(n):
        draw = np.random.default_rng((7, i))
        kinds[i] = draw.integers(len(SURFACES))
        turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
        points = surface(SURFACES[kinds[i]], draw) * draw.uniform(0.7, 1.3, 3)
        out[i] = (points @ turn + draw.normal(0, 0.03, (POINTS, 3))).T * draw.uniform(0.5, 2)
    return torch.from_numpy(out), kinds


def surfaces(name: str) -> Memory:
    values, kinds = clouds(CLOUDS)
    return Memory(name, {"points": values}, Labels(kinds, SURFACES))


SETS = {"surfaces": surfaces}
