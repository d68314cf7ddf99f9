"""A new class known from a few shots borrows from the base classes it resembles: prototypes mixed, nothing trained.

learns from   frozen features and their labels: first many samples of the base classes, then few of each new one
fits          per class the mean of its raw features; a new class's mean is mixed once with the base means like it
chooses       nothing
predicts      the class with the largest cosine, over all classes seen so far
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn.functional import normalize

from headwater.core.errors import RequestError
from headwater.core.verbs import Paper
from headwater.parts.arrays import shared
from headwater.parts.prototypes import calibrated, class_sums, merged

PAPER = Paper(
    title="Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration",
    year=2023,
    arxiv="2312.05229",
    differs="Training the encoder on the base session is left to whoever makes the features.",
)


class TEEN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Cosine classification by class means, those of new classes calibrated on the base classes; double precision.

    alpha   how much of a new class's row comes from the base classes: 0 is the plain nearest-mean baseline
    tau     how sharply the borrowing favours the most similar base classes

    `fit` is the base session. Each later `partial_fit` is a session of new classes and changes no row that exists.
    Until the first of them, `partial_fit` with base classes only adds samples to the base session (without `fit` it
    starts it). Any other return of a class that is known raises RequestError: its row is final.
    Learned: `classes_` (sorted), `rows_` (classes, d), `counts_` and `base_` (classes,), True for the base classes.
    """

    classes_: NDArray[Any]
    rows_: NDArray[np.float64]
    counts_: NDArray[np.float64]
    base_: NDArray[np.bool_]

    def __init__(self, alpha: float = 0.5, tau: float = 16.0) -> None:
        self.alpha = alpha
        self.tau = tau

    def fit(self, X: Any, y: Any) -> "TEEN":
        """The base session."""
        self.classes_, sums, self.counts_ = self._session(X, y, first=True)
        self.rows_ = sums / self.counts_[:, None]
        self.base_ = np.ones(len(self.classes_), dtype=bool)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "TEEN":
        """A session of new classes. `classes`, if given, must hold every label of `y` (scikit-learn's protocol)."""
        if classes is not None and not np.isin(y, classes).all():
            raise RequestError(f"TEEN got labels that are not among classes={list(classes)}.")
        if not hasattr(self, "classes_"):
            return self.fit(X, y)
        names, sums, counts = self._session(X, y, first=False)
        everything = merged(self.classes_, names)
        known = np.isin(names, self.classes_)
        if known.all() and self.base_.all():
            at = np.searchsorted(self.classes_, names)
            total = self.counts_.copy()
            total[at] += counts
            rows = self.rows_.copy()
            rows[at] = (rows[at] * self.counts_[at, None] + sums) / total[at, None]
            self.rows_, self.counts_ = rows, total
            return self
        if known.any():
            raise RequestError(f"TEEN takes only new classes in a later session; known: {names[known].tolist()}.")
        means, base = torch.from_numpy(sums / counts[:, None]), torch.from_numpy(self.rows_[self.base_])
        rows = calibrated(means, base, self.alpha, self.tau).numpy()
        order = np.argsort(np.concatenate([self.classes_, names]))
        self.rows_ = np.concatenate([self.rows_, rows])[order]
        self.counts_ = np.concatenate([self.counts_, counts])[order]
        self.base_ = np.concatenate([self.base_, np.zeros(len(names), dtype=bool)])[order]
        self.classes_ = everything
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The cosines, (n, classes); for two classes the second minus the first, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rows = normalize(torch.from_numpy(self.rows_), dim=1)
        cosine = normalize(shared(X), dim=1) @ rows.T
        return (cosine[:, 1] - cosine[:, 0] if len(self.classes_) == 2 else cosine).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return np.asarray(self.classes_[best])

    def _session(self, X: Any, y: Any, first: bool) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """The classes of a session, the sums of their raw features and the number of their samples."""
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        if not 0 <= self.alpha <= 1 or not 0 <= self.tau < np.inf:
            raise RequestError(f"TEEN needs alpha in [0, 1] and tau >= 0; got alpha={self.alpha}, tau={self.tau}.")
        names, codes = np.unique(y, return_inverse=True)
        sums, counts = class_sums(shared(X), torch.from_numpy(codes), len(names))
        return names, sums.numpy(), counts.numpy()
