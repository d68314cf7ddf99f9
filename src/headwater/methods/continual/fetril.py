"""Past classes come back as the features of new ones, moved to where the past classes were: no old data is kept.

learns from   frozen features and their labels, session by session, each of new classes
fits          per class the mean of its features; per session a linear classifier of all classes so far, from scratch
chooses       for each past class the new class whose mean is nearest
predicts      the class with the highest score of a linear support vector machine, one against the rest
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Paper
from headwater.parts.arrays import shared
from headwater.parts.prototypes import class_sums, merged

PAPER = Paper(
    title="FeTrIL: Feature Translation for Exemplar-Free Class-Incremental Learning",
    year=2023,
    arxiv="2211.13131",
    differs="Training the encoder on the first session is left to whoever makes the features; only the support vector machine "
    "of the paper, not its fully connected layer; all rows are set to length 1, where the authors' loader leaves the first "
    "512 as they are.",
)
METRICS = ("euclidean", "cosine")


class FeTrIL(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Class-incremental learning from translated features.

    C        inverse strength of the support vector machine's penalty
    metric   by which a past class finds the new class that stands in for it: euclidean, or cosine

    `fit` is the first session; each later `partial_fit` is one of new classes. A class that comes again raises
    RequestError: its mean is final, and its other features are gone.
    Learned: `classes_` (sorted), `means_` (classes, d), all that is kept of a class, and of the last classifier `coef_`
    (classes, d; one row for two classes) and `intercept_`.
    """

    classes_: NDArray[Any]
    means_: NDArray[np.float64]

    def __init__(self, C: float = 1.0, metric: str = "euclidean") -> None:
        self.C = C
        self.metric = metric

    def fit(self, X: Any, y: Any) -> "FeTrIL":
        """The first session."""
        return self._session(X, y, first=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "FeTrIL":
        """A session of new classes. `classes`, if given, must hold every label of `y` (scikit-learn's protocol)."""
        if classes is not None and not np.isin(y, classes).all():
            raise RequestError(f"FeTrIL got labels that are not among classes={list(classes)}.")
        return self._session(X, y, first=not hasattr(self, "classes_"))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The scores, (n, classes); for two classes that of the second, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores: NDArray[np.float64] = normalize(X) @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return np.asarray(self.classes_[best])

    @staticmethod
    def moved(features: NDArray[np.float64], mean: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
        """The features of a class whose mean is `mean`, moved so that their mean is `to`; their spread stays."""
        return features - mean + to

    def _session(self, X: Any, y: Any, first: bool) -> "FeTrIL":
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        if self.metric not in METRICS:
            raise unknown("metric", str(self.metric), METRICS)
        if not 0 < self.C < np.inf:
            raise RequestError(f"FeTrIL needs a finite strength C above 0; got {self.C}.")
        names, codes = np.unique(y, return_inverse=True)
        sums, counts = class_sums(shared(X), torch.from_numpy(codes), len(names))
        means = (sums / counts[:, None]).numpy()
        past, past_means = (names[:0], means[:0]) if first else (self.classes_, self.means_)
        if (again := np.intersect1d(names, past)).size:
            raise RequestError(f"FeTrIL takes only new classes in a later session; known: {again.tolist()}.")
        everything = merged(past, names) if len(past) else names
        if len(everything) < 2:
            raise RequestError(f"FeTrIL needs two classes or more; the labels hold one class, {everything[0]}.")
        known, of = [X], [y]
        if len(past):
            stand_in = pairwise_distances_argmin(past_means, means, metric=self.metric)
            for name, mean, new in zip(past, past_means, stand_in, strict=True):
                known.append(self.moved(X[codes == new], means[new], mean))
                of.append(np.full(len(known[-1]), name, dtype=everything.dtype))
        machine = LinearSVC(C=self.C, dual=False, tol=1e-4).fit(normalize(np.concatenate(known)), np.concatenate(of))
        order = np.argsort(np.concatenate([past, names]))
        self.classes_, self.means_ = everything, np.concatenate([past_means, means])[order]
        self.coef_, self.intercept_, self.n_iter_ = machine.coef_, machine.intercept_, int(machine.n_iter_)
        return self
