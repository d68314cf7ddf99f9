"""Near-duplicates: no twin is missed, whatever the cells and the pieces; one of each stays; a budget is met exactly."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.methods.curate import near_duplicates
from headwater.methods.curate.near_duplicates import NearDuplicates
from headwater.parts.kmeans import Held


@pytest.fixture
def crowd() -> Float[Tensor, "n d"]:
    """Items in twelve dimensions, many with twins far off in the order."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(900, 12, generator=g) + 1
    x[600:800] = x[:200] * 3 + 0.3 * torch.randn(200, 12, generator=g)
    x[850] = x[3]
    return x[torch.randperm(900, generator=g)]


def plainly(x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    unit = normalize(x, dim=1)
    similar = (unit @ unit.T).masked_fill(torch.ones(len(x), len(x)).triu().bool(), -2)
    return similar.max(1)


@pytest.mark.parametrize("threshold", [0.9, 0.98, 1.0])
def test_no_twin_is_missed(crowd: Tensor, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "PER_CELL", 60)  # fifteen cells
    similar, twin = plainly(crowd)
    made = NearDuplicates(threshold=threshold, rows=170).select(Held(crowd, rows=130), None, Rng(0))
    dropped = similar >= threshold - near_duplicates.ROUNDING
    assert 0 < dropped.sum() < 800
    assert torch.equal(made.kept, (~dropped).nonzero()[:, 0])
    assert torch.equal(made.columns["twin"], torch.where(dropped, twin, -1))
    torch.testing.assert_close(made.columns["similarity"], torch.where(dropped, similar, -1.0), rtol=0, atol=1e-5)


def test_one_of_each_stays_and_length_does_not_matter(crowd: Tensor) -> None:
    copies = torch.cat([crowd, 5 * crowd, crowd])
    made = NearDuplicates(threshold=1.0).select(Held(copies), None, Rng(0))
    assert made.kept.max() < 900 and set(made.columns["twin"][900:].tolist()) <= {*range(1800)}
    first = made.columns["twin"]
    for i in (950, 2000, 2699):  # from twin to twin one comes to an item that stayed
        while first[i] >= 0:
            assert first[i] < i
            i = int(first[i])
        assert i in made.kept


@pytest.mark.parametrize("budget", [895, 600, 90, 1])
def test_a_budget_is_met_by_dropping_the_most_similar(crowd: Tensor, budget: int) -> None:
    similar, _ = plainly(crowd)
    made = NearDuplicates().select(Held(crowd), budget, Rng(0))
    expected = similar.sort(descending=True, stable=True).indices[900 - budget :].sort().values
    assert torch.equal(made.kept, expected)


def test_flat_vectors_are_no_twins_and_thresholds_are_cosines() -> None:
    made = NearDuplicates().select(Held(torch.zeros(5, 3)), None, Rng(0))
    assert len(made.kept) == 5
    with pytest.raises(RequestError, match="at most 1"):
        NearDuplicates(threshold=1.5)
    with pytest.raises(RequestError, match="NaN"):
        Held(torch.full((5, 3), torch.nan))
