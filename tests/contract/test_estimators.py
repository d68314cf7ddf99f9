"""Every estimator keeps scikit-learn's contract."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

from headwater.methods.assess.dis_vs_gen import NaiveBayes
from headwater.methods.assess.knn import KNN
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.assess.nmc import NMC
from headwater.methods.assess.pt_ood import FamiliarityScore
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
    FamiliarityScore(),
]

REFUSED = {
    FeTrIL: {"check_fit_score_takes_y": "calls partial_fit with the classes of fit, whose features FeTrIL has let go"},
    SLCA: {"check_fit_score_takes_y": "calls partial_fit with the classes of fit, whose features SLCA has let go"},
}


@pytest.fixture(autouse=True)
def unchecked_types() -> Iterator[None]:
    """The checks hand over wrong types on purpose: the estimator has to answer, not its annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: REFUSED.get(type(estimator), {}))
def test_keeps_the_contract_of_scikit_learn(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(estimator)
