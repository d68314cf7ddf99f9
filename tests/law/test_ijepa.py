"""I-JEPA: the context knows nothing of the targets, the teacher sees everything, nothing collapses."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.methods.distill import ijepa
from headwater.parts.tokens import put, take
from headwater.parts.views import CentreCrop
from tests.small import batch, step, vit


def build() -> ijepa.IJEPA:
    torch.manual_seed(0)
    method = replace(ijepa.TINY, view=CentreCrop(16, 1.0)).build({"image": vit()})
    for p in method.teacher.parameters():  # a teacher that is not the student
        nn.init.normal_(p, std=0.2)
    return method


def cut(method: ijepa.IJEPA) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pictures of the batch, and where context and targets lie."""
    x = batch().x["image"]
    return x, *method.config.mask(len(x), (4, 4), step().rng)


def test_the_prediction_knows_the_pixels_of_the_context_and_no_others():
    method = build()
    x, context, target = cut(method)
    said = method.predict_blocks(x, context, target, None)
    tokenizer = method.encoder.tokenizer
    patches = tokenizer.patches(x)
    others = put(take(patches, context), context, 1 - patches)  # all but the context changed
    torch.testing.assert_close(method.predict_blocks(tokenizer.unpatch(others, (4, 4)), context, target, None), said)
    changed = put(1 - take(patches, context), context, patches)
    assert not torch.allclose(method.predict_blocks(tokenizer.unpatch(changed, (4, 4)), context, target, None), said)


def test_each_block_is_predicted_on_its_own_and_knows_its_places():
    method = build()
    x, context, target = cut(method)
    m = target.shape[2]
    said = method.predict_blocks(x, context, target, None).unflatten(1, (4, m))
    alone = method.predict_blocks(x, context, target[:, 2:3], None)
    torch.testing.assert_close(alone, said[:, 2])
    turned = method.predict_blocks(x, context, target[:, 2:3].flip(2), None)
    torch.testing.assert_close(turned.flip(1), alone, rtol=1e-4, atol=1e-5)  # said of places, not of an order
    assert not torch.allclose(turned, alone, atol=1e-3)


def test_the_target_is_the_teachers_view_of_the_whole_picture():
    method = build()
    x = batch().x["image"]
    told = method.teacher.copy(x).tokens
    want = (told - told.mean(2, keepdim=True)) / (told.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(method.target(x), want)
    corner = x.clone()
    corner[:, :, :4, :4] = 0
    assert not torch.allclose(method.target(corner)[:, 15], method.target(x)[:, 15])
    assert not method.target(x).requires_grad


def test_a_guess_of_zero_costs_the_smooth_error_of_the_targets():
    method = build()
    nn.init.zeros_(method.predictor.widen.weight)
    nn.init.zeros_(method.predictor.widen.bias)
    x, _, target = cut(method)
    want = method.target(x)
    error = 0.0
    for i in range(len(x)):
        for place in target[i].flatten().tolist():
            size = want[i, place].abs()
            error += torch.where(size < 1, size.square() / 2, size - 0.5).mean() / target[0].numel() / len(x)
    torch.testing.assert_close(method(batch(), step()).value, error)


def test_the_teacher_follows_at_the_scheduled_pace_and_the_student_is_handed_on():
    method = build()
    slow, fast = method.teacher.copy.trunk.norm.bias.clone(), method.encoder.trunk.norm.bias.detach()
    method.after_step(Step(Rng(0), 0.5), {})
    torch.testing.assert_close(method.teacher.copy.trunk.norm.bias, 0.998 * slow + 0.002 * fast)
    method.after_step(Step(Rng(0), 1.0), {})  # at the end it stands still
    torch.testing.assert_close(method.teacher.copy.trunk.norm.bias, 0.998 * slow + 0.002 * fast)
    assert method.encoders() == {"image": method.encoder}


def test_padding_never_counts():
    method = build()
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    extent = torch.tensor([[16, 16], [8, 16], [16, 9]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, torch.full_like(values, 77.0))
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()).value for v in (values, garbage))
    torch.testing.assert_close(a, b)

    nn.init.zeros_(method.predictor.widen.weight)
    nn.init.zeros_(method.predictor.widen.bias)
    x = Ragged(values, extent)
    target = method.config.mask(3, (4, 4), step().rng)[1].flatten(1)
    counted = method.encoder.tokenizer.valid(x).gather(1, target)
    assert not counted.all()
    wanted = take(method.target(x), target)[counted]
    want = F.smooth_l1_loss(torch.zeros_like(wanted), wanted)
    torch.testing.assert_close(method(Batch({"image": x}), step()).value, want)


def test_features_do_not_collapse():
    """A student who need only please a teacher could say the same of everything; here samples stay apart."""
    torch.manual_seed(0)
    method = ijepa.TINY.build({"image": vit()})
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)

    def spread() -> float:
        return float(F.normalize(method.teacher(batch().x["image"]).pooled, dim=1).var(0).sum().sqrt())

    before = spread()
    for t in range(60):
        now = Step(Rng(t), t / 60)
        optimiser.zero_grad()
        method(batch(), now).value.backward()
        optimiser.step()
        method.after_step(now, {})
    assert spread() > 0.3 * before
