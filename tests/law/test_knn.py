"""kNN: the exact neighbours, the votes of the paper, memory that stays bounded."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from headwater.core.errors import RequestError
from headwater.methods.assess.knn import KNN
from headwater.parts import neighbours
from headwater.parts.neighbours import nearest


def points(n: int, seed: int, d: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(5, size=n)
    return (rng.standard_normal((n, d)) + 0.5 * np.eye(5, d)[y] * 3 + 20).astype(np.float32), y


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_it_is_scikit_learns_brute_force(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BANK_ROWS", 100)  # several chunks of both, the last ones short
    monkeypatch.setattr(neighbours, "QUERIES", 64)
    (x, y), (x_test, _) = points(730, 0), points(150, 1)
    x, x_test = x.astype(np.float64), x_test.astype(np.float64)
    theirs = KNeighborsClassifier(7, algorithm="brute", metric=metric).fit(x, y)
    ours = KNN(k=7, weights="uniform", metric=metric).fit(x, y)
    similarity, index = ours.kneighbors(x_test)
    assert np.array_equal(index, NearestNeighbors(n_neighbors=7, metric=metric).fit(x).kneighbors(x_test)[1])
    assert np.all(np.diff(similarity) <= 0)
    np.testing.assert_allclose(ours.predict_proba(x_test), theirs.predict_proba(x_test), atol=1e-12)
    assert np.array_equal(ours.predict(x_test), theirs.predict(x_test))


def test_the_vote_is_the_papers() -> None:
    (x, y), (x_test, _) = points(60, 2), points(9, 3)
    probabilities = KNN(k=60, temperature=0.5).fit(x, y).predict_proba(x_test)
    unit, unit_test = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, x_test))
    votes = np.exp(unit_test @ unit.T / 0.5) @ np.eye(5)[y]
    np.testing.assert_allclose(probabilities, votes / votes.sum(1, keepdims=True), rtol=1e-5)
    euclidean = KNN(k=60, temperature=0.5, metric="euclidean").fit(unit, y).predict_proba(unit_test)
    np.testing.assert_allclose(probabilities, euclidean, rtol=1e-4)


def test_fewer_samples_than_k_all_vote_and_one_label_per_class_works() -> None:
    x, y = np.eye(3, dtype=np.float32), np.array(["a", "b", "c"])
    knn = KNN().fit(x, y)
    assert knn.kneighbors(x)[1].shape == (3, 3)
    assert list(knn.predict(x)) == ["a", "b", "c"]


def test_a_tie_goes_to_the_earlier_sample() -> None:
    x = np.ones((40, 4), dtype=np.float32)
    assert KNN(k=3).fit(x[:11], np.arange(11)).kneighbors(x[:2])[1].tolist() == [[0, 1, 2]] * 2


def test_no_chunk_compares_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BANK_ROWS", 50)
    monkeypatch.setattr(neighbours, "QUERIES", 20)
    largest, topk = [0], torch.Tensor.topk

    def watched(scores: torch.Tensor, k: int, *rest: object) -> object:
        largest[0] = max(largest[0], scores.numel())
        return topk(scores, k, *rest)

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    g = torch.Generator().manual_seed(0)
    nearest(torch.randn(300, 8, generator=g), torch.randn(1000, 8, generator=g), 5, "cosine")
    assert 0 < largest[0] <= 20 * 50


def test_features_are_kept_without_a_copy_and_may_be_read_only() -> None:
    x, y = points(50, 4)
    knn = KNN().fit(x, y)
    assert np.shares_memory(knn.features_, x)
    said = knn.predict_proba(x)
    x.flags.writeable = False
    assert np.array_equal(KNN().fit(x, y).predict_proba(x), said)


def test_wrong_requests_are_named() -> None:
    x, y = points(10, 5)
    with pytest.raises(RequestError, match="k >= 1"):
        KNN(k=0).fit(x, y)
    with pytest.raises(RequestError, match="temperature"):
        KNN(temperature=0.0).fit(x, y)
    with pytest.raises(RequestError, match="Did you mean cosine"):
        KNN(metric="cosin").fit(x, y)
    with pytest.raises(RequestError, match="Did you mean uniform"):
        KNN(weights="unifrm").fit(x, y)
