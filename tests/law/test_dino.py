"""DINO: the loss by hand, the centre, the frozen prototypes, and who sees which view."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from headwater.core.rng import Rng
from headwater.core.types import Step
from headwater.methods.distill import dino
from headwater.parts.distilling import across_views, by_size
from headwater.parts.heads import DINOHead
from headwater.parts.schedules import Cosine, Ramp
from headwater.parts.views import Crop, MultiCrop
from tests.small import batch, step, vit

VIEWS = MultiCrop(Crop(16), Crop(8), n_large=2, n_small=2)


def build(**changes: object) -> dino.DINO:
    torch.manual_seed(0)
    method = replace(dino.TINY, views=VIEWS, **changes).build({"image": vit()})
    for p in (*method.teacher.parameters(), *method.teacher_head.parameters()):
        torch.nn.init.normal_(p, std=0.2)  # a teacher that is not the student
    torch.nn.init.normal_(method.centre, std=0.1)
    method.started.fill_(True)
    return method


def test_the_loss_is_that_of_the_paper_by_hand():
    method = build()
    views = VIEWS(batch().x["image"], step().rng)
    heat = 0.04 + (0.07 - 0.04) * 1.0  # the ramp ended at 0.3; the step stands at 0.5
    total, pairs = 0.0, 0
    for i, large in enumerate(views[:2]):
        said = method.teacher_head.copy(method.teacher.copy(large).pooled)
        p = torch.softmax((said - method.centre) / heat, -1)
        for j, view in enumerate(views):
            if i == j:
                continue
            q = torch.softmax(method.head(method.encoder(view).pooled) / 0.1, -1)
            total, pairs = total - (p * q.log()).sum(-1).mean(), pairs + 1
    assert pairs == 6
    out = method(batch(), step())
    torch.testing.assert_close(out.value, total / pairs)
    assert out.metrics["chance"] == out.metrics["teacher_entropy_max"] == torch.tensor(math.log(12))


def test_the_teacher_sees_large_views_alone_and_views_of_a_size_are_one_batch():
    method = build()
    seen = {"student": [], "teacher": []}
    method.encoder.register_forward_pre_hook(lambda _, args: seen["student"].append(args[0].shape))
    method.teacher.copy.register_forward_pre_hook(lambda _, args: seen["teacher"].append(args[0].shape))
    method(batch(), step())
    assert seen["teacher"] == [(16, 3, 16, 16)]
    assert seen["student"] == [(16, 3, 16, 16), (16, 3, 8, 8)]


def test_batching_by_size_changes_no_answer_and_keeps_the_order():
    views = [torch.rand(2, 3, s, s) for s in (4, 8, 4, 8, 4)]
    got = by_size(lambda v: v.mean((2, 3)), views)
    for answer, view in zip(got, views, strict=True):
        torch.testing.assert_close(answer, view.mean((2, 3)))


def test_no_view_is_compared_with_itself():
    g = torch.Generator().manual_seed(0)
    targets = [torch.rand(3, 5, generator=g).softmax(-1) for _ in range(2)]
    logits = [torch.randn(3, 5, generator=g) for _ in range(2)]
    want = (F.cross_entropy(logits[1], targets[0]) + F.cross_entropy(logits[0], targets[1])) / 2
    torch.testing.assert_close(across_views(targets, logits), want)


def test_the_centre_starts_at_what_everyones_teacher_says_and_follows_it():
    method = build(centre_momentum=0.8)
    before = method.centre.clone()
    views = VIEWS(batch().x["image"], step().rng)
    said = torch.cat([method.teacher_head.copy(method.teacher.copy(v).pooled) for v in views[:2]]).mean(0)
    elsewhere = torch.full((1, 12), 3.0)  # what another process heard
    now = Step(Rng(2), 0.5, lambda x: torch.cat([x, elsewhere]))
    heard = (said + elsewhere[0]) / 2
    method.after_step(now, method(batch(), now).carry)
    torch.testing.assert_close(method.centre, 0.8 * before + 0.2 * heard)

    method = build(centre_momentum=0.8)
    method.started.fill_(False)
    now = Step(Rng(2), 0.5, lambda x: torch.cat([x, elsewhere]))
    method.after_step(now, method(batch(), now).carry)
    torch.testing.assert_close(method.centre, heard)
    assert method.started


def test_what_the_teacher_says_of_everything_alike_is_centred_away():
    method = build()
    out = method(batch(), step())
    method.centre += 5.0  # the same for all prototypes: nothing changes
    torch.testing.assert_close(method(batch(), step()).value, out.value, rtol=1e-4, atol=1e-4)
    method.teacher_head.copy.prototypes.zero_()
    method.centre.zero_()
    entropy = method(batch(), step()).metrics["teacher_entropy"]
    torch.testing.assert_close(entropy, torch.tensor(math.log(12)))  # uniform: the collapse that sharpening prevents


def test_prototypes_stand_still_at_first():
    method = build(freeze=0.1)
    method(batch(), step(progress=0.05)).value.backward()
    assert (method.head.prototypes.grad == 0).all()  # zero and not missing, for DDP
    assert method.head.body[0].weight.grad.any()
    value = method(batch(), step(progress=0.5)).value
    value.backward()
    assert method.head.prototypes.grad.any()


def test_temperature_and_momentum_are_the_papers():
    config = dino.Config()
    assert config.teacher_temperature == Ramp(0.04, 0.07, until=0.3)
    assert config.momentum == Cosine(0.996, 1.0)
    method = build(momentum=Cosine(0.9, 1.0))
    slow, fast = method.teacher_head.copy.body[0].weight.clone(), method.head.body[0].weight.detach()
    carry = method(batch(), step()).carry
    method.after_step(step(progress=0.5), carry)
    torch.testing.assert_close(method.teacher_head.copy.body[0].weight, 0.95 * slow + 0.05 * fast)
    assert method.encoders() == {"image": method.teacher.copy}


def test_the_head_gives_cosines():
    torch.manual_seed(0)
    head = DINOHead(8, 16, 4, 10)
    x = torch.randn(20, 8)
    out = head(x)
    assert out.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes *= 7  # only directions count
    torch.testing.assert_close(head(x), out)
    want = F.cosine_similarity(head.body(x)[:, None], head.prototypes, dim=-1)
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("drop_path", [0.5])
def test_a_teacher_skips_no_branch(drop_path):
    torch.manual_seed(0)
    encoder = vit()
    encoder = replace(encoder.config, trunk=replace(encoder.config.trunk, drop_path=drop_path)).build()
    method = replace(dino.TINY, views=VIEWS).build({"image": encoder}).train()
    x = batch().x["image"]
    torch.testing.assert_close(method.teacher(x).pooled, method.teacher(x).pooled)
    assert not torch.allclose(method.encoder(x).pooled, method.encoder(x).pooled)
