import torch
from torch import nn

from headwater.parts.ema import Ema


def test_it_follows_by_the_share_that_momentum_leaves():
    fast = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    slow = Ema(fast)
    start = [p.clone() for p in slow.copy.parameters()]
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(torch.randn_like(p))
    slow.follow(fast, 0.9)
    for before, fresh, now in zip(start, fast.parameters(), slow.copy.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * before + 0.1 * fresh)


def test_momentum_one_stands_still_and_zero_copies():
    fast = nn.Linear(2, 2)
    slow = Ema(nn.Linear(2, 2))
    before = slow.copy.weight.clone()
    slow.follow(fast, 1.0)
    assert torch.equal(slow.copy.weight, before)
    slow.follow(fast, 0.0)
    torch.testing.assert_close(slow.copy.weight, fast.weight)


def test_statistics_are_taken_over_as_they_are():
    fast = nn.BatchNorm1d(3)
    slow = Ema(fast)
    fast(torch.randn(8, 3) + 5)
    slow.follow(fast, 0.99)
    assert torch.equal(slow.copy.running_mean, fast.running_mean)
    assert slow.copy.num_batches_tracked == 1


def test_it_is_a_copy_of_its_own_without_gradient():
    fast = nn.Linear(2, 2)
    slow = Ema(fast)
    assert not any(p.requires_grad for p in slow.parameters()) and fast.weight.requires_grad
    x = torch.randn(3, 2, requires_grad=True)
    assert not slow(x).requires_grad
    with torch.no_grad():
        fast.weight.zero_()
    assert slow.copy.weight.abs().sum() > 0
