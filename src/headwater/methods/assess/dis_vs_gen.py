"""Gaussian naive Bayes whose classes share their variances: as linear as logistic regression, content with fewer labels.

learns from   frozen features and their labels, all at once or in any number of pieces, classes in any order
fits          per class the mean and the number of its samples; per feature one variance, pooled over the classes
chooses       nothing
predicts      the class that makes the sample likeliest, every feature for itself

To come within a fixed distance of its own best it needs labels in proportion to the logarithm of the number of features,
where logistic regression needs them in proportion to the number itself; in the long run the latter may win.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from headwater.core.errors import RequestError
from headwater.core.verbs import Paper
from headwater.parts.prototypes import class_sums, merged, within

PAPER = Paper(
    title="Revisiting Discriminative vs. Generative Classifiers: Theory and Implications",
    year=2023,
    arxiv="2302.02334",
    differs="what is added to each variance is a share of the largest one, once, as in scikit-learn, where the authors add "
    "1e-9 with every piece of data, to features scaled to [0, 1].",
)


class NaiveBayes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussian naive Bayes with one variance per feature, in double precision.

    smoothing   this share of the largest variance is added to all, so that a constant feature divides by no zero

    Learned: `classes_` (sorted), `counts_` (classes,), `means_` (classes, d), `variance_` (d,), and the linear form,
    `coef_` (classes, d) and `intercept_` (classes,). A class announced in `partial_fit(classes=...)` and not yet seen has
    count 0 and is never predicted. Raises RequestError for a negative smoothing.
    """

    classes_: NDArray[Any]
    counts_: NDArray[np.float64]
    means_: NDArray[np.float64]
    scatter_: NDArray[np.float64]

    def __init__(self, smoothing: float = 1e-9) -> None:
        self.smoothing = smoothing

    def fit(self, X: Any, y: Any) -> "NaiveBayes":
        return self._add(X, y, None, first=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "NaiveBayes":
        """Adds samples, and classes, to what has been seen."""
        return self._add(X, y, classes, first=not hasattr(self, "classes_"))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The joint log-likelihood but for what all classes have in common, (n, classes); for two the difference."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        out: NDArray[np.float64] = log_softmax(self._scores(X), 1)
        return out

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        best = self._scores(X).argmax(1)
        return np.asarray(self.classes_[best])

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scores: NDArray[np.float64] = X @ self.coef_.T + self.intercept_
        return scores

    def _add(self, X: Any, y: Any, classes: Any, first: bool) -> "NaiveBayes":
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=first)
        check_classification_targets(y)
        if not 0 <= self.smoothing < np.inf:
            raise RequestError(f"NaiveBayes needs a smoothing of 0 or more; got {self.smoothing}.")
        announced = np.unique(y) if classes is None else merged(np.asarray(classes), y)
        known = announced if first else merged(self.classes_, announced)
        codes, x = torch.from_numpy(np.searchsorted(known, y)), torch.from_numpy(np.require(X, requirements="W"))
        sums, number = class_sums(x, codes, len(known))
        fresh = sums / number.clamp(min=1)[:, None]
        spread = within(x, codes, fresh).numpy()
        counts, means = number.numpy(), fresh.numpy()
        if not first:  # two sets of a class deviate from their common mean by how far their own lie apart, too
            old = np.searchsorted(known, self.classes_)
            before, mean = np.zeros_like(counts), np.zeros_like(means)
            before[old], mean[old] = self.counts_, self.means_
            share = counts / np.maximum(before + counts, 1)
            spread += self.scatter_ + ((before * share)[:, None] * np.square(means - mean)).sum(0)
            means = mean + share[:, None] * (means - mean)
            counts = before + counts
        self.classes_, self.counts_, self.means_, self.scatter_ = known, counts, means, spread
        return self._finish()

    def _finish(self) -> "NaiveBayes":
        """The linear form. Scores are taken about the common mean, so that nothing large cancels."""
        total = self.counts_.sum()
        variance = self.scatter_ / total
        whole = self.counts_ @ self.means_ / total
        between = self.counts_ @ np.square(self.means_ - whole) / total
        self.variance_ = variance + (self.smoothing * float((variance + between).max()) or float(np.finfo(float).tiny))
        away = self.means_ - whole
        self.coef_ = away / self.variance_
        with np.errstate(divide="ignore"):  # a class without samples has the log-prior minus infinity
            prior = np.log(self.counts_ / total)
        self.intercept_ = prior - (self.coef_ * (away / 2 + whole)).sum(1)
        return self
