"""Thresholds that keep a stated rate of false alarms, whatever the scores are: split conformal prediction."""

import numpy as np
from numpy.typing import NDArray


def threshold(scores: NDArray[np.float64], rate: float) -> tuple[float, float]:
    """From the scores of familiar samples kept aside, higher being more familiar: a threshold below which another familiar
    sample falls with a probability of at most `rate`, and that probability: `rate` rounded down to what so many samples
    can tell, but at least one in their number plus one. It lies a billionth of the longest score below the sample that sets
    it, which is then familiar however sums are rounded."""
    rank = max(1, int(rate * (len(scores) + 1)))
    return float(np.sort(scores)[rank - 1] - 1e-9 * np.abs(scores).max()), rank / (len(scores) + 1)
