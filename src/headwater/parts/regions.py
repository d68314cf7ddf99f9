"""How well a map of scores finds marked regions: every region counts alike, however small."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

LIMIT = 0.3  # of false positives, as is usual
STEPS = 5000  # thresholds, at most


def region_overlap(
    scores: Sequence[NDArray[np.floating]], masks: Sequence[NDArray[np.bool_]], limit: float = LIMIT
) -> float:
    """AUPRO (Bergmann et al., 2020): the share of each connected region (8 neighbours) whose pixels score at a threshold or
    above, mean over regions, over the share of unmarked pixels that do, from none to `limit` of them; 1 is perfect. Pictures
    may differ in size. NaN where nothing is marked, or everything is."""
    clear = np.sort(np.concatenate([s[~m] for s, m in zip(scores, masks, strict=True)]))[::-1]
    regions = []
    for s, m in zip(scores, masks, strict=True):
        parts, count = label(m, np.ones((3, 3)))
        regions += [np.sort(s[parts == k]) for k in range(1, count + 1)]
    if not regions or not len(clear):
        return float("nan")
    most = min(len(clear) - 1, int(np.ceil(limit * len(clear))))
    at = np.unique(np.linspace(0, most, min(most + 1, STEPS)).astype(np.int64))
    levels = np.concatenate([[np.inf], clear[at]])  # thresholds, falling
    wrong = np.concatenate([[0.0], np.searchsorted(-clear, -clear[at], side="right") / len(clear)])
    found = np.mean([1 - np.searchsorted(r, levels, side="left") / len(r) for r in regions], 0)
    start = np.mean([np.mean(r > clear[0]) for r in regions])  # above every unmarked pixel
    wrong, found = np.concatenate([[0.0], wrong[1:]]), np.concatenate([[start], found[1:]])
    kept = wrong <= limit
    x = np.concatenate([wrong[kept], [limit]])
    y = np.concatenate([found[kept], [np.interp(limit, wrong, found)]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit)
