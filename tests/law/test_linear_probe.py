"""The linear probe is scikit-learn's logistic regression, found faster."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split

from headwater.core.errors import RequestError
from headwater.methods.assess.linear_probe import UNSEARCHED_C, LinearProbe
from headwater.parts.logistic import solve, stratified


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    x, y = load_digits(return_X_y=True)
    x = (x - x.mean()).astype(np.float32) / 6
    return train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_it_is_scikit_learns_optimum(digits: list[np.ndarray], classes: int, c: float) -> None:
    x, x_test, y, y_test = digits
    x, y, x_test, y_test = x[y < classes], y[y < classes], x_test[y_test < classes], y_test[y_test < classes]
    theirs = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x.astype(np.float64), y)
    ours = LinearProbe(C=c, standardise=False, tol=1e-6).fit(x, y)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=0.01 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(ours.predict_proba(x_test), theirs.predict_proba(x_test), atol=2e-3)
    default = LinearProbe(C=c, standardise=False).fit(x, y)
    assert abs(default.score(x_test, y_test) - theirs.score(x_test, y_test)) <= 0.002


def test_scaling_is_one_number_and_is_undone_in_the_coefficients(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    plain, moved = LinearProbe(C=0.1).fit(x, y), LinearProbe(C=0.1).fit(8 * x + 3, y)
    np.testing.assert_allclose(moved.predict_proba(8 * x_test + 3), plain.predict_proba(x_test), atol=1e-3)
    scaled = (x - x.mean(0)) / np.sqrt(np.mean(np.square(x - x.mean(0))))
    by_hand = LinearProbe(C=0.1, standardise=False).fit(scaled, y)
    np.testing.assert_allclose(by_hand.predict_proba(scaled), plain.predict_proba(x), atol=1e-3)


def test_the_batch_of_folds_and_strengths_is_the_problems_one_by_one(digits: list[np.ndarray]) -> None:
    x, y = torch.from_numpy(digits[0][:300]), torch.from_numpy(digits[2][:300])
    x = x - x.mean(0)
    rows = ~stratified(y, 3, 0)
    assert bool((rows.sum(0) == 2).all())
    penalty = torch.tensor([1e-3, 1e-2, 1e-1])
    together = solve(x, y, 10, penalty, rows, tol=1e-6)
    for i, kept in enumerate(rows):
        alone = solve(x[kept], y[kept], 10, penalty[i : i + 1], tol=1e-6)
        assert torch.allclose(together.objective[i], alone.objective[0], rtol=1e-4)
        assert torch.allclose(together.weight[i], alone.weight[0], atol=0.02 * alone.weight.abs().max())


def test_the_search_finds_the_strength_that_cross_validates_best(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    x, y = x[:200], y[:200]
    probe = LinearProbe(Cs=(1e-5, 1e-1, 1e4)).fit(x, y)
    assert probe.C_ == 0.1
    assert probe.cv_accuracy_[1] == max(probe.cv_accuracy_)
    centred = (x - x.mean(0)) / np.sqrt(np.mean(np.square(x - x.mean(0))))
    theirs = cross_val_score(LogisticRegression(C=0.1, max_iter=500), centred, y, cv=5).mean()
    assert abs(probe.cv_accuracy_[1] - theirs) < 0.04  # other folds


def test_the_search_reads_training_labels_only_and_is_repeatable(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    shuffled = np.random.default_rng(0).permutation(y)
    assert LinearProbe(Cs=(0.1,)).fit(x[:300], shuffled[:300]).cv_accuracy_[0] < 0.25
    one, two = (LinearProbe().fit(x[:60], y[:60]) for _ in range(2))
    assert one.C_ == two.C_ and np.array_equal(one.coef_, two.coef_)


def test_one_label_per_class_uses_the_documented_strength(digits: list[np.ndarray]) -> None:
    x, x_test, y, y_test = digits
    first = np.unique(y, return_index=True)[1]
    probe = LinearProbe().fit(x[first], y[first])
    assert probe.C_ == UNSEARCHED_C and not hasattr(probe, "cv_accuracy_")
    assert probe.score(x_test, y_test) > 0.5


def test_it_says_so_when_it_stops_early(digits: list[np.ndarray]) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        LinearProbe(C=1.0, max_iter=2).fit(digits[0], digits[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearProbe(C=1.0).fit(digits[0], digits[2])


def test_wrong_requests_are_named() -> None:
    x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    for wrong in (LinearProbe(C=0.0), LinearProbe(Cs=()), LinearProbe(Cs=(1.0, -1.0)), LinearProbe(cv=1)):
        with pytest.raises(RequestError, match="LinearProbe needs"):
            wrong.fit(x, y)
    with pytest.raises(RequestError, match="one class, 0"):
        LinearProbe().fit(x, y * 0)
    with pytest.raises(ValueError, match="NaN"):
        LinearProbe().fit(x * np.nan, y)
    with pytest.raises(ValueError, match="3 features"):
        LinearProbe(C=1.0).fit(x, y).predict(x[:, :3])
