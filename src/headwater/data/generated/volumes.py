"""Solid bodies in noise: blobs-3d, 1,000 volumes [1 16 16 16]; the class is the kind of body.

Place, size, turn, density and noise vary; the mean intensity tells nothing, since bodies are bright or dark by chance.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.labels import Labels

VOLUMES, SIDE = 1000, 16
BODIES = ("ball", "box", "shell", "rod", "disc", "pair of balls")


def depth(body: str, p: np.ndarray) -> np.ndarray:
    """How deep points [3 ...], in units of the body's size, lie inside it."""
    r = np.sqrt((p**2).sum(0))
    if body == "ball":
        return 0.9 - r
    if body == "box":
        return 0.72 - np.abs(p).max(0)
    if body == "shell":
        return 0.25 - np.abs(r - 0.85)
    if body == "rod":
        return np.minimum(0.42 - np.hypot(p[0], p[1]), 1.3 - np.abs(p[2]))
    if body == "disc":
        return np.minimum(1.1 - np.hypot(p[0], p[1]), 0.3 - np.abs(p[2]))
    apart = np.array([0.0, 0.0, 0.75]).reshape(3, *[1] * (p.ndim - 1))
    return 0.58 - np.minimum(np.sqrt(((p - apart) ** 2).sum(0)), np.sqrt(((p + apart) ** 2).sum(0)))


def volumes(n: int) -> tuple[Float32[Tensor, "n 1 16 16 16"], np.ndarray]:
    """n volumes and the body in each."""
    out = np.empty((n, 1, SIDE, SIDE, SIDE), np.float32)
    kinds = np.empty(n, np.int64)
    grid = np.stack(np.meshgrid(*[np.arange(SIDE) + 0.5] * 3, indexing="ij"))
    for i in range(n):
        draw = np.random.default_rng((4, i))
        kinds[i] = draw.integers(len(BODIES))
        size, centre = draw.uniform(4.0, 6.0), draw.uniform(6.5, SIDE - 6.5, 3)
        turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
        points = np.tensordot(turn, grid - centre[:, None, None, None], 1) / size
        cover = np.clip(0.5 + depth(BODIES[kinds[i]], points) * size, 0, 1)
        strength = draw.choice([-1.0, 1.0]) * draw.uniform(0.8, 1.4)
        out[i, 0] = draw.normal(0, 0.25) + strength * cover + draw.normal(0, 0.25, cover.shape)
    return torch.from_numpy(out), kinds


def blobs(name: str) -> Memory:
    values, kinds = volumes(VOLUMES)
    return Memory(name, {"volume": values}, Labels(kinds, BODIES))


SETS = {"blobs-3d": blobs}
