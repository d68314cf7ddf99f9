from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.rng import Rng
from headwater.methods.agree import byol
from headwater.parts.schedules import Cosine
from tests.small import batch, convnet, step


@dataclass(frozen=True)
class Only:
    """One colour of the picture, in its own place."""

    channel: int

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        alone = torch.zeros_like(x)
        alone[:, self.channel] = x[:, self.channel]
        return alone


A, B = Only(0), Only(2)


def build(views: tuple[Only, Only] = (A, B)) -> byol.BYOL:
    torch.manual_seed(0)
    method = byol.Config(views=views, hidden=16, out=8).build({"image": convnet()})
    with torch.no_grad():  # a slow network that differs from the online one
        for weight in [*method.slow_encoder.parameters(), *method.slow_projector.parameters()]:
            weight += 0.3 * torch.randn_like(weight)
    return method.eval()


def test_the_loss_is_the_squared_distance_of_unit_vectors_both_ways():
    method, x = build(), batch().x["image"]

    def said(v: Tensor) -> Tensor:
        return F.normalize(method.predictor(method.projector(method.encoder(v).pooled)), dim=1)

    def wanted(v: Tensor) -> Tensor:
        return F.normalize(method.slow_projector.copy(method.slow_encoder.copy(v).pooled), dim=1)

    a, b = A(x, step().rng), B(x, step().rng)
    distance = (said(a) - wanted(b)).square().sum(1).mean() + (said(b) - wanted(a)).square().sum(1).mean()
    same_view = (said(a) - wanted(a)).square().sum(1).mean() + (said(b) - wanted(b)).square().sum(1).mean()
    assert abs(distance - same_view) > 1e-4  # the views differ enough for the test to mean something
    torch.testing.assert_close(method(batch(), step()).value, distance)


def test_the_views_may_change_places():
    torch.testing.assert_close(build((A, B))(batch(), step()).value, build((B, A))(batch(), step()).value)


def test_the_slow_network_gets_no_gradient_and_follows_in_after_step_only():
    method = build().train()
    fast = [*method.encoder.parameters(), *method.projector.parameters()]
    slow = [*method.slow_encoder.parameters(), *method.slow_projector.parameters()]
    before = [w.clone() for w in slow]
    method(batch(), step(progress=0.5)).value.backward()
    assert all(torch.equal(w, b) for w, b in zip(slow, before, strict=True))
    assert all(w.grad is not None for w in fast) and all(w.grad is None for w in slow)
    momentum = method.config.momentum(0.5)
    assert 0.996 < momentum < 1
    method.after_step(step(progress=0.5), {})
    for now, then, online in zip(slow, before, fast, strict=True):
        torch.testing.assert_close(now, momentum * then + (1 - momentum) * online)


def test_the_slow_network_stands_still_at_the_end():
    method = build()
    before = next(method.slow_projector.parameters()).clone()
    method.after_step(step(progress=1.0), {})
    assert torch.equal(next(method.slow_projector.parameters()), before)


def test_the_published_numbers():
    config = byol.Config()
    assert (config.hidden, config.out, config.momentum) == (4096, 256, Cosine(0.996, 1.0))
    assert config.views[0] != config.views[1]


def test_the_online_encoder_is_handed_on():
    method = build()
    assert method.encoders() == {"image": method.encoder} and next(method.encoder.parameters()).requires_grad
