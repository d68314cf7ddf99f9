"""Small generated sets whose answers are known: scenes of coloured shapes, series of waves, captions for the scenes.

Item i is drawn from a generator seeded by (set, i): it never depends on how many items are drawn.
"""

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = {
    "red": (220, 50, 40),
    "green": (50, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 205, 50),
    "purple": (150, 70, 190),
    "white": (240, 240, 240),
}
CAPTIONS = ("a {colour} {shape}", "picture of a {shape} that is {colour}", "there is one {colour} {shape} here")
WAVES = ("sine", "square", "sawtooth", "chirp", "burst", "beat")
SIDE = 32
LENGTH = 128


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far (u, v) lies outside the shape of half-width 1, negative inside (v points down)."""
    a, b = np.abs(u), np.abs(v)
    if shape == "circle":
        return np.hypot(u, v) - 1
    if shape == "square":
        return np.maximum(a, b) - 0.85
    if shape == "triangle":
        return np.maximum(2 * a - v - 1, v - 0.85) / 1.6
    if shape == "diamond":
        return a + b - 1.15
    if shape == "cross":
        return np.minimum(np.maximum(a - 1, b - 0.33), np.maximum(a - 0.33, b - 1))
    return np.abs(np.hypot(u, v) - 0.75) - 0.25  # a ring


def scenes(n: int) -> tuple[UInt8[Tensor, "n 3 32 32"], np.ndarray, np.ndarray, np.ndarray]:
    """n scenes of one shape in one colour at a random place and size over a noisy grey ground: (images, shape, colour,
    caption template), the last three as indices. Shapes and colours are independent."""
    images = np.empty((n, 3, SIDE, SIDE), np.uint8)
    picks = np.empty((3, n), np.int64)
    grid = np.arange(SIDE) + 0.5
    palette = np.array(list(COLOURS.values()), np.float64)
    for i in range(n):
        draw = np.random.default_rng((1, i))
        shape, colour, template = (int(draw.integers(k)) for k in (len(SHAPES), len(COLOURS), len(CAPTIONS)))
        radius = draw.uniform(6, 11)
        x, y = draw.uniform(radius + 1, SIDE - radius - 1, 2)
        outside = distance(SHAPES[shape], (grid[None, :] - x) / radius, (grid[:, None] - y) / radius)
        cover = np.clip(0.5 - outside * radius, 0, 1)  # one pixel of soft edge
        ground = draw.uniform(40, 150) + draw.normal(0, 12, (3, SIDE, SIDE))
        ink = palette[colour][:, None, None] + draw.normal(0, 8, (3, SIDE, SIDE))
        images[i] = np.clip(ground + cover * (ink - ground), 0, 255).round()
        picks[:, i] = shape, colour, template
    return torch.from_numpy(images), picks[0], picks[1], picks[2]


def caption(shape: int, colour: int, template: int) -> str:
    return CAPTIONS[template].format(shape=SHAPES[shape], colour=list(COLOURS)[colour])


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
