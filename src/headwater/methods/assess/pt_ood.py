"""Is this sample of the kind that was learned from? Distances among features say so better than how sure a classifier is.

learns from   frozen features, and their labels for all scores but the first
fits          knn: nothing. The others: a linear classifier (msp, max-logit, energy, vim), or the means of the classes and
              the covariance they share (mahalanobis)
chooses       a threshold, on samples kept aside, that raises false alarms at no more than a stated rate
predicts      a score, higher for what is familiar, and 1 or -1 (an outlier)

A classifier on a pre-trained encoder is blind to what the encoder has met in pre-training and the classifier has not: its
classes are no concern of the boundaries drawn. The features tell such samples apart none the less.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Paper
from headwater.methods.assess import linear_probe
from headwater.parts.arrays import shared
from headwater.parts.conformal import threshold
from headwater.parts.neighbours import nearest
from headwater.parts.prototypes import whitened

PAPER = Paper(
    title="Can Pre-trained Networks Detect Familiar Out-of-Distribution Data?",
    year=2023,
    arxiv="2310.00847",
    differs="of the scores compared, MSP, MaxLogit, energy, ViM, Mahalanobis and k nearest neighbours, not those that need "
    "gradients; the number of neighbours (unverified); the conformal threshold is ours. That self-supervised encoders are "
    "the blinder ones needs the paper's scale.",
)
SCORES = ("knn", "msp", "max-logit", "energy", "mahalanobis", "vim")


class FamiliarityScore(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Scores of familiarity and a conformal threshold.

    by            the score, one of SCORES
    k             knn: minus the distance to the k-th nearest row of the features known, all of length 1
    axes          vim: how many principal axes are left out of the residual; None is half of the features
    false_alarms  the share of familiar samples that may be called outliers
    calibrate     the share of the samples kept aside for the threshold; they serve nothing else

    Learned: `offset_`, the threshold on the score, and `promised_`, the rate of false alarms that it promises (see
    `parts.conformal`). Raises RequestError for a score that needs labels without them, or a value out of range: by any score
    but knn, scikit-learn's check_outliers_train and check_outliers_fit_predict, which give no labels, are refused.
    """

    def __init__(
        self,
        by: str = "knn",
        k: int = 5,
        axes: int | None = None,
        false_alarms: float = 0.05,
        calibrate: float = 0.2,
        random_state: int = 0,
    ) -> None:
        self.by, self.k, self.axes = by, k, axes
        self.false_alarms, self.calibrate, self.random_state = false_alarms, calibrate, random_state

    def fit(self, X: Any, y: Any = None) -> "FamiliarityScore":
        """`y` holds class labels; knn needs none."""
        self._check()
        if self.by == "knn":
            X, labels = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2), None
        elif y is None:
            told = "requires y to be passed, but the target y is None"  # scikit-learn's words
            raise RequestError(f"FamiliarityScore by {self.by!r} {told}: it needs labels; knn needs none.")
        else:
            X, labels = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
        order = np.random.default_rng(self.random_state).permutation(len(X))
        aside, rest = np.split(order, [max(1, round(self.calibrate * len(X)))])
        if labels is None:
            self.known_ = torch.tensor(X[rest])
        elif self.by == "mahalanobis":
            self.means_, self.whiten_ = whitened(X[rest].astype(np.float64), labels[rest])
        else:
            self._classify(X[rest].astype(np.float64), labels[rest])
        self.offset_, self.promised_ = threshold(self._score(X[aside]), self.false_alarms)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fits, and says what of the same samples is familiar: 1, or -1."""
        return self.fit(X, y).predict(X)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Higher is more familiar (n,)."""
        check_is_fitted(self)
        return self._score(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The score less the threshold: negative for outliers."""
        return np.asarray(self.score_samples(X) - self.offset_)

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 for what is familiar, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _score(self, X: NDArray[Any]) -> NDArray[np.float64]:
        if self.by == "knn":
            _, similar = nearest(shared(X), self.known_, min(self.k, len(self.known_)), "cosine")
            return -np.sqrt(np.maximum(2 - 2 * similar[:, -1].numpy(), 0))
        X = X.astype(np.float64)
        if self.by == "mahalanobis":
            z, means = X @ self.whiten_, self.means_ @ self.whiten_
            apart = np.square(z).sum(1)[:, None] - 2 * z @ means.T + np.square(means).sum(1)
            return -np.maximum(apart.min(1), 0)
        logits = X @ self.coef_.T + self.intercept_
        if self.by == "msp":
            return np.asarray(softmax(logits, 1).max(1))
        if self.by == "max-logit":
            return logits.max(1)
        energy: NDArray[np.float64] = logsumexp(logits, 1)
        return energy - self.alpha_ * self._residual(X) if self.by == "vim" else energy

    def _residual(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """How long the part of each row is that the principal axes leave."""
        return np.asarray(np.linalg.norm((X - self.origin_) @ self.rest_, axis=1))

    def _classify(self, X: NDArray[np.float64], y: NDArray[Any]) -> None:
        probe = linear_probe.LinearProbe().fit(X, y)
        rows = np.column_stack([probe.coef_, probe.intercept_])
        rows = rows if len(rows) > 1 else np.concatenate([0 * rows, rows])  # one logit stands for the difference of two
        rows = rows - rows.mean(0)  # what all classes share is no part of the optimum, and would shift the energy
        self.coef_, self.intercept_ = rows[:, :-1], rows[:, -1]
        if self.by == "vim":
            self.origin_ = -np.linalg.pinv(self.coef_, rcond=1e-6) @ self.intercept_
            _, axes = np.linalg.eigh((X - self.origin_).T @ (X - self.origin_))  # the longest last
            self.rest_ = axes[:, : X.shape[1] - (X.shape[1] // 2 if self.axes is None else self.axes)]
            largest = (X @ self.coef_.T + self.intercept_).max(1).mean()
            self.alpha_ = float(largest / max(self._residual(X).mean(), 1e-12))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.by != "knn"
        return tags

    def _check(self) -> None:
        if self.by not in SCORES:
            raise unknown("score", str(self.by), SCORES)
        if self.k < 1 or not 0 < self.false_alarms < 1 or not 0 < self.calibrate < 1:
            raise RequestError(
                f"FamiliarityScore needs k >= 1, and false_alarms and calibrate between 0 and 1; got {self.get_params()}."
            )
