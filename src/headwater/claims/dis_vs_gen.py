"""Naive Bayes: with more features it needs no more labels, where logistic regression does."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning

from headwater.api.reproduce import Claim, Pair
from headwater.methods.assess.dis_vs_gen import NaiveBayes
from headwater.methods.assess.linear_probe import LinearProbe

FEATURES = 200
TEST = 4000
GRID = np.unique(np.geomspace(4, 1600, 40).astype(int) // 2 * 2)  # labels in all, both classes alike
CLOSE = 0.01  # to the best error that there is


class OneVariance(NaiveBayes):
    """One number for the spread of all features."""

    def _finish(self) -> "NaiveBayes":
        self.scatter_ = np.full_like(self.scatter_, self.scatter_.mean())
        return super()._finish()


def needed(model: Callable[[], Any], seed: int, features: int = FEATURES) -> float:
    """So many labels bring the error within CLOSE of the best; of the means of the classes, half of the features deviate
    with a variance as large as their number, half with 1."""
    rng = np.random.default_rng((7, seed, features))
    scale = np.sqrt(np.repeat([features, 1.0], [features // 2, features - features // 2]))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n) % 2
        return rng.normal(2.0 * y[:, None] - 1, scale, (n, features)).astype(np.float32), y

    (pool, labels), (test, truth) = draw(int(GRID[-1])), draw(TEST)
    best = float(norm.sf(np.sqrt((1 / scale**2).sum())))
    for m in GRID:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = model().fit(pool[:m], labels[:m]).predict(test)
        if np.mean(found != truth) < best + CLOSE:
            return float(m)
    return 2.0 * GRID[-1]  # more than were there


def logistic() -> LinearProbe:
    return LinearProbe(C=1.0, standardise=False)


CLAIM = Claim(
    paper="To come near its best, multi-class naive Bayes needs labels in proportion to the logarithm of the number of "
    "features, logistic regression in proportion to the number.",
    claim=f"On {FEATURES} features whose variances differ, naive Bayes comes within {100 * CLOSE:.0f} point of the best error "
    "with a fraction of the labels that logistic regression needs. Real features may reverse that with many labels: not claimed.",
    data="two generated Gaussian classes",
    metric="labels needed",
    direction="lower",
    baseline="logistic regression, C = 1, at its optimum",
    least=100.0,
    measure=lambda seed: Pair(needed(NaiveBayes, seed), needed(logistic, seed)),
    without="a variance for each feature: one for all",
    ablated=lambda seed: Pair(needed(OneVariance, seed), needed(logistic, seed)),
)
