"""Every estimator keeps scikit-learn's contract."""

from collections.abc import Callable, Iterator

import jaxtyping
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from headwater.api import assess, continual
from headwater.methods.assess.dis_vs_gen import NaiveBayes
from headwater.methods.assess.knn import KNN
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.assess.nmc import NMC
from headwater.methods.assess.pt_ood import SCORES, FamiliarityScore
from headwater.methods.continual.fetril import FeTrIL
from headwater.methods.continual.slca import SLCA
from headwater.methods.continual.teen import TEEN

ESTIMATORS = [
    NaiveBayes(),
    LinearProbe(),
    KNN(),
    KNN(metric="euclidean", weights="uniform"),
    NMC(),
    TEEN(),
    FeTrIL(),
    SLCA(),
    *(FamiliarityScore(by=by) for by in SCORES),
]


def refused(estimator: BaseEstimator) -> dict[str, str]:
    """The checks that cannot hold, and why; each class documents its own."""
    if isinstance(estimator, FeTrIL | SLCA):
        return {"check_fit_score_takes_y": "calls partial_fit with the classes of fit, whose features are gone"}
    if isinstance(estimator, FamiliarityScore) and estimator.by != "knn":
        return dict.fromkeys(("check_outliers_train", "check_outliers_fit_predict"), "give no labels, which it needs")
    return {}


def test_every_public_estimator_is_checked_and_documents_what_it_refuses() -> None:
    public = {getattr(module, name) for module in (assess, continual) for name in module.__all__ if name != "sessions"}
    assert public == {type(estimator) for estimator in ESTIMATORS}
    for estimator in ESTIMATORS:
        said = f"{type(estimator).__doc__} {continual.__doc__}"
        assert all(check in said for check in refused(estimator)), estimator


@pytest.fixture(autouse=True)
def unchecked_types() -> Iterator[None]:
    """The checks hand over wrong types on purpose: the estimator has to answer, not its annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=refused)
def test_keeps_the_contract_of_scikit_learn(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if is_classifier(e)], ids=str)
def test_a_class_of_one_sample_is_learned(estimator: BaseEstimator) -> None:
    x = np.random.default_rng(0).normal(size=(41, 4))
    y = np.repeat([0, 1, 2], [20, 20, 1])
    x[np.arange(41), y] += 20
    found = clone(estimator).fit(x, y)
    assert list(found.classes_) == [0, 1, 2] and np.mean(found.predict(x) == y) > 0.9
