"""Boxes on pictures by a method that finds them, beside those that are marked."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.api.learned import Learned
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data.coco import document
from headwater.data.loader import Loader
from headwater.data.source import Source, spread
from headwater.parts.boxes import none
from headwater.parts.precision import average_precision
from headwater.parts.views import JointResize
from headwater.parts.views.raster import extents
from headwater.report.boxes import boxes_picture, outlined

KEEP = 30  # boxes per picture that are written
COUNTED = 100  # boxes per picture that count for average precision, as in COCO
SHOWN = 6  # pictures that are drawn
CLEAR = 0.5  # drawn are boxes of at least so much of the best score of the picture
DIGITS = 2  # of coordinates in pixels, and twice as many of scores
Rows = Float[np.ndarray, "_ 6"]


@dataclass(frozen=True)
class Boxes:
    """
    ids, sizes   of the n pictures that could be read; (height, width) in pixels
    classes      their names
    found        for each picture rows of score, class, left, top, right and bottom, in pixels, the best first
    marked       the same of what is marked on them, with a score of 1; None where nothing is. A class that the run never
                 saw has a number beyond `classes`
    strange      the names of those classes
    precision    average precision in [0, 1] ("ap": mean over overlaps from .5 to .95; "ap50"), of the best COUNTED boxes
    shown        some of the pictures, by number
    unreadable   pictures that could not be read, and why
    """

    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    classes: tuple[str, ...]
    found: tuple[Rows, ...]
    marked: tuple[Rows, ...] | None = None
    strange: tuple[str, ...] = ()
    precision: dict[str, float] | None = None
    shown: dict[int, Tensor] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """The JSON of COCO, with scores."""
        return json.dumps(document(self.ids, self.sizes, self.classes, self.found))

    def draw(self, path: Path) -> Path:
        """Some pictures with their best boxes, and beside them what is marked."""
        names, shown = (*self.classes, *self.strange), self.shown or {}
        columns = [("found", [outlined(x, _clear(self.found[i]), names) for i, x in shown.items()])]
        if self.marked is not None:
            columns.append(("marked", [outlined(x, self.marked[i], names) for i, x in shown.items()]))
        return boxes_picture(columns, path)


def _clear(rows: Rows) -> Rows:
    return rows[rows[:, 0] >= CLEAR * rows[:1, 0]] if len(rows) else rows


def detections(learned: Learned, source: Source, *, keep: int, batch_size: int, workers: int) -> Boxes:
    """The `keep` best boxes of each picture. Pictures are seen whole, squeezed to the size that the encoder takes."""
    facts = learned.preprocessing["image"]
    source = source.conform("image", facts.get("read", {}))
    classes = tuple(learned.provenance["classes"])
    kinds, strange = _numbers(classes, source)
    squeeze, device = JointResize(facts["size"][0]), next(learned.method.parameters()).device
    loader, drawn = Loader(source, batch_size, workers=workers), set(spread(len(source), SHOWN))
    ids, sizes, found, marked, counted = list[str](), list[tuple[int, int]](), list[Rows](), list[Rows](), list[Rows]()
    shown: dict[int, Tensor] = {}
    for chosen, batch in loader.ordered(range(len(source))):
        pixels, extent = extents(batch.x["image"])
        x, _ = squeeze(batch.x["image"], none(b=len(chosen)), Rng(0))
        with torch.inference_mode():
            said = learned.method.predict(Batch({"image": x.to(device)}), Step(Rng(0))).cpu()  # type: ignore[operator]
        for row, (i, (high, wide)) in enumerate(zip(chosen, extent.tolist(), strict=True)):
            if i in drawn:
                picture = pixels[row, :, :high, :wide]
                shown[len(ids)] = picture if picture.is_floating_point() else picture / 255
            rows = _within(said[row, : max(keep, COUNTED)].double().numpy(), high, wide)
            if kinds is not None and batch.annotations is not None:
                marked.append(_truth(batch.annotations.boxes[row], batch.annotations.classes[row], kinds))
                counted.append(rows[:COUNTED])
            ids.append(source.id(i))
            sizes.append((high, wide))
            found.append(rows[:keep])
    if not ids:
        raise RequestError(f"None of the {len(source)} pictures of {source.name} can be read.")
    return Boxes(
        tuple(ids),
        tuple(sizes),
        classes,
        tuple(found),
        tuple(marked) if kinds is not None else None,
        strange,
        _precision(counted, marked) if kinds is not None else None,
        shown,
        tuple(sorted(loader.bad.items())),
    )


def _numbers(classes: tuple[str, ...], source: Source) -> tuple[Int[np.ndarray, " k"] | None, tuple[str, ...]]:
    """For each class of the data its number in the run, by name, and the names that the run never saw. For a run that tells
    no classes apart every box is an object."""
    if "boxes" not in source.marked:
        return None, ()
    names = source.marked["boxes"]
    if classes == ("object",):
        return np.zeros(len(names), np.int64), ()
    strange = tuple(name for name in names if name not in classes)
    known = (*classes, *strange)
    return np.array([known.index(name) for name in names], np.int64), strange


def _within(said: Rows, high: int, wide: int) -> Rows:
    """In pixels, rounded; boxes of no size are left out."""
    rows = said.copy()
    rows[:, 0] = rows[:, 0].round(2 * DIGITS)
    rows[:, 2:] = (rows[:, 2:] * np.array([wide, high] * 2)).round(DIGITS)
    return rows[((rows[:, 4:] - rows[:, 2:4]) > 0).all(1)]


def _truth(boxes: Tensor, classes: Tensor, kinds: Int[np.ndarray, " k"]) -> Rows:
    real = classes >= 0
    kind = kinds[classes[real].numpy()].astype(np.float64)[:, None]
    return np.concatenate([np.ones_like(kind), kind, boxes[real].double().numpy()], 1)


def _precision(found: list[Rows], marked: list[Rows]) -> dict[str, float]:
    made = average_precision(
        [(rows[:, 2:], rows[:, 0], rows[:, 1].astype(np.int64)) for rows in found],
        [(rows[:, 2:], rows[:, 1].astype(np.int64)) for rows in marked],
    )
    return {"ap": float(made.mean()), "ap50": float(made[0])}
