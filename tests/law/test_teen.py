"""TEEN: new classes borrow from base classes, base classes change by no bit, and it pays."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize

from headwater.core.errors import RequestError
from headwater.methods.continual.teen import TEEN
from headwater.parts.prototypes import calibrated


def session(seed: int, classes: range, each: int = 6, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.array(classes), each)
    return np.random.default_rng(99).standard_normal((60, d))[y] + 0.5 * rng.standard_normal((len(y), d)), y


def taught(alpha: float = 0.5, tau: float = 16.0) -> TEEN:
    return TEEN(alpha, tau).fit(*session(0, range(8))).partial_fit(*session(1, range(8, 12)))


def test_alpha_0_is_the_cosine_to_the_plain_means() -> None:
    teen, query = taught(alpha=0.0), session(2, range(12))[0]
    (x, y), (x_new, y_new) = session(0, range(8)), session(1, range(8, 12))
    means = np.stack([x[y == c].mean(0) for c in range(8)] + [x_new[y_new == c].mean(0) for c in range(8, 12)])
    np.testing.assert_allclose(teen.decision_function(query), normalize(query) @ normalize(means).T, atol=1e-12)


def test_alpha_1_stays_in_the_span_of_the_base() -> None:
    teen = TEEN(1.0).fit(*session(0, range(5))).partial_fit(*session(1, range(5, 8)))
    base, new = teen.rows_[teen.base_], teen.rows_[~teen.base_]
    assert np.linalg.matrix_rank(np.concatenate([base, new])) == 5


def test_rows_that_exist_keep_their_bits() -> None:
    teen = taught()
    before = teen.rows_.copy()
    teen.partial_fit(*session(3, range(20, 22))).partial_fit(*session(3, range(12, 14)))
    assert np.array_equal(teen.rows_[:12], before)
    assert list(teen.classes_) == [*range(14), 20, 21] and teen.base_.sum() == 8


def test_only_the_base_lends() -> None:
    late = taught().partial_fit(*session(3, range(20, 22)))
    straight = TEEN().fit(*session(0, range(8))).partial_fit(*session(3, range(20, 22)))
    assert np.array_equal(late.rows_[-2:], straight.rows_[-2:])


def test_tau_runs_from_the_mean_of_the_base_to_the_nearest() -> None:
    g = torch.Generator().manual_seed(0)
    new, base = torch.randn(3, 12, generator=g).double(), torch.randn(7, 12, generator=g).double()
    unit = torch.nn.functional.normalize(base, dim=1)
    nearest = unit[(torch.nn.functional.normalize(new, dim=1) @ unit.T).argmax(1)]
    assert torch.allclose(calibrated(new, base, 1.0, 1e6), nearest)
    assert torch.allclose(calibrated(new, base, 1.0, 0.0), torch.nn.functional.normalize(unit.mean(0, True), dim=1))


def test_lengths_and_the_order_of_the_base_do_not_matter() -> None:
    g = torch.Generator().manual_seed(1)
    new, base = torch.randn(3, 12, generator=g).double(), torch.randn(7, 12, generator=g).double()
    rows = calibrated(new, base, 0.5, 16.0)
    lengths = torch.rand(7, 1, generator=g).double() + 0.1
    assert torch.allclose(calibrated(5 * new, base * lengths, 0.5, 16.0), rows)
    assert torch.allclose(calibrated(new, base.flip(0), 0.5, 16.0), rows)


def test_the_base_session_may_come_in_pieces_until_the_first_new_class() -> None:
    x, y = session(0, range(8))
    pieces = TEEN().partial_fit(x[::2], y[::2]).partial_fit(x[1::2], y[1::2])
    np.testing.assert_allclose(pieces.rows_, TEEN().fit(x, y).rows_)
    with pytest.raises(RequestError, match=r"only new classes.*\[3\]"):
        TEEN().fit(x, y).partial_fit(*session(1, range(3, 20, 10)))
    with pytest.raises(RequestError, match="only new classes"):
        taught().partial_fit(x, y)
    with pytest.raises(RequestError, match="alpha"):
        TEEN(alpha=1.5).fit(x, y)


def test_calibration_pays_where_classes_share_structure() -> None:
    """The card's claim at 5 shots: generated features, 60 base and 20 new classes under 10 super-classes."""
    figures = {alpha: np.mean([outcome(alpha, seed) for seed in range(5)], axis=0) for alpha in (0.0, 0.5)}
    (base_0, new_0, lost_0), (base, new, lost) = figures[0.0], figures[0.5]
    assert 2 * base * new / (base + new) >= 2 * base_0 * new_0 / (base_0 + new_0) + 0.08
    assert lost <= lost_0 - 0.15
    assert base_0 - base < 0.06


def outcome(alpha: float, seed: int) -> tuple[float, float, float]:
    """Accuracy on base classes, on new ones, and the share of new samples taken for base ones."""
    rng = np.random.default_rng(seed)
    kin = rng.standard_normal((10, 64))[rng.integers(10, size=80)]
    means = kin + 0.6 * rng.standard_normal((80, 64))

    def draw(classes: range, each: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.array(classes), each)
        return means[y] + 1.6 * rng.standard_normal((len(y), 64)), y

    teen = TEEN(alpha).fit(*draw(range(60), 200)).partial_fit(*draw(range(60, 80), 5))
    (x_base, y_base), (x_new, y_new) = draw(range(60), 20), draw(range(60, 80), 50)
    guess = teen.predict(x_new)
    return float((teen.predict(x_base) == y_base).mean()), float((guess == y_new).mean()), float((guess < 60).mean())
