"""HPM: a slow teacher chooses what is hidden, and the student learns the order of its own errors."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Mask, Step
from headwater.methods.reconstruct import hpm, mae
from headwater.parts.losses import ranking
from headwater.parts.masks import ScoreMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.views import CentreCrop
from tests.law.test_mae import ByNoise
from tests.small import batch, step, vit

STILL = CentreCrop(16, 1.0)


def build(**changes: object) -> hpm.HPM:
    torch.manual_seed(0)
    return replace(hpm.TINY, view=STILL, **changes).build({"image": vit(class_token=True)})


def hidden_by(method: hpm.HPM, progress: float) -> Tensor:
    kept: list[Tensor] = []
    hook = method.encoder.register_forward_pre_hook(lambda _, args, named: kept.append(named["keep"]), with_kwargs=True)
    method(batch(), step(progress=progress))
    hook.remove()
    return torch.ones(8, 16, dtype=torch.bool).scatter(1, kept[0], False)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_the_hardest_are_hidden_and_more_of_them_with_time(progress):
    method = build()
    hidden = hidden_by(method, progress)
    assert hidden.sum(1).unique().tolist() == [16 - int(0.25 * 16)]
    hardest = method.difficulty(batch().x["image"]).argsort(1, descending=True)
    h = int(12 * 0.5 * progress)
    assert h == {0.0: 0, 0.3: 1, 0.5: 3, 1.0: 6}[progress]
    assert hidden.gather(1, hardest[:, :h]).all()


def test_at_the_start_the_mask_is_random_and_knows_nothing_of_the_teacher():
    a, b = build(), build()
    with torch.no_grad():
        for p in b.teacher.parameters():
            p.add_(torch.randn_like(p))
    assert torch.equal(hidden_by(a, 0.0), hidden_by(b, 0.0))
    assert not torch.equal(hidden_by(a, 1.0), hidden_by(b, 1.0))


def test_among_what_is_not_surely_hidden_every_token_has_the_same_chance():
    score = torch.arange(16.0).expand(4000, -1)
    hidden = where_hidden(ScoreMask(0.75, greed=0.5).pick(score, Rng(0))).float().mean(0)
    assert (hidden[10:] == 1).all()
    torch.testing.assert_close(hidden[:10], torch.full((10,), 0.6), atol=0.03, rtol=0)


def test_padding_takes_no_hard_place():
    valid = torch.arange(16).expand(6, -1) < torch.tensor([16, 8, 8, 12, 9, 4])[:, None]
    score = torch.rand(6, 16, generator=torch.Generator().manual_seed(0)) + 9.0 * ~valid
    hidden = where_hidden(ScoreMask(0.75, greed=1.0).pick(score, Rng(5), valid))
    for row, real, points in zip(hidden, valid, score, strict=True):
        n = int(real.sum()) * 12 // 16
        assert {*(row & real).nonzero()[:, 0].tolist()} == {*(points - 99.0 * ~real).topk(n).indices.tolist()}


def by_pairs(score: Tensor, truth: Tensor) -> Tensor:
    """The sum over all ordered pairs of unequal truth, one at a time."""
    found = []
    for s, t in zip(score, truth, strict=True):
        for i in range(len(s)):
            for j in range(len(s)):
                if t[i] != t[j]:
                    found.append(F.binary_cross_entropy_with_logits(s[j] - s[i], (t[j] > t[i]).to(s.dtype)))
    return torch.stack(found).mean()


def test_ranking_is_the_cross_entropy_of_every_unequal_pair_of_a_row():
    g = torch.Generator().manual_seed(0)
    score, truth = torch.randn(3, 6, generator=g).double(), torch.rand(3, 6, generator=g).double()
    truth[0, 3] = truth[0, 1]
    truth[2] = 0.5  # a row of ties adds nothing
    value = ranking(score, truth)
    torch.testing.assert_close(value, by_pairs(score, truth))
    for other in (truth.exp(), 3 * truth - 7, truth**3):
        torch.testing.assert_close(ranking(score, other), value)
    torch.testing.assert_close(ranking(score + torch.randn(3, 1, generator=g), truth), value)
    rows = torch.stack([ranking(s[None], t[None]) for s, t in zip(score[:2], truth[:2], strict=True)])
    pairs = torch.tensor([28.0, 30.0]).double()
    torch.testing.assert_close(value, (rows * pairs).sum() / pairs.sum())  # never across samples
    counted = torch.ones(3, 6, dtype=torch.bool)
    counted[:, 4:] = False
    torch.testing.assert_close(ranking(score, truth, counted), by_pairs(score[:, :4], truth[:, :4]))
    assert ranking(score, torch.ones(3, 6).double()) == 0


def test_the_right_order_costs_nothing_and_the_wrong_one_ever_more():
    truth = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)).double()
    order = truth.argsort(1).argsort(1).double()
    assert ranking(50 * order, truth) < 1e-12
    wrong = [float(ranking(-k * order, truth)) for k in (100.0, 200.0, 400.0)]
    assert wrong[1] == pytest.approx(2 * wrong[0])
    assert wrong[2] == pytest.approx(4 * wrong[0])


def parts_of(method: hpm.HPM) -> tuple[Tensor, Tensor]:
    """The error and its ranking, with gradient, put together anew."""
    x, at = batch().x["image"], step(progress=1.0)
    mask = replace(method.plan.mask, greed=0.5).pick(method.difficulty(x), at.rng)
    seen, places = method.encoder(x, keep=mask.keep), method.encoder.tokenizer.places(x)
    error = (method.to_patch(method.decode(seen, mask, places, None)) - method.target(x)).square().mean(-1)
    method.decoder, trunk = method.judge, method.decoder
    score = method.to_score(method.decode(seen, mask, places, None))
    method.decoder = trunk
    chosen = [take(v.reshape(8, 16, 1), mask.drop)[..., 0] for v in (error, score)]
    return chosen[0].mean(), ranking(chosen[1], chosen[0].detach())


def test_the_loss_is_the_error_and_the_order_of_the_hidden():
    method = build()
    restored, ranked = parts_of(method)
    out = method(batch(), step(progress=1.0))
    torch.testing.assert_close(out.value, restored + ranked)
    torch.testing.assert_close(out.metrics["ranked"], ranked.detach())


def test_ranking_teaches_the_encoder_and_never_the_reconstructor():
    method = build()
    alone = {n for n, p in method.named_parameters() if n.startswith(("decoder.", "to_patch."))}
    whole, restored = build(), build()
    whole(batch(), step(progress=1.0)).value.backward()
    parts_of(restored)[0].backward()
    for (name, a), b in zip(whole.named_parameters(), restored.parameters(), strict=True):
        if name in alone:
            torch.testing.assert_close(a.grad, b.grad)
    parts_of(method)[1].backward()
    found = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not found & alone
    assert {"encoder.tokenizer.embed.weight", "narrow.weight", "mask_token", "to_score.weight"} <= found
    assert not [n for n in found if n.startswith("teacher")]


def test_the_teacher_sees_everything_with_slow_weights():
    method = build()
    x = batch().x["image"]
    before = method.difficulty(x)
    with torch.no_grad():
        for p in (*method.encoder.parameters(), *method.judge.parameters()):
            p.add_(torch.randn_like(p))
    assert torch.equal(method.difficulty(x), before)
    method.after_step(Step(Rng(0), 0.0), {})
    assert not torch.equal(method.difficulty(x), before)
    moved = x.clone()
    moved[:, :, 12:, 12:] += 1.0  # the last patch
    assert not torch.isclose(method.difficulty(moved), method.difficulty(x)).any()  # each token knows of every patch


def test_the_teacher_judges_in_the_order_of_the_places():
    """The student's judge, shown every token in any order, says the same of each."""
    method = build()
    x = batch().x["image"]
    order = torch.rand(8, 16, generator=torch.Generator().manual_seed(0)).argsort(1)
    seen = method.encoder(x, keep=order)
    method.decoder = method.judge
    every = Mask(order, order[:, :0])
    said = method.to_score(method.decode(seen, every, method.encoder.tokenizer.places(x), None))[..., 0]
    torch.testing.assert_close(method.difficulty(x), said)


def test_the_momentum_of_two_hundred_epochs():
    momentum = hpm.Config().momentum
    for epoch, want in ((0, 0.999), (50, 0.99945), (100, 0.9999), (150, 0.9999), (200, 0.9999)):
        assert momentum(epoch / 200) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("standardise", [False, True])
def test_without_ranking_and_with_a_mask_of_its_own_it_is_mae(standardise):
    method = build(standardise=standardise)
    noise = torch.rand(8, 16, generator=torch.Generator().manual_seed(1))
    method.plan = replace(method.plan, hard=lambda p: 1.0)
    method.difficulty = lambda x: noise
    other = mae.Config(view=STILL, mask=ByNoise(noise), decoder=method.plan.decoder, standardise=standardise)
    plain = other.build({"image": method.encoder})
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if k in plain.state_dict()})
    torch.testing.assert_close(method(batch(), step()).metrics["restored"], plain(batch(), step()).value.detach())
