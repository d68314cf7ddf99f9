"""Scenes of one coloured shape each, captions for them, and rows of a table about them.

shapes            3,000 scenes of 32 pixels; the class is the shape
captioned-shapes  the same scenes with captions; the class is the pair, such as "red circle"
measured-shapes   the same scenes with rows of nine cells, one in ten missing; the class is the shape
"""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.captioned import Captioned
from headwater.data.labels import Labels
from headwater.data.pairs import Pairs
from headwater.data.rows import Rows

SCENES = 3000
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
SIDE = 32
AREAS = (3.14, 2.89, 1.71, 2.65, 2.2, 2.36)  # of each shape, for a half-width of 1
WORDS = {"colour": list(COLOURS), "edge": ["round", "straight"], "album": ["attic", "cellar", "drawer", "shelf"]}
LOST = 0.1


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


def scenes(n: int) -> tuple[UInt8[Tensor, "n 3 32 32"], np.ndarray, np.ndarray]:
    """n scenes of one shape in one colour at a random place and size over a noisy grey ground: images; shape, colour and
    caption template [3 n] as indices; and x, y and the half-width in pixels and the level of the ground [4 n]. Shapes and
    colours are independent."""
    images = np.empty((n, 3, SIDE, SIDE), np.uint8)
    picks, measures = np.empty((3, n), np.int64), np.empty((4, n))
    grid = np.arange(SIDE) + 0.5
    palette = np.array(list(COLOURS.values()), np.float64)
    for i in range(n):
        draw = np.random.default_rng((1, i))
        shape, colour, template = (int(draw.integers(k)) for k in (len(SHAPES), len(COLOURS), len(CAPTIONS)))
        radius = draw.uniform(6, 11)
        x, y = draw.uniform(radius + 1, SIDE - radius - 1, 2)
        outside = distance(SHAPES[shape], (grid[None, :] - x) / radius, (grid[:, None] - y) / radius)
        cover = np.clip(0.5 - outside * radius, 0, 1)  # one pixel of soft edge
        level = draw.uniform(40, 150)
        ground = level + draw.normal(0, 12, (3, SIDE, SIDE))
        ink = palette[colour][:, None, None] + draw.normal(0, 8, (3, SIDE, SIDE))
        images[i] = np.clip(ground + cover * (ink - ground), 0, 255).round()
        picks[:, i], measures[:, i] = (shape, colour, template), (x, y, radius, level)
    return torch.from_numpy(images), picks, measures


def caption(shape: int, colour: int, template: int) -> str:
    return CAPTIONS[template].format(shape=SHAPES[shape], colour=list(COLOURS)[colour])


def shapes(name: str) -> Memory:
    images, picks, _ = scenes(SCENES)
    return Memory(name, {"image": images}, Labels(picks[0], SHAPES))


def captioned_shapes(name: str) -> Captioned:
    images, picks, _ = scenes(SCENES)
    captions = [caption(*map(int, each)) for each in picks.T]
    pairs = tuple(f"{c} {s}" for s in SHAPES for c in COLOURS)
    note = f"The captions carry the labels: each names its scene's shape and colour in one of {len(CAPTIONS)} phrases."
    labels = Labels(picks[0] * len(COLOURS) + picks[1], pairs)
    return Captioned(Memory(name, {"image": images}), captions, labels=labels, notes=(note,))


def measured_shapes(name: str) -> Pairs:
    """Each row holds what somebody noted about the scene: words, of which the edge is wrong one time in ten and the album
    says nothing, and numbers with errors; which shape it is takes several of them, or a look."""
    images, (shape, colour, _), (x, y, radius, level) = scenes(SCENES)
    draw = np.random.default_rng(14)
    edge = np.where(draw.random(SCENES) < 0.9, ~np.isin(shape, (0, 5)), draw.integers(2, size=SCENES))
    area = np.array(AREAS)[shape] * radius**2 * draw.normal(1, 0.05, SCENES)
    numbers = (x + draw.normal(0, 1, SCENES), y + draw.normal(0, 1, SCENES), radius + draw.normal(0, 0.3, SCENES), area)
    weight = draw.normal(0, 1, SCENES)
    cells = np.stack([colour, edge, draw.integers(4, size=SCENES), *numbers, level, weight], 1).astype(np.float32)
    cells[draw.random(cells.shape) < LOST] = np.nan
    rows = Rows(name, torch.from_numpy(cells), [*WORDS, "x", "y", "radius", "area", "ground", "weight"], WORDS)
    at = np.arange(SCENES)
    labels = Labels(shape, SHAPES)
    return Pairs(name, {"image": Memory(name, {"image": images}), "table": rows}, {"image": at, "table": at}, labels)


SETS = {"shapes": shapes, "captioned-shapes": captioned_shapes, "measured-shapes": measured_shapes}
