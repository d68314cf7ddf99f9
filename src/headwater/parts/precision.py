"""How good detections are: COCO's average precision (Lin et al., 2014)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from headwater.parts.boxes import iou

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
RECALLS = np.linspace(0, 1, 101)

Found = tuple[Float[np.ndarray, "_ 4"], Float[np.ndarray, " _"], Int[np.ndarray, " _"]]  # boxes, scores, classes
Truth = tuple[Float[np.ndarray, "_ 4"], Int[np.ndarray, " _"]]  # boxes, classes


def average_precision(
    found: Sequence[Found], truth: Sequence[Truth], thresholds: Sequence[float] = THRESHOLDS
) -> Float[np.ndarray, " t"]:
    """By overlap from which a box counts as found: the area under precision over recall, read at 101 recalls, mean over the
    classes that occur; NaN where none does. Boxes are (left, top, right, bottom).

    Within a picture, boxes by falling score each take the true box of their class that they overlap most and that none
    before took. Crowds and limits on area are left out; how many boxes of a picture count is the caller's choice.
    """
    kinds = sorted({int(k) for _, classes in truth for k in classes})
    each = [_of_class(kind, found, truth, thresholds) for kind in kinds]
    return np.mean(each, 0) if each else np.full(len(thresholds), np.nan)


def _of_class(
    kind: int, found: Sequence[Found], truth: Sequence[Truth], thresholds: Sequence[float]
) -> Float[np.ndarray, " t"]:
    scores, hits, wanted = [], [], 0
    for (boxes, score, classes), (true, kinds) in zip(found, truth, strict=True):
        mine, aims = classes == kind, true[kinds == kind]
        order = np.argsort(-score[mine], kind="stable")
        scores.append(score[mine][order])
        hits.append(np.stack([_taken(overlaps(boxes[mine][order], aims), t) for t in thresholds]))
        wanted += len(aims)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.cumsum(np.concatenate(hits, 1)[:, order], 1)
    recall, precision = right / wanted, right / np.arange(1, right.shape[1] + 1)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # at this recall or a higher one
    padded = np.concatenate([best, np.zeros((len(best), 1))], 1)
    return np.array([p[np.searchsorted(r, RECALLS)].mean() for p, r in zip(padded, recall, strict=True)])


def _taken(overlap: Float[np.ndarray, "n m"], least: float) -> np.ndarray:
    """Which of the boxes, best first, take a true one."""
    free, took = np.ones(overlap.shape[1], bool), np.zeros(len(overlap), bool)
    for row, over in enumerate(overlap):
        over = np.where(free & (over >= least), over, -1.0)
        if len(over) and over.max() >= 0:
            free[over.argmax()], took[row] = False, True
    return took


def overlaps(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every two; in double precision, so that an overlap of exactly a threshold counts."""
    one, other = (torch.from_numpy(v.astype(np.float64)) for v in (a, b))
    return iou(one[:, None], other).numpy()
