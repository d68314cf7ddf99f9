"""A part under inspection: striped cloth with a disc on the left and a square on the right, and what can be wrong with it.

good-parts       400 good ones of 64 pixels, in grey: what a detector of anomalies learns from
inspected-parts  240 to test on: 80 good ones and 40 each with a spot, a broken stripe (local: a look at a few pixels
                 tells), the two swapped, or one missing (logical: every patch by itself is in order); masks of what is wrong
"""

import numpy as np
import torch

from headwater.data.annotated import Annotated
from headwater.data.array import Memory
from headwater.data.labels import Labels
from headwater.data.segmentation import MaskStack

SIDE = 64
GOOD = 400
KINDS = ("good", "spot", "broken stripe", "swapped", "missing")
COUNTS = (80, 40, 40, 40, 40)  # of each kind
RADIUS = 7  # of the disc, and half the side of the square


def part(i: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Part i of its kind: picture uint8 [1 h w], and the mask uint8 [h w] of what is wrong."""
    draw = np.random.default_rng((20, i, KINDS.index(kind)))
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    period, phase = 8.0, draw.uniform(0, 8)
    stripes = np.clip(2.5 * np.sin(2 * np.pi * (y + phase) / period), -1, 1)
    mask = np.zeros((SIDE, SIDE), bool)
    if kind == "broken stripe":
        row = phase_row(draw, phase, period)
        left = draw.uniform(4, SIDE - 14)
        gone = (np.abs(y - row) < period / 4) & (x > left) & (x < left + 10)
        stripes = np.where(gone, -1.0, stripes)
        mask |= gone
    ground = 105 + draw.uniform(-10, 10) + 25 * stripes
    places = [(SIDE * at + draw.uniform(-2, 2), SIDE * 0.5 + draw.uniform(-6, 6)) for at in (0.27, 0.73)]
    shapes = ["square", "disc"] if kind == "swapped" else ["disc", "square"]
    lost = int(draw.integers(2)) if kind == "missing" else -1
    for k, (shape, (cx, cy)) in enumerate(zip(shapes, places, strict=True)):
        away = np.hypot(x - cx, y - cy) if shape == "disc" else np.maximum(np.abs(x - cx), np.abs(y - cy))
        if kind in ("swapped", "missing") and (kind == "swapped" or k == lost):
            mask |= away < RADIUS
        if k != lost:
            ground += np.clip(RADIUS + 0.5 - away, 0, 1) * (215 - ground)
    if kind == "spot":
        cx, cy, radius = *draw.uniform(5, SIDE - 5, 2), draw.uniform(2, 3.5)
        away = np.hypot(x - cx, y - cy)
        dark = draw.random() < 0.5
        ground += np.clip(radius + 0.5 - away, 0, 1) * ((20 if dark else 250) - ground)
        mask |= away < radius
    return np.clip(ground + draw.normal(0, 4, ground.shape), 0, 255).round().astype(np.uint8)[None], mask.astype(
        np.uint8
    )


def phase_row(draw: np.random.Generator, phase: float, period: float) -> float:
    """The middle of some bright stripe that lies inside the picture."""
    rows = np.arange(-1, SIDE / period + 1) * period + period / 4 - phase
    inside = rows[(rows > 3) & (rows < SIDE - 3)]
    return float(inside[draw.integers(len(inside))])


def good_parts(name: str) -> Memory:
    pictures = np.stack([part(i, "good")[0] for i in range(GOOD)])
    return Memory(name, {"image": torch.from_numpy(pictures)}, Labels(np.zeros(GOOD, np.int64), KINDS[:1]))


def inspected_parts(name: str) -> Annotated:
    made = [part(GOOD + i, kind) for kind, count in zip(KINDS, COUNTS, strict=True) for i in range(count)]
    pictures, masks = (np.stack(each) for each in zip(*made, strict=True))
    labels = Labels(np.repeat(np.arange(len(KINDS)), COUNTS).astype(np.int64), KINDS)
    memory = Memory(name, {"image": torch.from_numpy(pictures)}, labels)
    return Annotated(memory, masks=MaskStack(torch.from_numpy(masks), ("sound", "defect")))


SETS = {"good-parts": good_parts, "inspected-parts": inspected_parts}
