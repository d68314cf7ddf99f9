"""Each class is the mean of its features and a sample belongs to the nearest: no training, no order, no forgetting.

learns from   frozen features and their labels, all at once or in any number of pieces, classes in any order
fits          per class the sum of its features, each set to length 1, and their number
chooses       nothing
predicts      the class whose mean is nearest; the means are not set to length 1 again
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn.functional import normalize

from headwater.core.verbs import Paper
from headwater.parts.arrays import shared
from headwater.parts.prototypes import class_sums, merged

PAPER = Paper(
    title="A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning",
    year=2022,
    arxiv="2210.04428",
)


class NMC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest mean of length-1 features, in double precision; `partial_fit` adds samples and classes as they come.

    Learned: `classes_` (sorted), `sums_` and `means_` (classes, d), `counts_` (classes,). A class announced in
    `partial_fit(classes=...)` and not yet seen has count 0 and is never predicted.
    """

    classes_: NDArray[Any]
    sums_: NDArray[np.float64]
    counts_: NDArray[np.float64]

    def fit(self, X: Any, y: Any) -> "NMC":
        return self._add(X, y, None, first=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "NMC":
        """Adds samples to what has been seen; the means of other classes keep their bits."""
        return self._add(X, y, classes, first=not hasattr(self, "classes_"))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """f.mean - |mean|^2 / 2, whose order is that of the distances, (n, classes); for two classes the difference."""
        check_is_fitted(self)
        features = self._features(validate_data(self, X, dtype=np.float64, reset=False))
        means = torch.from_numpy(self.means_)
        scores = features @ means.T - means.square().sum(1) / 2
        scores[:, torch.from_numpy(self.counts_ == 0)] = -torch.inf
        return (scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return np.asarray(self.classes_[best])

    def _add(self, X: Any, y: Any, classes: Any, first: bool) -> "NMC":
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        announced = np.unique(y) if classes is None else merged(np.asarray(classes), y)
        known = announced if first else merged(self.classes_, announced)
        sums, counts = class_sums(self._features(X), torch.from_numpy(np.searchsorted(known, y)), len(known))
        if not first:
            old = torch.from_numpy(np.searchsorted(known, self.classes_))
            sums[old] += torch.from_numpy(self.sums_)
            counts[old] += torch.from_numpy(self.counts_)
        self.classes_, self.sums_, self.counts_ = known, sums.numpy(), counts.numpy()
        self.means_: NDArray[np.float64] = self.sums_ / np.maximum(self.counts_, 1)[:, None]
        return self

    @staticmethod
    def _features(X: NDArray[np.float64]) -> Tensor:
        return normalize(shared(X), dim=1)
