"""Scenes of several shapes over clutter, with a box around each shape and the class of every pixel.

shapes-boxes  1,200 scenes of 64 pixels with 1 to 5 shapes of six kinds and six colours; the class of a scene is how many
"""

import numpy as np
import torch

from headwater.data.annotated import Annotated
from headwater.data.array import Memory
from headwater.data.drawn import Drawn
from headwater.data.generated.scenes import COLOURS, SHAPES, distance
from headwater.data.labels import Labels
from headwater.data.segmentation import MaskStack

SCENES = 1200
SIDE = 64
COUNTS = ("one", "two", "three", "four", "five")  # shapes in a scene
TRIES = 30  # places looked at for each shape, so that none hides another
STROKES = (4, 12)  # of clutter


def clutter(draw: np.random.Generator, grid: np.ndarray) -> np.ndarray:
    """A ground of uneven light, strokes in the colours of the shapes and noise: [3 h w]."""
    x, y = grid[None, :], grid[:, None]
    tilt, turn = draw.uniform(0, 50), draw.uniform(0, 2 * np.pi)
    light = draw.uniform(60, 150) + tilt * (np.cos(turn) * x + np.sin(turn) * y) / SIDE
    ground = np.repeat(light[None], 3, 0)
    palette = np.array(list(COLOURS.values()), np.float64)
    for _ in range(int(draw.integers(*STROKES))):
        middle, turn, half = draw.uniform(0, SIDE, 2), draw.uniform(0, np.pi), draw.uniform(3, 12)
        along = np.cos(turn) * (x - middle[0]) + np.sin(turn) * (y - middle[1])
        across = -np.sin(turn) * (x - middle[0]) + np.cos(turn) * (y - middle[1])
        cover = np.clip(0.5 - np.maximum(np.abs(along) - half, np.abs(across) - 0.8), 0, 1)
        ground += cover * (palette[draw.integers(len(palette))][:, None, None] - ground)
    return ground + draw.normal(0, 10, ground.shape)


def scene(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scene i: (image uint8 [3 h w], boxes float32 [m 4], classes int64 [m], mask uint8 [h w]); in the mask 0 is the
    ground and k + 1 shape k. No two boxes overlap."""
    draw = np.random.default_rng((10, i))
    grid = np.arange(SIDE) + 0.5
    palette = np.array(list(COLOURS.values()), np.float64)
    image, mask = clutter(draw, grid), np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    kinds: list[int] = []
    for _ in range(int(draw.integers(1, len(COUNTS) + 1))):
        kind, radius = int(draw.integers(len(SHAPES))), draw.uniform(5, 14)
        ink = palette[draw.integers(len(palette))][:, None, None] + draw.normal(0, 10, image.shape)
        for _ in range(TRIES):
            x, y = draw.uniform(radius, SIDE - radius, 2)
            outside = distance(SHAPES[kind], (grid[None, :] - x) / radius, (grid[:, None] - y) / radius) * radius
            rows, columns = np.flatnonzero((outside <= 0).any(1)), np.flatnonzero((outside <= 0).any(0))
            box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            if all(box[0] >= o[2] or o[0] >= box[2] or box[1] >= o[3] or o[1] >= box[3] for o in boxes):
                image += np.clip(0.5 - outside, 0, 1) * (ink - image)
                mask[outside <= 0] = kind + 1
                boxes.append(box)
                kinds.append(kind)
                break
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return np.clip(image, 0, 255).round().astype(np.uint8), found, np.array(kinds, np.int64), mask


def shapes_boxes(name: str) -> Annotated:
    images, boxes, kinds, masks = zip(*map(scene, range(SCENES)), strict=True)
    drawn = Drawn(
        [str(i) for i in range(SCENES)],
        np.concatenate(boxes),
        np.concatenate(kinds),
        np.cumsum([0, *map(len, boxes)]),
        np.full((SCENES, 2), SIDE),
        SHAPES,
    )
    layers = MaskStack(torch.from_numpy(np.stack(masks)), ("ground", *SHAPES))
    labels = Labels(np.array([len(b) - 1 for b in boxes], np.int64), COUNTS)
    return Annotated(Memory(name, {"image": torch.from_numpy(np.stack(images))}, labels), drawn, layers)


SETS = {"shapes-boxes": shapes_boxes}
