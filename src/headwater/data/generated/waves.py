"""Series of six kinds of wave: waves, 1,200 series [2 128]; the class is the kind."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.labels import Labels

SERIES = 1200
WAVES = ("sine", "square", "sawtooth", "chirp", "burst", "beat")
LENGTH = 128


def waves(n: int) -> tuple[Float32[Tensor, "n 2 128"], np.ndarray]:
    """n series of one of six kinds of wave: (values, kind). Frequency, phase, strength and noise vary; the second
    channel is the first a quarter period later, weaker, with noise of its own."""
    values = np.empty((n, 2, LENGTH), np.float32)
    kinds = np.empty(n, np.int64)
    t = np.arange(LENGTH) / LENGTH
    for i in range(n):
        draw = np.random.default_rng((2, i))
        kind = int(draw.integers(len(WAVES)))
        cycles, start, centre = draw.uniform(3, 7), draw.uniform(), draw.uniform(0.3, 0.7)
        for channel, (strength, later) in enumerate(((1.0, 0.0), (0.6, 0.25))):
            phase = cycles * t + start + later
            clean = _wave(WAVES[kind], phase, t, cycles, start + later, centre)
            scale = strength * draw.uniform(0.7, 1.3)
            values[i, channel] = scale * clean + draw.normal(0, 0.25, LENGTH)
        kinds[i] = kind
    return torch.from_numpy(values), kinds


def _wave(kind: str, phase: np.ndarray, t: np.ndarray, cycles: float, start: float, centre: float) -> np.ndarray:
    sine = np.sin(2 * np.pi * phase)
    if kind == "square":
        return np.sign(sine)
    if kind == "sawtooth":
        return 2 * (phase % 1) - 1
    if kind == "chirp":
        return np.sin(2 * np.pi * (cycles * t * (0.4 + 1.2 * t) + start))
    if kind == "burst":
        return 1.5 * sine * np.exp(-(((t - centre) / 0.12) ** 2))
    if kind == "beat":
        return sine * np.cos(2 * np.pi * 1.5 * t)
    return sine


def wave_series(name: str) -> Memory:
    values, kinds = waves(SERIES)
    return Memory(name, {"series": values}, Labels(kinds, WAVES))


SETS = {"waves": wave_series}
