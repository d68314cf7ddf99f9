"""Active learning among outliers: certainty, contradiction and filtering are what the paper says; labels go where they help."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.verbs import Known
from headwater.methods.curate import active_outliers
from headwater.methods.curate.active_outliers import ActiveOutliers, best, certainty, variation_ratio
from headwater.parts.ensemble import Ensemble, shuffled, train
from headwater.parts.kmeans import Held

NAMES = ("a", "b", "c", "outlier")
QUICK = ActiveOutliers(hidden=(32,), least=150, rate=3e-3, batch=8, pseudo=0)


@pytest.fixture(scope="module")
def pool() -> tuple[Held, Tensor]:
    """Digits: 0, 1 and 2 are wanted, the others are not."""
    x, y = load_digits(return_X_y=True)
    return Held(torch.tensor(x[:600] / 16, dtype=torch.float32)), torch.tensor(y[:600]).clamp(max=3)


def some(y: Tensor, each: int, classes: tuple[int, ...] = (0, 1, 2, 3)) -> Known:
    known = torch.full_like(y, -1)
    for k in classes:
        known[(y == k).nonzero()[:each, 0]] = k
    return Known(known, NAMES)


def test_certainty_is_one_minus_the_share_of_the_greatest_entropy() -> None:
    p = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]])
    bits = -sum(q * math.log2(q) for q in (0.7, 0.1, 0.1, 0.1))
    torch.testing.assert_close(certainty(p), torch.tensor([1.0, 0.0, 0.5, 1 - bits / 2]))


def test_the_variation_ratio_counts_members_that_contradict() -> None:
    votes = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 2], [0, 1, 0], [0, 0, 1]])  # members, items
    chances = torch.nn.functional.one_hot(votes, 3).float()
    torch.testing.assert_close(variation_ratio(chances), torch.tensor([0.0, 0.4, 0.4]))
    sure = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])  # the mean decides, not the majority
    assert variation_ratio(sure).item() == pytest.approx(2 / 3)
    assert (variation_ratio(torch.rand(1, 50, 4)) == 0).all()


def test_the_best_are_taken_and_equals_drawn() -> None:
    score = torch.tensor([0.0, 0.4, 0.0, 0.2, 0.0, -1.0, 0.0])
    assert best(score, 2, Rng(0)).tolist() == [1, 3]
    drawn = [best(score, 3, Rng(s)).tolist() for s in range(40)]
    assert all({1, 3} < {*d} and 5 not in d for d in drawn)
    assert {i for d in drawn for i in d} == {0, 1, 2, 3, 4, 6}


def test_copies_differ_by_their_order_alone() -> None:
    x = torch.rand(40, 5)
    ensemble = Ensemble((5, 8, 3), 3, Rng(0))
    before = ensemble.chances(x)
    torch.testing.assert_close(before[0], before[2])
    y = torch.randint(3, (40,))

    def run(drawn: Tensor) -> Tensor:
        made = Ensemble((5, 8, 3), 3, Rng(0))
        train(made, lambda s: (x[drawn], y[drawn], torch.ones(drawn.shape)), 20, 1e-2)
        return made.chances(x)

    same = run(torch.arange(40).expand(3, 40))
    torch.testing.assert_close(same[0], same[1])
    apart = run(shuffled(40, 3, 10, Rng(1))(0))
    assert (apart[0] - apart[1]).abs().max() > 0.05
    alone = Ensemble((5, 8, 3), 1, Rng(0))  # a member learns as if it were alone
    train(alone, lambda s: (x[None], y[None], torch.ones(1, 40)), 20, 1e-2)
    torch.testing.assert_close(alone.chances(x)[0], same[1], rtol=1e-4, atol=1e-5)


def test_every_member_goes_through_all_in_orders_of_its_own() -> None:
    draw = shuffled(10, 2, 4, Rng(0))
    seen = torch.cat([draw(s) for s in range(5)], 1)
    for member in seen:
        assert sorted(member[:10].tolist()) == sorted(member[10:].tolist()) == [*range(10)]
    assert not torch.equal(seen[0], seen[1])


def test_weights_count_in_the_mean() -> None:
    x, y = torch.rand(1, 6, 4), torch.randint(3, (1, 6))
    weight = torch.tensor([[1.0, 0, 0.5, 1, 0, 0.25]])
    made = Ensemble((4, 3), 1, Rng(0))
    torch.nn.functional.cross_entropy(made(x)[0], y[0], reduction="none").mul(weight[0]).mean().backward()
    expected = made.weight[0].grad
    again = Ensemble((4, 3), 1, Rng(0))
    train(again, lambda s: (x, y, weight), 1, 1e-3)
    torch.testing.assert_close(again.weight[0].grad, expected)


def test_what_is_taken_for_an_outlier_comes_last(pool: tuple[Held, Tensor]) -> None:
    x, y = pool
    labels = some(y, 15)
    made = QUICK.select(x, 40, Rng(0), labels)
    score, group = made.columns["score"], made.columns["group"]
    known = labels.classes >= 0
    assert (score[known] == -1).all() and torch.equal(group[known], labels.classes[known])
    assert (score[~known & (group == 3)] == 0).all() and (score > 0).any()
    fifths = score[~known] * 5
    torch.testing.assert_close(fifths, fifths.round())
    assert len(made.kept) == 40 and not known[made.kept].any()
    positive = int((score > 0).sum())
    least = min(40, positive)
    assert (score[made.kept] > 0).sum() == least
    assert ((group == y) & ~known).sum() / (~known).sum() > 0.75


def test_rejected_items_that_are_not_trained_are_spent_all_the_same(pool: tuple[Held, Tensor]) -> None:
    x, y = pool
    apart = ActiveOutliers(joint=False, hidden=(32,), least=150, rate=3e-3, batch=8, pseudo=0)
    with_them, without = some(y, 10), some(y, 10, (0, 1, 2))
    a, unit = apart.fitted(x, with_them, Rng(0))
    b, _ = apart.fitted(x, without, Rng(0))
    torch.testing.assert_close(a.chances(unit(x.x)), b.chances(unit(x.x)))
    assert a.chances(unit(x.x)).shape[2] == 3
    assert not (with_them.classes[apart.select(x, 500, Rng(0), with_them).kept] >= 0).any()


def test_a_constant_on_the_outlier_logit_leaves_the_wanted_as_they_are(pool: tuple[Held, Tensor]) -> None:
    x, y = pool
    ensemble, unit = QUICK.fitted(x, some(y, 10), Rng(0))
    before = ensemble.chances(unit(x.x))
    with torch.no_grad():
        ensemble.bias[-1][:, :, -1] += 3
    after = ensemble.chances(unit(x.x))
    assert torch.equal(before[..., :3].argmax(2), after[..., :3].argmax(2)) and not torch.allclose(before, after)


def test_guesses_weigh_in(pool: tuple[Held, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pool
    more = ActiveOutliers(hidden=(32,), least=150, rate=3e-3, batch=8, pseudo=20)
    taught, unit = more.fitted(x, some(y, 5), Rng(0))
    monkeypatch.setattr(active_outliers, "certainty", lambda p: torch.zeros(len(p)))
    plain, _ = more.fitted(x, some(y, 5), Rng(0))  # as many steps, but the guesses weigh nothing
    sure = [certainty(e.chances(unit(x.x)).mean(0)).mean() for e in (plain, taught)]
    assert sure[1] > sure[0] + 0.03  # members are drawn to what they agreed on


def test_bad_requests(pool: tuple[Held, Tensor]) -> None:
    x, y = pool
    with pytest.raises(RequestError, match="needs a budget"):
        QUICK.select(x, None, Rng(0), some(y, 5))
    with pytest.raises(RequestError, match="needs labels of some items"):
        QUICK.select(x, 5, Rng(0))
    with pytest.raises(RequestError, match="A budget of 590 items is above the pool, 580 without a label"):
        QUICK.select(x, 590, Rng(0), some(y, 5))
    with pytest.raises(RequestError, match="two wanted classes or more; got 1"):
        QUICK.select(x, 5, Rng(0), some(y, 5, (1, 3)))
    with pytest.raises(RequestError, match="Did you mean random"):
        ActiveOutliers(acquire="randm")
    drawn = ActiveOutliers(acquire="random").select(x, 7, Rng(0), some(y, 5, (1,)))
    assert len(drawn.kept) == 7
