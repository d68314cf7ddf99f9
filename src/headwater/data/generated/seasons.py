"""Series to learn forecasting from: seasons, 6,000 of [1 120]; the class is the sampling rate.

Each is a sum of one to three seasonalities, a trend and noise that remembers itself, here and there with a shift of level, at
one of three rates: what was drawn is averaged over 1, 2 or 4 steps. All are brought to mean 0 and deviation 1, so that each
counts alike.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.labels import Labels

SERIES, LENGTH = 6000, 120
RATES = {"fine": 1, "medium": 2, "coarse": 4}  # steps that are averaged to one
PERIODS = (4.0, 48.0)  # in steps as they come out
HARMONICS = 3


def season(draw: np.random.Generator, time: np.ndarray, period: float) -> np.ndarray:
    """A wave of this period and deviation 1, of a shape of its own: sines, weaker the faster they are."""
    k = np.arange(1, HARMONICS + 1)[:, None]
    strength = draw.normal(size=(HARMONICS, 1)) / k ** draw.uniform(1, 3)
    strength[0] = 1.0
    wave = (strength * np.sin(2 * np.pi * (k * time / period + draw.uniform(size=(HARMONICS, 1))))).sum(0)
    return wave / np.sqrt((strength**2).sum() / 2)


def series(draw: np.random.Generator, rate: int, length: int = LENGTH) -> Float32[np.ndarray, " t"]:
    """One series at a rate."""
    from scipy.signal import lfilter

    n = length * rate
    time = np.arange(n) / rate
    out = np.zeros(n)
    for _ in range(int(draw.integers(1, 4))):
        period = np.exp(draw.uniform(*np.log(PERIODS)))
        out += draw.uniform(0.3, 1.0) * season(draw, time, period)
    memory = draw.choice([0.0, 0.5, 0.9, 0.98]) ** (1 / rate)
    noise = lfilter([1.0], [1.0, -memory], draw.normal(size=n))
    out += draw.choice([0.05, 0.2, 0.6]) * noise / (noise.std() + 1e-9)
    out += draw.normal() * draw.choice([0.0, 0.5, 2.0]) * (time / length - 0.5)
    if draw.random() < 0.1:
        out[int(draw.integers(n)) :] += draw.normal()
    made = out.reshape(length, rate).mean(1)
    return ((made - made.mean()) / made.std()).astype(np.float32)


def pool(n: int, length: int = LENGTH) -> tuple[Float32[Tensor, "n 1 t"], np.ndarray]:
    """n series and the rate of each."""
    out, rates = np.empty((n, 1, length), np.float32), np.empty(n, np.int64)
    for i in range(n):
        draw = np.random.default_rng((12, i))
        rates[i] = draw.integers(len(RATES))
        out[i, 0] = series(draw, list(RATES.values())[rates[i]], length)
    return torch.from_numpy(out), rates


def seasons(name: str) -> Memory:
    values, rates = pool(SERIES)
    return Memory(name, {"series": values}, Labels(rates, tuple(RATES)))


SETS = {"seasons": seasons}
