"""KRR-ST: the closed form is kernel ridge regression, gradients go to samples and vectors alone, networks are
replaced; pre-training regresses the vectors on the samples, with nothing random."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch
from headwater.core.verbs import Method
from headwater.methods.curate.krr_st import QUICK, TINY, Distillation
from headwater.parts.kernel_ridge import outer, ridge
from headwater.parts.netpool import Lesson, NetPool, Student, descend, seeded
from tests import small

G = torch.Generator().manual_seed(0)
X, Y = torch.rand(6, 1, 8, 8, generator=G), torch.randn(6, 3, generator=G)
REAL, TRUTH = torch.rand(20, 1, 8, 8, generator=G), torch.randn(20, 3, generator=G)


def net() -> Student:
    with seeded(Rng(0)):
        return Student((1, 8, 8), (5, 7), 3)


def test_the_ridge_is_scikit_learns_in_both_forms() -> None:
    a, b = torch.randn(9, 12, generator=G), torch.randn(15, 12, generator=G)
    y = torch.randn(9, 4, generator=G)
    one = [np.column_stack([z.double().numpy(), np.ones(len(z))]) for z in (a, b)]
    strength = 1e-2 * np.trace(one[0] @ one[0].T)
    kernel = KernelRidge(alpha=strength, kernel="precomputed").fit(one[0] @ one[0].T, y.numpy())
    ours = ridge(a, y, b, 1e-2).numpy()
    np.testing.assert_allclose(ours, kernel.predict(one[1] @ one[0].T), atol=1e-5)
    primal = Ridge(alpha=strength, fit_intercept=False).fit(one[0], y.numpy())  # the constant is regularised too
    np.testing.assert_allclose(ours, primal.predict(one[1]), atol=1e-5)
    np.testing.assert_allclose(ridge(a, y, a, 1e-10).numpy(), y.numpy(), atol=1e-5)
    many = torch.randn(500, 600, generator=G)  # ill conditioned in float32
    assert (ridge(many, many[:, :2], many, 1e-8) - many[:, :2]).abs().max() < 1e-3


def test_gradients_go_to_samples_and_vectors_alone() -> None:
    made, x, y, real = net(), X.clone().requires_grad_(), Y.clone().requires_grad_(), REAL.clone().requires_grad_()
    outer(made, x, y, real, TRUTH, 1e-3).backward()
    assert x.grad is not None and y.grad is not None and x.grad.abs().max() > 0 and y.grad.abs().max() > 0
    assert real.grad is None and all(p.grad is None for p in made.parameters())


def test_the_trace_is_taken_as_given_and_vectors_enter_linearly() -> None:
    a, b, y = torch.randn(4, 6, generator=G), torch.randn(5, 6, generator=G), torch.randn(4, 2, generator=G)
    wide = torch.nn.functional.pad(a.double(), (0, 1), value=1.0)
    strength = 0.1 * float((wide @ wide.T).trace())

    def fixed(z: Tensor) -> Tensor:
        w, v = (torch.nn.functional.pad(t.double(), (0, 1), value=1.0) for t in (z, b))
        return (v @ w.T @ torch.linalg.inv(w @ w.T + strength * torch.eye(4).double()) @ y.double()).float()

    ours = torch.autograd.functional.jacobian(lambda z: ridge(z, y, b, 0.1), a)
    theirs = torch.autograd.functional.jacobian(fixed, a)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        ridge(a, 2 * y + 1, b, 0.1), 2 * ridge(a, y, b, 0.1) + ridge(a, torch.ones(4, 2), b, 0.1)
    )


def test_the_inner_problem_has_no_randomness_and_the_outer_step_leaves_statistics() -> None:
    made = net()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    x = X.clone().requires_grad_()
    runs = []
    for _ in range(2):
        value = outer(made, x, Y, REAL, TRUTH, 1e-3)
        runs.append((value.detach(), torch.autograd.grad(value, x)[0]))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())
    lesson = Lesson(made)
    lesson.step(X, Y)
    assert not torch.equal(made.state_dict()["body.1.running_mean"], before["body.1.running_mean"])


def test_networks_age_and_are_replaced_with_a_count_of_nothing() -> None:
    with seeded(Rng(0)):
        pool = NetPool(lambda: Student((1, 8, 8), (4,), 3), 6, 5, X, Y, Rng(1))
        ages = [lesson.steps for lesson in pool.lessons]
        assert len({*ages}) > 1 and max(ages) < 5
        old, age = pool.lessons[2].net, pool.lessons[2].steps
        for k in range(age + 1, 5):
            pool.advance(2, X, Y)
            assert pool.lessons[2].steps == k and pool.lessons[2].net is old
        pool.advance(2, X, Y)
        assert pool.lessons[2].steps == 0 and pool.lessons[2].net is not old
        pool.advance(2, X, Y)
        assert pool.lessons[2].steps == 1
        assert [pool.lessons[i].steps for i in (0, 1, 3, 4, 5)] == [ages[i] for i in (0, 1, 3, 4, 5)]
    assert {NetPool.pick(pool) for _ in range(80)} == {*range(6)}


def test_layers_follow_the_rng_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a, b = net(), net()
    assert torch.equal(a.head.weight, b.head.weight) and torch.equal(torch.rand(2), expected)
    assert Student((6,), (4, 4), 2)(torch.rand(3, 6)).shape == (3, 2)
    assert Student((3, 2, 2), (4, 4), 2)(torch.rand(3, 3, 2, 2)).shape == (3, 2)


def test_the_rate_falls_in_a_line_to_a_thousandth() -> None:
    leaf = torch.zeros(1, requires_grad=True)
    before, moves = [0.0], []
    descend([leaf], lambda step: leaf.sum(), lambda step: moves.append(float(leaf.detach())), 11, 0.1)
    taken = -np.diff([*before, *moves])
    np.testing.assert_allclose(taken, 0.1 * (1 - 0.999 * np.arange(11) / 10), rtol=0.05)


def test_what_is_distilled_predicts_better() -> None:
    g = torch.Generator().manual_seed(1)
    mix = torch.randn(64, 5, generator=g) / 8
    real = torch.rand(400, 64, generator=g)
    truth = torch.tanh(2 * real @ mix)
    truth = (truth - truth.mean(0)) / truth.std(0)
    method = Distillation(
        widths=(32,), pool=3, limit=10, inner_rate=0.02, steps=150, batch=128, rate=2e-2, regular=1e-3
    )

    def batches(step: int) -> tuple[Tensor, Tensor]:
        at = Rng(step).randint(300, 128)
        return real[at], truth[at]

    x, y = method.distil(real[:10], truth[:10], batches, Rng(0))
    again = method.distil(real[:10], truth[:10], batches, Rng(0))
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    ours, theirs = (method.error(*s, real[300:], truth[300:], Rng(9)) for s in ((x, y), (real[:10], truth[:10])))
    assert ours < 0.9 * theirs
    still, _ = method.distil(real[:10], truth[:10], batches, Rng(0), images=False)
    assert torch.equal(still, real[:10]) and not torch.equal(x, real[:10])


def learner() -> Method:
    torch.manual_seed(0)
    method: Method = TINY.build({"image": small.convnet()})
    return method


def test_pre_training_is_the_mean_squared_error_on_the_samples_as_they_are() -> None:
    method, batch = learner(), small.batch()
    loss = method.loss(batch, small.step()).value
    features = method.encoders()["image"](batch.x["image"]).pooled
    assert isinstance(method.head, torch.nn.Linear) and batch.targets is not None
    torch.testing.assert_close(loss, (method.head(features) - batch.targets).square().mean())
    outside = torch.full((2, 3, 16, 16), 3.0) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)  # samples are not clamped
    assert torch.equal(TINY.view(outside, Rng(0)), outside)


def test_no_randomness_enters_and_the_order_of_the_samples_does_not_matter() -> None:
    def stepped(seed: int, order: Tensor) -> tuple[Tensor, list[Tensor]]:
        method, batch = learner(), small.batch()
        assert batch.targets is not None
        pictures = batch.x["image"]
        assert isinstance(pictures, Tensor)
        loss = method.loss(Batch({"image": pictures[order]}, targets=batch.targets[order]), small.step(seed)).value
        loss.backward()
        return loss.detach(), [p.grad for p in method.parameters() if p.grad is not None]

    same, turned = torch.arange(8), torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    first, again, other = stepped(1, same), stepped(9, same), stepped(1, turned)
    assert torch.equal(first[0], again[0]) and all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    torch.testing.assert_close(first[0], other[0])
    torch.testing.assert_close(first[1], other[1], rtol=1e-4, atol=1e-6)


def test_the_head_is_dropped_and_samples_without_vectors_are_refused() -> None:
    method = learner()
    assert [*method.encoders()] == ["image"] and method.encoders()["image"].dim == 16
    assert not [n for n, _ in method.encoders()["image"].named_parameters() if "head" in n]
    with pytest.raises(RequestError, match="these samples have none"):
        method.loss(replace(small.batch(), targets=None), small.step())


def test_bad_settings() -> None:
    with pytest.raises(RequestError, match="of 1 or more"):
        Distillation(pool=0)
    with pytest.raises(RequestError, match="above 0"):
        Distillation(regular=0.0)
    assert QUICK.steps < Distillation().steps == 160_000
