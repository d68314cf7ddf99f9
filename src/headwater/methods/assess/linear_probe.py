"""A linear classifier on frozen features: what can be read off a representation by a flat cut through it.

learns from   frozen features and their labels; the encoder is never touched
fits          multinomial logistic regression, L2-penalised, to its optimum by batched L-BFGS
chooses       the strength C by stratified cross-validation on the training labels only, then fits all of them
predicts      the class with the largest logit; probabilities by softmax
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.verbs import Paper
from headwater.parts.logistic import cross_validate, penalty_of, solve, stratified

PAPER = Paper(
    title="Understanding intermediate layers using linear classifier probes",
    year=2016,
    arxiv="1610.01644",
    differs="Solved to the optimum by L-BFGS on stored features rather than by SGD beside the training of the network.",
)
UNSEARCHED_C = 0.1  # where a class has one sample and nothing can be held out; on unit-scale features a fair middle


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression with scikit-learn's objective, `C * sum of losses + ||W||^2 / 2` (the bias is free).

    C             inverse strength of the penalty; None searches `Cs` with `cv` folds (fewer where a class has fewer
                  samples, UNSEARCHED_C where one has a single one). Ties in held-out accuracy go to the lower log-loss
    tol           a fit ends when no entry of the gradient of the mean objective exceeds it, and another step would
                  lower the objective by less than this share
    standardise   subtract the mean and divide by one number, the root of the mean variance of the features, so that
                  one range of C suits every encoder. Not one number per feature: with few labels those are noise, and
                  cost eight points on raw digits with one label per class

    Learned: `coef_`, `intercept_` (for the features as given), `C_`, `classes_`, `n_iter_` and, after a search,
    `cv_accuracy_` (per C, ascending). Float32; holds five arrays of rows x classes. Raises RequestError for a single
    class or a parameter out of range.
    """

    def __init__(
        self,
        C: float | None = None,
        Cs: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        cv: int = 5,
        max_iter: int = 500,
        tol: float = 1e-4,
        standardise: bool = True,
        random_state: int | None = 0,
    ) -> None:
        self.C, self.Cs, self.cv = C, Cs, cv
        self.max_iter, self.tol = max_iter, tol
        self.standardise, self.random_state = standardise, random_state

    def fit(self, X: Any, y: Any) -> "LinearProbe":
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self._check_parameters()
        self.classes_, codes = np.unique(y, return_inverse=True)
        if (classes := len(self.classes_)) < 2:
            raise RequestError(f"LinearProbe needs two classes or more; the labels hold one class, {self.classes_[0]}.")
        mean = X.mean(0, dtype=np.float64)
        centred = X - mean.astype(X.dtype)
        scale = (float(np.sqrt(np.mean(np.square(centred)))) if self.standardise else 1.0) or 1.0
        centred /= scale
        features, labels = torch.from_numpy(centred.astype(np.float32, copy=False)), torch.from_numpy(codes)
        self.C_ = self._search(features, labels) if self.C is None else float(self.C)
        penalty = penalty_of(torch.tensor([self.C_]), len(features), classes)
        found = solve(features, labels, classes, penalty, max_iter=self.max_iter, tol=self.tol)
        if not bool(found.finished):
            message = f"LinearProbe stopped at max_iter={self.max_iter}; its gradient is {found.gradient.item():.1e}."
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        weight = found.weight[0].double().numpy()
        if classes == 2:
            weight = weight[1:] - weight[:1]
        self.coef_ = weight[:, :-1] / scale
        self.intercept_ = weight[:, -1] - self.coef_ @ mean
        self.n_iter_ = max(1, found.iterations)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The logits, (n, classes); for two classes the logit of the second, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        logits: NDArray[np.float64] = X @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        logits = self.decision_function(X)
        both = np.stack([np.zeros(len(logits)), logits], 1) if logits.ndim == 1 else logits
        return torch.from_numpy(both).softmax(1).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])

    def _search(self, x: Tensor, y: Tensor) -> float:
        strengths, folds = sorted(self.Cs), min(self.cv, int(y.bincount().min()))
        if folds < 2:
            return UNSEARCHED_C
        held_out = stratified(y, folds, self.random_state)
        accuracy, loss = cross_validate(x, y, len(self.classes_), strengths, held_out, self.max_iter, self.tol)
        self.cv_accuracy_ = accuracy.numpy()
        return max(zip(accuracy.tolist(), (-loss).tolist(), strengths, strict=True))[2]

    def _check_parameters(self) -> None:
        tried = self.Cs if self.C is None else (self.C,)
        if not tried or not all(0 < c < float("inf") for c in tried):
            raise RequestError(f"LinearProbe needs finite strengths C above 0; got {tried}.")
        if self.cv < 2 or self.max_iter < 1 or not self.tol > 0:
            raise RequestError(f"LinearProbe needs cv >= 2, max_iter >= 1, tol > 0; got {self.get_params()}.")
