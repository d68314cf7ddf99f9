"""Short sounds: tones, 1,200 sounds [1 4000] at 8 kHz; the class is the way a note sounds, not which note it is.

Pitch, loudness, start and noise vary independently of the class.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.audio import Sounds
from headwater.data.labels import Labels

SOUNDS, RATE, LENGTH = 1200, 8000, 4000
KINDS = ("pure", "plucked", "reed", "vibrato", "glide", "chord", "tremolo", "noise band")


def sound(kind: str, draw: np.random.Generator) -> np.ndarray:
    """One clean sound of loudness about 1."""
    time = np.arange(LENGTH) / RATE
    pitch, start = 2 ** draw.uniform(np.log2(180), np.log2(700)), draw.uniform(0, 0.12)
    after = np.clip(time - start, 0, None)
    envelope = (time >= start) * np.minimum(1, after / 0.02) * np.exp(-after * draw.uniform(0.5, 2))
    if kind == "vibrato":
        phase = pitch * time + draw.uniform(1.5, 3) * np.sin(2 * np.pi * draw.uniform(5, 8) * time) / 2
        return envelope * np.sin(2 * np.pi * phase)
    if kind == "glide":
        return envelope * np.sin(2 * np.pi * pitch * (time + draw.choice([-0.5, 0.9]) * time**2))
    if kind == "chord":
        ratios = (1, 5 / 4, 3 / 2)
        return envelope * sum(np.sin(2 * np.pi * (pitch * r * time + draw.uniform())) for r in ratios) / 1.7
    if kind == "noise band":
        spectrum = np.fft.rfft(draw.normal(size=LENGTH))
        away = (np.fft.rfftfreq(LENGTH, 1 / RATE) - pitch) / (0.25 * pitch)
        band = np.fft.irfft(spectrum * np.exp(-(away**2)), LENGTH)
        return envelope * band / band.std()
    harmonics = np.arange(1, 8)
    weight = {"plucked": 1 / harmonics, "reed": (harmonics % 2) / harmonics}.get(kind, 1.0 * (harmonics == 1))
    fading = np.exp(-after[None] * harmonics[:, None] * (6 if kind == "plucked" else 0))
    tone = (weight[:, None] * fading * np.sin(2 * np.pi * (pitch * harmonics[:, None] * time))).sum(0)
    if kind == "tremolo":
        tone = tone * (0.55 + 0.45 * np.sin(2 * np.pi * draw.uniform(6, 10) * time))
    return envelope * tone


def sounds(n: int) -> tuple[Float32[Tensor, "n 1 4000"], np.ndarray]:
    """n sounds and the kind of each."""
    out = np.empty((n, 1, LENGTH), np.float32)
    kinds = np.empty(n, np.int64)
    for i in range(n):
        draw = np.random.default_rng((5, i))
        kinds[i] = draw.integers(len(KINDS))
        clean = sound(KINDS[kinds[i]], draw)
        out[i, 0] = draw.uniform(0.1, 0.5) * (clean + draw.normal(0, draw.uniform(0.05, 0.25), LENGTH))
    return torch.from_numpy(out), kinds


def tones(name: str) -> Sounds:
    values, kinds = sounds(SOUNDS)
    return Sounds(Memory(name, {"audio": values}, Labels(kinds, KINDS)), RATE)


SETS = {"tones": tones}
