import math

import pytest
import torch
import torch.nn.functional as F

from headwater.core.rng import Rng
from headwater.core.types import Step, alone
from headwater.parts import losses


def test_nt_xent_equals_a_loop_over_rows():
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    z = [v / v.norm() for v in torch.cat([a, b])]
    total = 0.0
    for i in range(10):
        others = sum(math.exp(float(z[i] @ z[j]) / 0.2) for j in range(10) if j != i)
        total += -math.log(math.exp(float(z[i] @ z[(i + 5) % 10]) / 0.2) / others) / 10
    assert float(losses.nt_xent(a, b, 0.2, alone)) == pytest.approx(total, rel=1e-5)


def test_info_nce_with_groups_equals_a_loop():
    a, b, group = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 0, 2, 0])
    ua, ub = F.normalize(a, dim=1), F.normalize(b, dim=1)
    total = 0.0
    for rows, columns in ((ua, ub), (ub, ua)):
        for i in range(5):
            log_p = (4.0 * columns @ rows[i]).log_softmax(0)
            right = [j for j in range(5) if group[j] == group[i]]
            total -= sum(float(log_p[j]) for j in right) / len(right) / 10
    assert float(losses.info_nce(a, b, 4.0, alone, group)) == pytest.approx(total, rel=1e-5)


def test_info_nce_with_every_row_its_own_group_is_the_plain_one():
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(losses.info_nce(a, b, 4.0, alone, torch.arange(5)), losses.info_nce(a, b, 4.0, alone))


def test_koleo_is_the_mean_log_distance_to_the_nearest():
    x = torch.randn(7, 4)
    z = F.normalize(x, dim=1)
    near = [min(float((z[i] - z[j]).norm()) for j in range(7) if j != i) for i in range(7)]
    assert float(losses.koleo(x, alone)) == pytest.approx(-sum(map(math.log, near)) / 7, abs=1e-4)


def test_koleo_pushes_neighbours_apart():
    x = torch.tensor([[1.0, 0.05], [1.0, -0.05], [-1.0, 0.0]], requires_grad=True)
    losses.koleo(x, alone).backward()
    assert x.grad[0, 1] < 0 < x.grad[1, 1]  # a step against the gradient widens the gap
    same = torch.ones(3, 2)
    assert losses.koleo(same, alone).isfinite()


def test_sinkhorn_uses_every_prototype_alike():
    scores = torch.randn(12, 4)
    few, many = (losses.sinkhorn(scores, 0.3, Step(Rng(0)), rounds) for rounds in (3, 60))
    for q in (few, many):
        torch.testing.assert_close(q.sum(1), torch.ones(12))
    torch.testing.assert_close(many.sum(0), torch.full((4,), 3.0), atol=1e-3, rtol=0)
    plain = (scores / 0.3).softmax(1)
    assert (few.sum(0) - 3).abs().max() < 0.5 * (plain.sum(0) - 3).abs().max()
    assert losses.sinkhorn(1000 * scores, 0.01, Step(Rng(0))).isfinite().all()


def test_sinkhorn_of_a_shard_is_its_part_of_everyones():
    scores = torch.randn(12, 4)
    whole = losses.sinkhorn(scores, 0.3, Step(Rng(0)))
    part = losses.sinkhorn(scores[6:], 0.3, Step(Rng(0, shard=1, shards=2), gather=lambda _: scores))
    torch.testing.assert_close(part, whole[6:])


def test_masked_mean_counts_only_what_is_true():
    error, counted = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([True, False, True, False])
    assert float(losses.masked_mean(error, counted)) == 2.5
    assert float(losses.masked_mean(error, None)) == 3.75
    assert float(losses.masked_mean(error, torch.zeros(4, dtype=torch.bool))) == 0.0


def test_masked_means_of_shards_average_to_that_of_the_whole():
    error, counted = torch.rand(6), torch.tensor([True, True, True, False, False, True])
    counts = torch.tensor([3.0, 1.0])
    parts = [losses.masked_mean(e, c, lambda _: counts) for e, c in zip(error.chunk(2), counted.chunk(2), strict=True)]
    torch.testing.assert_close(sum(parts) / 2, losses.masked_mean(error, counted))


def test_standardised_patches_have_mean_zero_and_deviation_one():
    z = losses.standardise_patches(3 * torch.randn(2, 5, 16) + 7)
    torch.testing.assert_close(z.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(-1), torch.ones(2, 5), atol=1e-5, rtol=1e-5)


def test_soft_cross_entropy_of_itself_is_the_entropy():
    logits = torch.randn(6, 5)
    p = logits.softmax(1)
    torch.testing.assert_close(losses.soft_cross_entropy(p, logits).mean(), losses.entropy(p))
    torch.testing.assert_close(losses.entropy(torch.full((2, 8), 1 / 8)), torch.tensor(math.log(8)))


def test_cosine_distance_is_that_of_unit_vectors():
    a, b = torch.randn(6, 5), torch.randn(6, 5)
    square = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(losses.cosine_distance(a, b), square)
