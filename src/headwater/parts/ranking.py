"""Scores in many units brought to one: deviations from the field, and how far rankings agree.

Shapes: e entrants, t tasks. NaN is a missing score.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Scores = NDArray[np.float64]


def z_scores(scores: Scores, error: Sequence[bool]) -> Scores:
    """Of each column [e t]: the distance from the mean of the field in deviations of the population, the sign turned for
    errors; 0 where all are equal. NaN, for what is missing, stays and counts for nothing."""
    out = np.full_like(scores, np.nan)
    for j, turned in enumerate(error):
        known = np.isfinite(scores[:, j])
        column = scores[known, j] * (-1 if turned else 1)
        if len(column):
            away = column - column.mean()
            spread = np.sqrt(np.mean(np.square(away)))
            flat = spread <= 1e-12 * max(1.0, float(np.abs(column).max()))  # rounding is no difference
            out[known, j] = 0.0 if flat else away / spread
    return out


def agreement(scores: Scores, error: Sequence[bool]) -> Scores:
    """Spearman's correlation between the rankings of each two tasks, over the encoders with both [t t]; NaN where a task
    ranks nobody above another."""
    signed = scores * np.where(np.array(error, bool), -1.0, 1.0)
    out = np.full((scores.shape[1],) * 2, np.nan)
    for i in range(len(out)):
        for j in range(len(out)):
            both = np.isfinite(signed[:, i]) & np.isfinite(signed[:, j])
            a, b = (rankdata(signed[both, k]) for k in (i, j))
            if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
                out[i, j] = np.corrcoef(a, b)[0, 1]
    return out
