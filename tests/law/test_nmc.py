"""The nearest-mean classifier: order means nothing, nothing is forgotten, it is scikit-learn's nearest centroid."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from headwater.core.errors import RequestError
from headwater.methods.assess.nmc import NMC


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    return train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)


def test_order_and_pieces_do_not_matter(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    whole = NMC().fit(x, y)
    pieces = NMC()
    for rows in np.array_split(np.random.default_rng(0).permutation(len(x)), 7):
        pieces.partial_fit(x[rows], y[rows])
    tasks = NMC()
    for pair in ([8, 3], [1, 0], [9, 2], [5, 4], [7, 6]):
        tasks.partial_fit(x[np.isin(y, pair)], y[np.isin(y, pair)])
    for other in (pieces, tasks):
        np.testing.assert_allclose(other.means_, whole.means_, atol=1e-12)
        assert np.array_equal(other.predict(x_test), whole.predict(x_test))


def test_it_is_the_nearest_centroid_of_normalised_features(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    # NearestCentroid warns of features that are constant within a class
    x, x_test = x + np.random.default_rng(0).random(x.shape), x_test + np.random.default_rng(1).random(x_test.shape)
    theirs = NearestCentroid(metric="euclidean").fit(normalize(x), y)
    ours = NMC().fit(x, y)
    np.testing.assert_allclose(ours.means_, theirs.centroids_, atol=1e-12)
    assert np.array_equal(ours.predict(x_test), theirs.predict(normalize(x_test)))


def test_a_new_class_leaves_the_others_bit_identical(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    nmc = NMC().fit(x[y > 0], y[y > 0])
    before = nmc.means_.copy()
    nmc.partial_fit(x[y == 0], y[y == 0])
    assert np.array_equal(nmc.means_[1:], before) and nmc.classes_[0] == 0


def test_it_is_linear_with_a_bias_and_not_the_cosine() -> None:
    # the class of large spread has the shorter mean: the cosine prefers it, the distance does not
    x = np.array([[1.0, 0.9], [1.0, 0.8], [1.0, 0.0], [-0.2, 1.0]])
    y = np.array([0, 0, 1, 1])
    nmc, query = NMC().fit(x, y), np.array([[0.6, 0.8]])
    f = normalize(query)
    distance = np.linalg.norm(f - nmc.means_, axis=1)
    scores = (f @ nmc.means_.T - np.square(nmc.means_).sum(1) / 2)[0]
    assert distance.argmin() == scores.argmax() == nmc.predict(query)[0] == 0
    np.testing.assert_allclose(nmc.decision_function(query)[0], scores[1] - scores[0])
    assert (f @ normalize(nmc.means_).T).argmax() == 1


def test_an_announced_class_without_samples_is_never_predicted(digits: list[np.ndarray]) -> None:
    x, x_test, y, _ = digits
    nmc = NMC().partial_fit(x[y < 5], y[y < 5], classes=range(10))
    assert list(nmc.classes_) == list(range(10)) and np.isfinite(nmc.means_).all()
    assert nmc.predict(-x_test).max() < 5  # far from all that was seen


def test_it_does_not_forget_where_sequential_training_does(digits: list[np.ndarray]) -> None:
    x, x_test, y, y_test = digits
    nmc, sequential = NMC(), SGDClassifier(loss="log_loss", random_state=0)
    for first in range(0, 10, 2):
        rows = np.isin(y, [first, first + 1])
        nmc.partial_fit(x[rows], y[rows])
        for _ in range(5):
            sequential.partial_fit(x[rows] / 16, y[rows], classes=range(10))
    joint = LogisticRegression(max_iter=2000).fit(x / 16, y).score(x_test / 16, y_test)
    assert nmc.score(x_test, y_test) > sequential.score(x_test / 16, y_test) + 0.5
    assert 0.03 < joint - nmc.score(x_test, y_test) < 0.10


def test_text_and_numbers_are_not_mixed() -> None:
    x = np.eye(2)
    with pytest.raises(RequestError, match="Keep to one kind"):
        NMC().fit(x, np.array([0, 1])).partial_fit(x, np.array(["0", "1"]))
