"""Naive Bayes with shared variances: linear, scikit-learn's once its variances are pooled, the same in any pieces."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB

from headwater.core.errors import RequestError
from headwater.methods.assess.dis_vs_gen import NaiveBayes


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 0.5, x.shape)  # no feature is constant
    return train_test_split(x, y, test_size=0.3, random_state=0)


def test_it_is_scikit_learns_with_the_pooled_variance(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    theirs, ours = GaussianNB(var_smoothing=0.0).fit(x, y), NaiveBayes(smoothing=0.0).fit(x, y)
    pooled = theirs.class_prior_ @ theirs.var_
    np.testing.assert_allclose(ours.variance_, pooled, rtol=1e-10)
    theirs.var_[:] = pooled
    np.testing.assert_allclose(ours.predict_log_proba(x_test), theirs.predict_log_proba(x_test), atol=1e-8)
    assert np.array_equal(ours.predict(x_test), theirs.predict(x_test))


def test_it_is_discriminant_analysis_where_features_do_not_covary() -> None:
    rng = np.random.default_rng(0)
    deviations = rng.normal(size=(40, 5)) @ np.diag([1, 2, 3, 4, 5])
    q, _ = np.linalg.qr(deviations - deviations.mean(0))  # 40 rows of mean zero whose columns do not correlate
    spread = q * np.array([1, 2, 3, 4, 5])
    spread = np.concatenate([spread, -spread])
    x = np.concatenate([spread, spread + rng.normal(size=5), spread + rng.normal(size=5)])
    y = np.repeat([0, 1, 2], 80)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    ours = NaiveBayes(smoothing=0.0).fit(x, y)
    query = rng.normal(size=(50, 5))
    np.testing.assert_allclose(ours.predict_proba(query), theirs.predict_proba(query), atol=1e-6)


@pytest.mark.parametrize("shuffled", [True, False])
def test_pieces_and_their_order_do_not_matter(digits: list[np.ndarray], shuffled: bool) -> None:
    x, x_test, y, _ = digits
    whole, pieces = NaiveBayes().fit(x, y), NaiveBayes()
    order = np.random.default_rng(0).permutation(len(x)) if shuffled else np.argsort(y, kind="stable")
    for rows in np.array_split(order, 9):
        pieces.partial_fit(x[rows], y[rows])
    np.testing.assert_allclose(pieces.means_, whole.means_, atol=1e-12)
    np.testing.assert_allclose(pieces.variance_, whole.variance_, rtol=1e-10)
    np.testing.assert_allclose(pieces.decision_function(x_test), whole.decision_function(x_test), atol=1e-7)


def test_scores_are_affine_with_the_weights_of_the_paper(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    ours = NaiveBayes(smoothing=0.0).fit(x, y)
    a, b = x_test[:5], x_test[5:10]
    np.testing.assert_allclose(
        ours.decision_function((a + b) / 2), (ours.decision_function(a) + ours.decision_function(b)) / 2, atol=1e-8
    )
    weights = (ours.means_[3] - ours.means_[8]) / ours.variance_
    np.testing.assert_allclose(ours.coef_[3] - ours.coef_[8], weights, atol=1e-12)


def test_units_do_not_matter(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    units = np.geomspace(0.01, 100, x.shape[1])
    plain, scaled = NaiveBayes(smoothing=0.0).fit(x, y), NaiveBayes(smoothing=0.0).fit(x * units, y)
    np.testing.assert_allclose(plain.decision_function(x_test), scaled.decision_function(x_test * units), atol=1e-7)


def test_balanced_it_is_the_nearest_mean_in_units_of_the_deviation(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    rows = np.concatenate([np.flatnonzero(y == k)[:50] for k in range(10)])
    ours = NaiveBayes().fit(x[rows], y[rows])
    distance = np.square((x_test[:, None] - ours.means_) / np.sqrt(ours.variance_)).sum(2)
    assert np.array_equal(ours.predict(x_test), distance.argmin(1))


def test_a_large_common_offset_costs_no_digits() -> None:
    x, y = load_digits(return_X_y=True)
    near, far = NaiveBayes().fit(x, y), NaiveBayes().fit(x + 1e6, y)
    assert np.mean(near.predict(x) == far.predict(x + 1e6)) > 0.999


def test_constant_features_and_announced_classes_are_harmless(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    flat, flat_test = np.pad(x, ((0, 0), (0, 1))), np.pad(x_test, ((0, 0), (0, 1)))
    few = NaiveBayes().partial_fit(flat[y < 5], y[y < 5], classes=range(10))
    assert np.isfinite(few.coef_).all() and few.predict(flat_test).max() < 5
    assert np.array_equal(few.predict(flat_test), NaiveBayes().fit(x[y < 5], y[y < 5]).predict(x_test))
    assert NaiveBayes().fit(np.ones((4, 2)), [0, 0, 1, 1]).predict(np.ones((1, 2))) == [0]


def test_single_precision_is_summed_in_double() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1000, 1, (20_000, 3)).astype(np.float32), rng.integers(0, 2, 20_000)
    single, double = NaiveBayes().fit(x, y), NaiveBayes().fit(x.astype(np.float64), y)
    np.testing.assert_allclose(single.variance_, double.variance_, rtol=1e-12)


def test_bad_smoothing_is_refused() -> None:
    with pytest.raises(RequestError, match=r"smoothing of 0 or more; got -1"):
        NaiveBayes(smoothing=-1.0).fit([[0.0], [1.0]], [0, 1])


def test_smoothing_is_a_share_of_the_largest_variance(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    added = NaiveBayes(smoothing=0.1).fit(x, y).variance_ - NaiveBayes(smoothing=0.0).fit(x, y).variance_
    np.testing.assert_allclose(added, GaussianNB(var_smoothing=0.1).fit(x, y).epsilon_, rtol=1e-10)
