import numpy as np
import pytest
import torch

from headwater.core.types import alone
from headwater.methods.agree import vicreg
from headwater.parts.losses import variance_invariance_covariance as terms
from headwater.parts.views import CentreCrop, Chain, Solarise
from tests.small import batch, convnet, step


def test_invariance_is_the_mean_squared_difference():
    a = torch.randn(6, 3)
    assert float(terms(a, a + 2.0, alone, 25.0, 0.0, 0.0)) == pytest.approx(25 * 4, rel=1e-5)


def test_variance_is_a_hinge_on_the_deviation_of_each_feature():
    still = torch.ones(6, 3)
    assert float(terms(still, still, alone, 0.0, 25.0, 0.0)) == pytest.approx(25 * (1 - 1e-2))  # sqrt(0 + 1e-4)
    wide = torch.tensor([[-2.0], [2.0]])
    assert float(terms(wide, wide, alone, 0.0, 25.0, 0.0)) == 0.0
    assert float(terms(wide, still[:2, :1], alone, 0.0, 25.0, 0.0)) == pytest.approx(25 * 0.99 / 2)


def test_covariance_is_what_two_features_share():
    column = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])  # variance 4/3
    twice = column.expand(-1, 2)
    assert float(terms(twice, twice, alone, 0.0, 0.0, 1.0)) == pytest.approx(2 * 2 * (4 / 3) ** 2 / 2)
    other = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    apart = torch.cat([column, other], 1)
    assert float(terms(apart, apart, alone, 0.0, 0.0, 1.0)) == pytest.approx(0.0, abs=1e-6)


def by_numpy(a: np.ndarray, b: np.ndarray, invariance: float, variance: float, covariance: float) -> float:
    value = invariance * ((a - b) ** 2).mean()
    for z in (a, b):
        value += variance * np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() / 2
        cov = np.cov(z, rowvar=False)
        value += covariance * (cov[~np.eye(len(cov), dtype=bool)] ** 2).sum() / z.shape[1]
    return float(value)


def test_it_equals_a_recomputation():
    a, b = torch.randn(10, 4) * 0.7, torch.randn(10, 4) + 1
    assert float(terms(a, b, alone)) == pytest.approx(by_numpy(a.numpy(), b.numpy(), 25, 25, 1), rel=1e-5)


def test_each_weight_reaches_its_own_term():
    torch.manual_seed(0)
    views = (CentreCrop(16, 1.0), Chain(CentreCrop(16, 1.0), Solarise(p=1.0)))
    config = vicreg.Config(views=views, expander=(16, 8), invariance=3.0, variance=5.0, covariance=7.0)
    method = config.build({"image": convnet()}).eval()
    x = batch().x["image"]
    with torch.no_grad():
        a, b = (method.expander(method.encoder(v(x, step().rng)).pooled).numpy() for v in views)
    assert float(method(batch(), step()).value.detach()) == pytest.approx(by_numpy(a, b, 3, 5, 7), rel=1e-4)


def test_the_published_expander_has_three_layers_of_8192():
    assert vicreg.Config().expander == (8192,) * 3
    sizes = [m.out_features for m in vicreg.TINY.build({"image": convnet()}).expander if isinstance(m, torch.nn.Linear)]
    assert sizes == list(vicreg.TINY.expander)
