"""Balanced sampling: k-means is scikit-learn's, budgets are handed down exactly, and rare groups get their share."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.methods.curate.balanced import Balanced, by_size, handed_down, nearest_to
from headwater.parts.kmeans import Held, assign, assigned, gather, kmeans, plus_plus, sample


@pytest.fixture
def uneven() -> tuple[Tensor, Tensor]:
    """Ten groups in eight dimensions, from 1,000 items down to 10."""
    g = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1000, 600, 400, 300, 200, 100, 60, 30, 20, 10])
    group = torch.repeat_interleave(torch.arange(10), sizes)
    x = 6 * torch.randn(10, 8, generator=g)[group] + torch.randn(len(group), 8, generator=g)
    order = torch.randperm(len(group), generator=g)
    return x[order], group[order]


def test_kmeans_is_scikit_learns_in_any_pieces(uneven: tuple[Tensor, Tensor]) -> None:
    x, _ = uneven
    start = x[:7].clone()
    theirs = KMeans(7, init=start.numpy(), n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(x.numpy())
    for rows in (2720, 100):
        ours = kmeans(Held(x, rows), 7, Rng(0), 100, start)
        np.testing.assert_allclose(ours.numpy(), theirs.cluster_centers_, atol=1e-4)
        near, far = assigned(Held(x, rows), ours)
        np.testing.assert_array_equal(near.numpy(), theirs.labels_)
        assert float(far.sum()) == pytest.approx(theirs.inertia_, rel=1e-4)


def test_first_centres_are_apart_and_samples_are_rows(uneven: tuple[Tensor, Tensor]) -> None:
    x, group = uneven
    hit = [len({*group[(x[:, None] == plus_plus(x, 10, Rng(s))).all(2).any(1)].tolist()}) for s in range(8)]
    assert np.mean(hit) > 6.5  # drawn evenly, the ten would come from four groups or so
    at = torch.tensor([3, 99, 100, 2000])
    assert torch.equal(gather(Held(x, 100), at), x[at])
    drawn = sample(Held(x, 100), 50, Rng(0))
    assert len(drawn) == 50 and (drawn[:, None] == x).all(2).any(1).all()
    with pytest.raises(RequestError, match="11 centres was asked for, of 10"):
        kmeans(Held(x[:10]), 11, Rng(0))


def test_budgets_are_handed_down_exactly_and_evenly() -> None:
    parent, size = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 50, 30, 4, 4])
    made = handed_down(torch.tensor([22, 5]), parent, size)
    assert made.tolist() == [2, 10, 10, 2, 3]
    assert handed_down(torch.tensor([82, 8]), parent, size).tolist() == size.tolist()
    assert handed_down(torch.tensor([0, 1]), parent, size).tolist() == [0, 0, 0, 0, 1]


def test_the_closest_of_each_cluster_are_found_in_pieces(uneven: tuple[Tensor, Tensor]) -> None:
    x, _ = uneven
    centres = x[:5].clone()
    near, far = assign(x, centres)
    expected = [x[near == c][far[near == c].argsort()[:6]] for c in range(5)]
    torch.testing.assert_close(nearest_to(Held(x, 90), centres, 6), torch.cat(expected))


@pytest.mark.parametrize("within", ["random", "nearest"])
def test_rare_groups_get_their_share(uneven: tuple[Tensor, Tensor], within: str) -> None:
    x, group = uneven
    made = Balanced(levels=(60, 10), within=within).select(Held(x), 300, Rng(0))
    assert len(made.kept) == 300 and torch.equal(made.kept, made.kept.unique())
    kept = group[made.kept].bincount(minlength=10)
    assert kept.min() >= 5 and kept.max() <= 90  # drawn evenly, the largest would have 110 and the smallest 1
    top = made.columns["group"]
    tops, sizes = top[made.kept].bincount(), top.bincount()
    full = tops == sizes
    assert tops[~full].max() - tops[~full].min() <= 1  # those that have more than they give, give the same


def test_the_nearest_are_nearer_than_those_drawn(uneven: tuple[Tensor, Tensor]) -> None:
    x, _ = uneven
    spread = {}
    for within in ("random", "nearest"):
        made = Balanced(levels=(10,), within=within).select(Held(x), 300, Rng(0))
        cluster = made.columns["cluster"]
        means = torch.stack([x[cluster == c].mean(0) for c in range(10)])
        spread[within] = (x - means[cluster])[made.kept].square().sum(1).mean()
    assert spread["nearest"] < 0.8 * spread["random"]


def test_levels_follow_the_size_and_must_shrink() -> None:
    assert by_size(1797) == (59, 5) and by_size(20) == (1,) and by_size(10**9) == (10_000, 1000, 100, 10)
    with pytest.raises(RequestError, match="each smaller than the one before"):
        Balanced(levels=(10, 10))
    with pytest.raises(RequestError, match="Did you mean nearest"):
        Balanced(within="neares")
    with pytest.raises(RequestError, match="50 clusters were asked for, of 20"):
        Balanced(levels=(50,)).select(Held(torch.rand(20, 2)), 5, Rng(0))
