"""FeTrIL: past classes are represented by moved features of new ones, and that beats copies of their means."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from headwater.core.errors import RequestError
from headwater.methods.continual.fetril import FeTrIL


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    return train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)


def those(x: np.ndarray, y: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.isin(y, classes)
    return x[rows], y[rows]


def test_moved_features_have_the_past_mean_and_the_new_spread() -> None:
    rng = np.random.default_rng(0)
    new, past = rng.normal(3, 2, (50, 6)), rng.normal(size=6)
    moved = FeTrIL.moved(new, new.mean(0), past)
    np.testing.assert_allclose(moved.mean(0), past, atol=1e-12)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(new.T), atol=1e-12)
    np.testing.assert_allclose(FeTrIL.moved(new, past, past), new, atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_classifier_is_scikit_learns_on_what_the_paper_says(digits: list[np.ndarray], metric: str) -> None:
    x, x_test, y, _ = digits
    x = x * np.where(y == 8, 0.3, 1.0)[:, None]  # near in direction is not near in distance
    ours = FeTrIL(C=0.5, metric=metric).fit(*those(x, y, [7, 1, 4])).partial_fit(*those(x, y, [3, 8]))
    means = {c: x[y == c].mean(0) for c in (1, 3, 4, 7, 8)}
    nearest = pairwise_distances_argmin([means[c] for c in (1, 4, 7)], [means[3], means[8]], metric=metric)
    features, labels = [x[y == 3], x[y == 8]], [3, 8]
    for past, at in zip((1, 4, 7), nearest, strict=True):
        new = (3, 8)[at]
        features.append(x[y == new] + (means[past] - means[new]))
        labels.append(past)
    rows = normalize(np.concatenate(features))
    theirs = LinearSVC(C=0.5, dual=False, tol=1e-4).fit(rows, np.repeat(labels, [len(f) for f in features]))
    np.testing.assert_allclose(ours.decision_function(x_test), theirs.decision_function(normalize(x_test)), atol=1e-6)
    assert list(ours.classes_) == [1, 3, 4, 7, 8] and list(nearest) == (
        [0, 1, 0] if metric == "euclidean" else [1, 1, 1]
    )


def test_all_that_is_kept_of_a_class_is_its_mean(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    ours = FeTrIL().fit(*those(x, y, [0, 1, 2]))
    before = ours.means_.copy()
    ours.partial_fit(*those(x, y, [3]))
    np.testing.assert_array_equal(ours.means_[:3], before)
    assert ours.means_.shape == (4, 64) and ours.coef_.shape == (4, 64)
    assert set(vars(ours)) == {"C", "metric", "classes_", "means_", "coef_", "intercept_", "n_iter_", "n_features_in_"}
    assert len({c.tobytes() for c in ours.means_}) == 4


def test_length_is_set_after_moving_and_means_are_raw(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    units = np.linspace(1, 3, len(x))[:, None]  # rows of unequal length: their means differ once each has length 1
    ours = FeTrIL().fit(*those(units * x, y, [0, 1]))
    np.testing.assert_allclose(ours.means_[0], (units * x)[y == 0].mean(0))


def test_moved_features_beat_copies_of_the_means(digits: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    x, x_test, y, y_test = digits

    def taught() -> float:
        ours = FeTrIL().fit(*those(x, y, [0, 1, 2, 3, 4]))
        scores = []
        for c in range(5, 10):
            ours.partial_fit(*those(x, y, [c]))
            scores.append(ours.score(*those(x_test, y_test, list(range(c + 1)))))
        return float(np.mean(scores))

    moved = taught()
    monkeypatch.setattr(FeTrIL, "moved", staticmethod(lambda features, mean, to: np.tile(to, (len(features), 1))))
    assert moved > taught() + 0.01


def test_bad_requests_are_refused(digits: list[np.ndarray]) -> None:
    x, _, y, _ = digits
    ours = FeTrIL().fit(*those(x, y, [0, 1]))
    with pytest.raises(RequestError, match=r"only new classes in a later session; known: \[1\]"):
        ours.partial_fit(*those(x, y, [1, 2]))
    with pytest.raises(RequestError, match="not among classes"):
        ours.partial_fit(*those(x, y, [2]), classes=[3])
    with pytest.raises(RequestError, match="Did you mean cosine"):
        FeTrIL(metric="cosin").fit(*those(x, y, [0, 1]))
    with pytest.raises(RequestError, match="C above 0; got 0"):
        FeTrIL(C=0.0).fit(*those(x, y, [0, 1]))
    with pytest.raises(RequestError, match="one class, 3"):
        FeTrIL().fit(*those(x, y, [3]))
