"""Scores of familiarity are what their formulas say, and the rate of false alarms is kept."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from headwater.core.errors import RequestError
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.assess.pt_ood import SCORES, FamiliarityScore


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    """The digits 0 to 4: to learn from, to test on; and the others, never told of."""
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 0.1, x.shape)
    x, x_test, y, _ = train_test_split(x, y, test_size=0.3, random_state=0)
    return [x[y < 5], y[y < 5], x_test, x[y >= 5]]


def rest(x: np.ndarray) -> np.ndarray:
    """The rows that are not kept aside for the threshold."""
    return np.random.default_rng(0).permutation(len(x))[round(0.2 * len(x)) :]


def test_knn_is_the_distance_among_features_of_length_1(digits: list[np.ndarray]) -> None:
    x, _, x_test, _ = digits
    ours = FamiliarityScore(k=4).fit(x)
    theirs = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(normalize(x[rest(x)]))
    distance = theirs.kneighbors(normalize(x_test))[0][:, -1]
    np.testing.assert_allclose(ours.score_samples(x_test), -distance, atol=1e-6)
    np.testing.assert_allclose(FamiliarityScore(k=4).fit(7 * x).score_samples(7 * x_test), -distance, atol=1e-6)
    np.testing.assert_allclose(FamiliarityScore(k=1).fit(x).score_samples(x[rest(x)]), 0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_a_classifier(digits: list[np.ndarray], classes: int) -> None:
    x, y, x_test, _ = digits
    x, y = x[y < classes], y[y < classes]
    probe = LinearProbe().fit(x[rest(x)], y[rest(x)])
    logits = probe.decision_function(x_test)
    logits = np.stack([-logits, logits], 1) / 2 if classes == 2 else logits - logits.mean(1, keepdims=True)
    told = {"msp": probe.predict_proba(x_test).max(1), "max-logit": logits.max(1), "energy": logsumexp(logits, 1)}
    for by, score in told.items():
        np.testing.assert_allclose(FamiliarityScore(by=by).fit(x, y).score_samples(x_test), score, rtol=1e-6, atol=1e-9)


def test_mahalanobis_shares_one_covariance(digits: list[np.ndarray]) -> None:
    x, y, x_test, _ = digits
    known, of = x[rest(x)], y[rest(x)]
    means = np.stack([known[of == c].mean(0) for c in range(5)])
    inverse = np.linalg.inv(np.cov((known - means[of]).T, bias=True))
    away = x_test[:, None] - means
    told = -np.einsum("ncd,de,nce->nc", away, inverse, away).min(1)
    np.testing.assert_allclose(FamiliarityScore(by="mahalanobis").fit(x, y).score_samples(x_test), told, rtol=1e-6)


def test_directions_that_never_varied_do_not_blow_up(digits: list[np.ndarray]) -> None:
    x, y, x_test, _ = digits
    wide, wide_test = (np.concatenate([v, np.ones((len(v), 1)), v[:, :3]], 1) for v in (x, x_test))
    a, b = (FamiliarityScore(by="mahalanobis").fit(v, y) for v in (x, wide))
    np.testing.assert_allclose(b.score_samples(wide_test), a.score_samples(x_test), rtol=1e-6)


def test_vim_is_the_energy_less_the_virtual_logit(digits: list[np.ndarray]) -> None:
    x, y, x_test, _ = digits
    known, of = x[rest(x)], y[rest(x)]
    probe = LinearProbe().fit(known, of)
    four = np.eye(5)[:4] - 1 / 5  # the logits of five classes, less their mean, have four degrees of freedom
    origin = -np.linalg.pinv(four @ probe.coef_) @ four @ probe.intercept_
    _, _, axes = np.linalg.svd(known - origin, full_matrices=False)

    def residual(v: np.ndarray) -> np.ndarray:
        inside = (v - origin) @ axes[:20].T @ axes[:20]
        return np.linalg.norm(v - origin - inside, axis=1)

    def logits(v: np.ndarray) -> np.ndarray:
        told = probe.decision_function(v)
        return told - told.mean(1, keepdims=True)

    alpha = logits(known).max(1).mean() / residual(known).mean()
    told = logsumexp(logits(x_test), 1) - alpha * residual(x_test)
    np.testing.assert_allclose(FamiliarityScore(by="vim", axes=20).fit(x, y).score_samples(x_test), told, rtol=1e-5)


@pytest.mark.parametrize("by", ["knn", "energy", "mahalanobis", "vim"])
def test_it_is_pytorch_oods(digits: list[np.ndarray], by: str) -> None:
    detector = pytest.importorskip("pytorch_ood.detector")  # it needs torchvision, which the project does without
    x, y, _, strange = digits
    known, of = torch.tensor(x[rest(x)], dtype=torch.float32), torch.from_numpy(y[rest(x)])
    ours = FamiliarityScore(by=by, axes=20).fit(x, y)
    if by == "energy":
        theirs = detector.EnergyBased.score(torch.from_numpy(strange @ ours.coef_.T + ours.intercept_))
    else:
        if by == "vim":
            made = detector.ViM(None, 20, torch.from_numpy(ours.coef_), torch.from_numpy(ours.intercept_))
        else:
            made = detector.KNN(None, k=5) if by == "knn" else detector.Mahalanobis(None)
        theirs = made.fit_features(known, of).predict_features(torch.tensor(strange, dtype=torch.float32))
    scale = 2 * len(known) if by == "mahalanobis" else 1  # theirs is half of it, and the scatter not divided by n
    told = ours.score_samples(strange)
    np.testing.assert_allclose(-scale * theirs.double().numpy(), told, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("by", SCORES)
def test_scores_depend_on_the_sample_alone_and_find_strangers(digits: list[np.ndarray], by: str) -> None:
    x, y, x_test, strange = digits
    found = FamiliarityScore(by=by).fit(x, y)
    alone, among = found.score_samples(x_test[:5]), found.score_samples(np.concatenate([x_test[:5], strange]))[:5]
    np.testing.assert_allclose(alone, among, rtol=1e-6)
    familiar = found.score_samples(x)
    truth = np.repeat([1, 0], [len(x), len(strange)])
    assert roc_auc_score(truth, np.concatenate([familiar, found.score_samples(strange)])) > 0.8
    assert abs(roc_auc_score(np.arange(len(x)) % 2, familiar) - 0.5) < 0.06


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_rate_of_false_alarms_is_kept_on_new_samples(rate: float) -> None:
    rng, alarms = np.random.default_rng(0), []
    for seed in range(60):
        x = rng.normal(size=(300, 8)) + 1
        found = FamiliarityScore(false_alarms=rate, calibrate=0.5, random_state=seed).fit(x)
        assert rate - 1 / 151 < found.promised_ <= rate
        alarms.append(np.mean(found.predict(rng.normal(size=(300, 8)) + 1) == -1))
    assert rate * 0.7 < np.mean(alarms) <= rate * 1.1  # the promise is one on average: the mean of 60 deviates by 3 %


@pytest.mark.parametrize("by", SCORES)
def test_fitting_and_judging_at_once_hears_the_labels_and_the_sample_at_the_threshold_is_familiar(
    digits: list[np.ndarray], by: str
) -> None:
    x, y, *_ = digits
    at_once = FamiliarityScore(by=by).fit_predict(x, y)
    found = FamiliarityScore(by=by).fit(x, y)
    np.testing.assert_array_equal(at_once, [found.predict(row[None])[0] for row in x])  # rounded otherwise one by one
    aside = np.setdiff1d(np.arange(len(x)), rest(x))
    assert np.mean(at_once[aside] == -1) < found.promised_
    assert found.decision_function(x[aside]).min() < 0


def test_few_samples_promise_what_they_can() -> None:
    found = FamiliarityScore(calibrate=0.5).fit(np.random.default_rng(0).normal(size=(18, 3)))
    assert found.promised_ == pytest.approx(0.1)


def test_bad_requests_are_refused(digits: list[np.ndarray]) -> None:
    x, y, _, _ = digits
    with pytest.raises(RequestError, match="by 'energy' requires y to be passed"):
        FamiliarityScore(by="energy").fit(x)
    with pytest.raises(RequestError, match="Did you mean mahalanobis"):
        FamiliarityScore(by="mahalanobi").fit(x, y)
    with pytest.raises(RequestError, match="between 0 and 1"):
        FamiliarityScore(false_alarms=1.5).fit(x)
