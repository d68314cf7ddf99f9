"""A sample is what its nearest labelled neighbours are: asks of a representation only that like lies near like.

learns from   frozen features and their labels, which it keeps
fits          nothing
chooses       nothing
predicts      by vote of the k nearest, each counting exp(similarity / temperature), or all alike
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Paper
from headwater.parts.arrays import shared
from headwater.parts.neighbours import METRICS, nearest

PAPER = Paper(
    title="Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    year=2018,
    arxiv="1805.01978",
    differs="Only its weighted vote (k = 200 there, 20 here, where labels may be few). The search is exact: float32 "
    "finds the candidates, float64 ranks them. Votes sum to 1. Euclidean and unweighted votes are added.",
)
WEIGHTS = ("similarity", "uniform")


class KNN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """k nearest neighbours, exact, in chunks: memory grows with k per query, never with queries x samples.

    k             neighbours that vote; all samples do where there are fewer than k
    weights       "similarity": exp(similarity / temperature), the cosine or, under the Euclidean metric, minus half
                  the squared distance (the same votes on features of length 1); "uniform": one vote each
    metric        "cosine" or "euclidean"

    Learned: `classes_`, `features_` (those given, not a copy, as in scikit-learn), `labels_` (indices into `classes_`). A tie
    of neighbours goes to the earlier sample, a tie of votes to the earlier class. Raises RequestError for a parameter out of
    range.
    """

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.07,
        weights: str = "similarity",
        metric: str = "cosine",
    ) -> None:
        self.k = k
        self.temperature = temperature
        self.weights = weights
        self.metric = metric

    def fit(self, X: Any, y: Any) -> "KNN":
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        if self.k < 1 or not self.temperature > 0:
            raise RequestError(f"KNN needs k >= 1 and temperature > 0; got k={self.k}, temperature={self.temperature}.")
        if self.weights not in WEIGHTS:
            raise unknown("weighting of neighbours", str(self.weights), WEIGHTS)
        if self.metric not in METRICS:
            raise unknown("metric", str(self.metric), METRICS)
        self.classes_, self.labels_ = np.unique(y, return_inverse=True)
        self.features_ = X
        return self

    def kneighbors(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Similarity and index of the neighbours of each row, nearest first: two arrays (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        bank = shared(self.features_)
        index, similarity = nearest(shared(X).to(bank.dtype), bank, min(self.k, len(bank)), self.metric)
        return similarity.numpy(), index.numpy()

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The share of the votes of each class, (n, classes)."""
        similarity, index = self.kneighbors(X)
        scores = torch.from_numpy(similarity)
        votes = (scores / self.temperature if self.weights == "similarity" else scores * 0).softmax(1)
        shares = votes.new_zeros(len(votes), len(self.classes_))
        return shares.scatter_add_(1, torch.from_numpy(self.labels_[index]), votes).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])
