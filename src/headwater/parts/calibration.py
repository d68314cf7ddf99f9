"""Whether a classifier is right as often as it says."""

import numpy as np
from numpy.typing import NDArray

BINS = 15


def calibration_error(probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """The expected calibration error (Guo et al., 2017): over bins of equal width of the probability that was given to the
    answers (n,), the distance of its mean from the share of right answers, weighed by their number."""
    at = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    said = np.bincount(at, probability, bins)
    true = np.bincount(at, right.astype(np.float64), bins)
    return float(np.abs(said - true).sum() / len(probability))
