"""Electrocardiograms: heartbeats, 1,200 records of 12 leads, 4 s at 100 Hz, [12 400]; the class is what a doctor would say.

Each heart is a dipole that turns and grows with every wave of a beat (P, Q, R, S, T), seen from the directions of the leads.
Its axis, its pace, the strength of each wave, the wander of the baseline and noise vary independently of the class.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.labels import Labels

RECORDS, RATE, LENGTH = 1200, 100, 400
KINDS = ("normal", "ST elevation", "inverted T", "wide QRS", "premature beats", "irregular rhythm")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# by wave: seconds from the peak of R, width in seconds, strength in mV, direction (left, down, forward)
WAVES = {
    "P": (-0.16, 0.025, 0.12, (0.6, 0.7, 0.1)),
    "Q": (-0.03, 0.010, 0.15, (-0.4, -0.3, 0.7)),
    "R": (0.00, 0.012, 1.20, (0.8, 0.6, -0.2)),
    "S": (0.03, 0.014, 0.40, (-0.2, -0.3, -0.8)),
    "T": (0.26, 0.050, 0.35, (0.6, 0.5, 0.3)),
}
_I, _II = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.87, 0.0])
_CHEST = [(-0.4, 0.1, 0.9), (0.0, 0.1, 1.0), (0.4, 0.1, 0.9), (0.7, 0.15, 0.7), (0.9, 0.15, 0.3), (1.0, 0.15, -0.1)]
SEEN = np.array([_I, _II, _II - _I, -(_I + _II) / 2, _I - _II / 2, _II - _I / 2, *map(np.array, _CHEST)])
INJURIES = ((0.1, 0.1, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.1))  # anterior, inferior, lateral


def peaks(kind: str, draw: np.random.Generator, seconds: float) -> np.ndarray:
    """When each beat peaks, from before the record to after it."""
    beat = 60 / draw.uniform(55, 110)
    n = int(seconds / beat) + 4
    gaps = beat * (1 + draw.normal(0, 0.02, n))
    if kind == "irregular rhythm":
        gaps = beat * draw.uniform(0.6, 1.5, n)
    if kind == "premature beats":
        for at in draw.choice(np.arange(2, n - 3), 1 + (n > 8), replace=False):
            early = draw.uniform(0.25, 0.45) * beat
            gaps[at] -= early
            gaps[at + 1] += early
    return np.cumsum(gaps) - beat * draw.uniform(1, 2)


def record(kind: str, draw: np.random.Generator, length: int = LENGTH, rate: int = RATE) -> Float[np.ndarray, "12 t"]:
    """One record, in mV."""
    time = np.arange(length) / rate
    shift, width, strength = (np.array([wave[k] for wave in WAVES.values()]) for k in range(3))
    direction = np.array([wave[3] for wave in WAVES.values()])
    direction = direction @ (np.eye(3) + draw.normal(0, 0.2, (3, 3)))
    shift, width = shift * draw.uniform(0.9, 1.1), width * draw.uniform(0.85, 1.15, len(WAVES))
    strength = strength * np.exp(draw.normal(0, 0.2, len(WAVES)))
    if kind == "inverted T":
        strength[4] *= -draw.uniform(0.5, 1.0)
    if kind == "wide QRS":
        wider = draw.uniform(1.8, 2.6)
        width[1:4], shift[1:4] = width[1:4] * wider, shift[1:4] * wider
    if kind == "irregular rhythm":
        strength[0] = 0.0
    if kind == "ST elevation":
        shift, width = np.append(shift, 0.12), np.append(width, 0.06)
        strength = np.append(strength, draw.uniform(0.12, 0.3))
        direction = np.vstack([direction, INJURIES[draw.integers(3)]])
    at = peaks(kind, draw, length / rate)[:, None] + shift  # [beats waves]
    bumps = np.exp(-(((time - at[..., None]) / width[:, None]) ** 2) / 2).sum(0)
    clean = SEEN @ direction.T @ (strength[:, None] * bumps)
    slow = np.sin(2 * np.pi * (draw.uniform(0.15, 0.5, (2, 1)) * time + draw.uniform(size=(2, 1))))
    wander = draw.normal(0, draw.uniform(0, 0.15), (len(SEEN), 2)) @ slow
    return clean + wander + draw.normal(0, draw.uniform(0.02, 0.06), clean.shape)


def records(n: int) -> tuple[Float32[Tensor, "n 12 400"], np.ndarray]:
    """n records and the kind of each."""
    values, kinds = np.empty((n, len(LEADS), LENGTH), np.float32), np.empty(n, np.int64)
    for i in range(n):
        draw = np.random.default_rng((13, i))
        kinds[i] = draw.integers(len(KINDS))
        values[i] = record(KINDS[kinds[i]], draw)
    return torch.from_numpy(values), kinds


def heartbeats(name: str) -> Memory:
    values, kinds = records(RECORDS)
    return Memory(name, {"series": values}, Labels(kinds, KINDS))


SETS = {"heartbeats": heartbeats}
