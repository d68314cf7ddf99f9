"""Masks: exact counts, the promised shapes, honest with what is not valid, the same on every shard."""

from dataclasses import replace

import pytest
import torch

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.parts.masks import (
    BlockMask,
    GivenMask,
    MultiBlock,
    RandomMask,
    ScoreMask,
    SpanMask,
    TubeMask,
    VaryingRatio,
    hide,
    where_hidden,
)

GRID = (6, 6)
SAMPLERS = [
    (RandomMask(0.75), GRID),
    (RandomMask(0.5, unit=2), GRID),
    (BlockMask(0.3), GRID),
    (TubeMask(0.5), (3, 4, 4)),
    (SpanMask(0.5, length=3), (2, 20)),
    (GivenMask(tuple(i % 3 == 0 for i in range(36))), GRID),
    (VaryingRatio(RandomMask(0.5), (0.2, 0.6)), GRID),
]


@pytest.mark.parametrize(("sampler", "grid"), SAMPLERS, ids=lambda v: type(v).__name__)
def test_every_position_is_seen_or_hidden_once(sampler, grid):
    mask = sampler(5, grid, Rng(0))
    both = torch.cat([mask.keep, mask.drop], 1).sort(1).values
    assert torch.equal(both, torch.arange(both.shape[1]).expand(5, -1))
    assert both.shape[1] == torch.Size(grid).numel()
    assert mask.keep.shape[1] > 0
    assert mask.drop.shape[1] > 0


@pytest.mark.parametrize(("sampler", "grid"), SAMPLERS, ids=lambda v: type(v).__name__)
def test_shards_hold_the_rows_of_the_whole(sampler, grid):
    whole = sampler(6, grid, Rng(3))
    for shard in range(2):
        part = sampler(3, grid, Rng(3, shard=shard, shards=2))
        rows = slice(3 * shard, 3 * shard + 3)
        assert torch.equal(where_hidden(part), where_hidden(whole)[rows])


@pytest.mark.parametrize("ratio", [0.1, 0.6, 0.75, 0.9])
def test_random_counts_are_exact_and_samples_differ(ratio):
    mask = RandomMask(ratio)(32, (14, 14), Rng(1))
    assert mask.drop.shape == (32, int(196 * ratio))
    assert len(torch.unique(where_hidden(mask), dim=0)) == 32


def test_random_masks_hide_every_position_equally_often():
    share = where_hidden(RandomMask(0.25)(4000, (4, 4), Rng(1))).float().mean(0)
    assert (share - 0.25).abs().max() < 0.035  # five standard errors


def test_units_are_hidden_as_a_whole():
    hidden = where_hidden(RandomMask(0.5, unit=2)(8, (6, 8), Rng(1))).view(8, 3, 2, 4, 2)
    assert torch.equal(hidden, hidden[:, :, :1, :, :1].expand_as(hidden))
    assert (hidden.flatten(1).sum(1) == 24).all()
    with pytest.raises(RequestError, match="units of 2 do not divide"):
        RandomMask(0.5, unit=2)(8, (5, 4), Rng(1))


def test_blocks_are_boxes_of_about_the_asked_size():
    for seed in range(20):
        hidden = where_hidden(BlockMask(0.3)(16, (14, 14), Rng(seed))).view(16, 14, 14)
        rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
        assert torch.equal(rows * columns, hidden.flatten(1).sum(1))  # as many as its bounding box holds
        assert 0.2 < float(hidden.float().mean()) < 0.4
        assert len(torch.unique(rows)) == 1  # one size per batch, so that counts are equal


def test_tubes_are_the_same_at_every_time():
    hidden = where_hidden(TubeMask(0.5)(4, (5, 4, 4), Rng(0))).view(4, 5, 16)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert (hidden.sum(2) == 8).all()


def test_spans_have_their_length():
    """Inside a row every run of hidden places is a number of whole spans, but for the one span that makes the count."""
    n, length = 200, 5
    hidden = where_hidden(SpanMask(0.4, length)(16, (n,), Rng(0)))
    assert (hidden.sum(1) == 80).all()
    for row in hidden.tolist():
        text = "".join("x" if h else "." for h in row).strip("x")  # runs at an edge may be cut by the phase
        runs = [len(run) for run in text.split(".") if run]
        assert sum(run % length != 0 for run in runs) <= 1
        assert sum(runs) > 50


def test_scores_decide_as_far_as_greed_goes():
    score = torch.rand(8, 40, generator=torch.Generator().manual_seed(0))
    top = score.argsort(1, descending=True)[:, :20]
    greedy = where_hidden(ScoreMask(0.5).pick(score, Rng(0)))
    assert greedy.gather(1, top).all()
    half = where_hidden(ScoreMask(0.5, greed=0.5).pick(score, Rng(1)))
    assert half.gather(1, top[:, :10]).all()
    assert not half.gather(1, top[:, 10:]).all()
    assert (half.sum(1) == 20).all()


def test_given_masks_are_taken_as_given():
    hidden = (True, False, False, True, False, False)
    mask = GivenMask(hidden)(3, (2, 3), Rng(0))
    assert torch.equal(where_hidden(mask), torch.tensor(hidden).expand(3, -1))
    with pytest.raises(RequestError, match="names 6 positions"):
        GivenMask(hidden)(3, (2, 4), Rng(0))


@pytest.mark.parametrize("sampler", [RandomMask(0.75), RandomMask(0.5), BlockMask(0.3), SpanMask(0.5, 2)])
def test_a_share_of_the_valid_is_hidden_and_nothing_valid_is_lost(sampler):
    valid = torch.arange(16) < torch.tensor([16, 12, 5, 1, 0])[:, None]
    mask = sampler(5, (16,), Rng(2), valid)
    n_drop = mask.drop.shape[1]
    hidden = (where_hidden(mask) & valid).sum(1)
    assert torch.equal(hidden, valid.sum(1) * n_drop // 16)
    both = torch.cat([mask.keep, mask.drop], 1).sort(1).values
    assert torch.equal(both, torch.arange(16).expand(5, -1))


def test_hiding_takes_the_highest_scores():
    score = torch.tensor([[0.1, 0.9, 0.5, 0.7]])
    assert sorted(hide(score, 2).drop[0].tolist()) == [1, 3]


def test_varying_ratios_stay_within_their_range_and_vary():
    counts = {VaryingRatio(RandomMask(0.9), (0.1, 0.5))(2, (10, 10), Rng(s)).drop.shape[1] for s in range(40)}
    assert min(counts) >= 10
    assert max(counts) < 50
    assert len(counts) > 10


def test_multi_block_targets_are_boxes_that_no_context_touches():
    for seed in range(10):
        context, target = MultiBlock()(8, (14, 14), Rng(seed))
        flags = torch.zeros(8, 4, 196, dtype=torch.bool).scatter(2, target, True).view(8, 4, 14, 14)
        size = flags.any(3).sum(2) * flags.any(2).sum(2)
        assert (size == target.shape[2]).all()
        assert 0.12 < target.shape[2] / 196 < 0.23
        assert not flags.flatten(2).any(1).gather(1, context).any()
        assert all(len(set(row)) == len(row) for row in context.tolist())


@pytest.mark.parametrize("grid", [(4, 4), (13,), (2, 4, 4)])
def test_multi_block_keeps_a_context_on_small_grids(grid):
    sampler = MultiBlock(min_context=0.25)
    n = torch.Size(grid).numel()
    for seed in range(5):
        context, target = sampler(256, grid, Rng(seed))
        assert context.shape[1] >= n / 4
        hit = torch.zeros(256, n, dtype=torch.bool).scatter(1, target.flatten(1), True)
        assert not hit.gather(1, context).any()
    with pytest.raises(RequestError, match="leave a context of"):
        replace(sampler, min_context=0.95)(4, grid, Rng(0))


def test_multi_block_shards_hold_the_rows_of_the_whole():
    whole = MultiBlock()(6, (8, 8), Rng(3))
    for shard in range(2):
        part = MultiBlock()(3, (8, 8), Rng(3, shard=shard, shards=2))
        assert all(torch.equal(p, w[3 * shard : 3 * shard + 3]) for p, w in zip(part, whole, strict=True))


@pytest.mark.parametrize("make", [RandomMask, BlockMask, TubeMask, lambda r: SpanMask(r, 2), ScoreMask])
@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.2, 1.5])
def test_a_ratio_lies_strictly_between_0_and_1(make, ratio):
    with pytest.raises(RequestError, match="strictly between 0 and 1"):
        make(ratio)


def test_a_mask_that_hides_nothing_says_so():
    with pytest.raises(RequestError, match="hides 0 of 4 positions"):
        RandomMask(0.2)(2, (2, 2), Rng(0))
