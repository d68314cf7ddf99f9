"""Intrinsic dimension: the same function at the start, d numbers that train, projections that are what they say."""

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard as scipys
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.methods.adapt import intrinsic_dim
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.projections import Dense, Fastfood, hadamard
from tests.small import batch, convnet, step, table, vit

X = batch().x["image"]


def adapted(base: Encoder | None = None, **named: object) -> Encoder:
    """Moved away from the start."""
    encoder = intrinsic_dim.Config(**{"dimensions": 60, **named}).build().adapt(vit() if base is None else base)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in surgery.weights(encoder).values():
            weight.add_(0.3 * torch.randn_like(weight))
    return encoder


@pytest.mark.parametrize("structure", [True, False])
def test_it_starts_as_exactly_the_base_and_d_numbers_train(structure: bool) -> None:
    for encoder in (vit(), vit(class_token=True), convnet()):
        encoder.eval()
        before = encoder(X).pooled
        changed = intrinsic_dim.Config(dimensions=75, structure=structure).build().adapt(encoder)
        assert torch.equal(changed(X).pooled, before)
        trained = {n: p.numel() for n, p in changed.named_parameters() if p.requires_grad}
        assert sum(trained.values()) == 75 and set(trained) == set(surgery.weights(changed))


def test_the_head_moves_in_the_same_subspace() -> None:
    torch.manual_seed(0)
    adapter = intrinsic_dim.Config(dimensions=64).build()
    method = classify.TINY.build({"image": adapter.adapt(vit())})
    before, base = method.head.weight.detach().clone(), vit()
    tensors = len([*base.parameters()]) + 2
    aim = adapter.objective(method, torch.zeros(8, 16), torch.zeros(8, dtype=torch.long))
    trained = [p for p in aim.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 64 and surgery.weights(aim)["subspace.factors"].shape == (tensors,)
    aim.loss(batch(), step()).value.backward()
    assert all(p.grad is None for p in aim.parameters() if not p.requires_grad)
    direction = aim.get_parameter("subspace.direction")
    assert direction.grad is not None
    with torch.no_grad():
        direction.sub_(direction.grad)
    assert not torch.equal(method.head.weight, before)


def test_hadamard_is_sylvesters_and_its_own_inverse() -> None:
    for side in (1, 2, 64, 128, 8192):
        x = torch.randn(side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
        torch.testing.assert_close(hadamard(hadamard(x)), side * x)
        if side < 8192:
            np.testing.assert_allclose(hadamard(x), scipys(side) @ x.numpy(), atol=1e-9)


@pytest.mark.parametrize("kind", [Fastfood, Dense])
def test_projections_are_linear_repeatable_and_keep_lengths(kind: type[nn.Module]) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, generator=g)
    for into in (1000, 3000):
        thrown, again, other = kind(40, into, 7), kind(40, into, 7), kind(40, into, 8)
        assert thrown(a).shape == (into,) and torch.equal(thrown(a), again(a)) and not torch.equal(thrown(a), other(a))
        torch.testing.assert_close(thrown(2 * a - b), 2 * thrown(a) - thrown(b), atol=1e-5, rtol=1e-4)
        assert 0.88 < float(thrown(a).norm() / a.norm()) < 1.12
    assert kind(40, 3, 7)(a).shape == (3,)  # fewer entries than directions: every direction is still seen
    basis = torch.stack([kind(40, 3, 7)(e) for e in torch.eye(40)])
    assert (basis.abs().sum(1) > 0).all()


def test_fastfood_is_the_product_it_is_said_to_be() -> None:
    thrown = Fastfood(5, 12, 1)
    h, gauss, order = scipys(16), thrown.gauss.double().numpy(), thrown.order.numpy()
    whole = h @ np.diag(gauss) @ np.eye(16)[order] @ h @ np.diag(thrown.sign.numpy())
    want = whole[:12, :5] / (np.sqrt(16 * (gauss**2).sum()) * np.sqrt(12 / 16))
    found = torch.stack([thrown.double()(e) for e in torch.eye(5, dtype=torch.float64)], 1)
    np.testing.assert_allclose(found.numpy(), want, atol=1e-6)
    assert sorted(order) == [*range(16)] and set(thrown.sign.tolist()) == {1.0, -1.0}


def test_the_gradient_is_the_transpose() -> None:
    thrown = Fastfood(6, 20, 3).double()
    torch.autograd.gradcheck(thrown, torch.randn(6, dtype=torch.float64, requires_grad=True))


def test_as_many_dense_directions_as_weights_reach_any_change() -> None:
    thrown = Dense(12, 12, 0)
    wanted = torch.randn(12, generator=torch.Generator().manual_seed(1))
    at = torch.linalg.solve(thrown.matrix, wanted)
    torch.testing.assert_close(thrown(at), wanted, atol=1e-4, rtol=1e-4)


def test_every_tensor_has_a_projection_and_a_factor_of_its_own() -> None:
    base = vit()
    before = {n: p.detach().clone() for n, p in base.named_parameters()}
    encoder = adapted(copy.deepcopy(base))
    saved = surgery.weights(encoder)
    after = dict(surgery.merge(copy.deepcopy(encoder)).named_parameters())
    changes = {n: after[n].detach() - before[n] for n in before}
    blocks = [changes[f"trunk.blocks.{i}.attention.out.weight"] for i in (0, 1)]
    assert not torch.allclose(blocks[0] / blocks[0].norm(), blocks[1] / blocks[1].norm(), atol=1e-2)
    for (name, change), factor in zip(changes.items(), saved["subspace.factors"], strict=True):
        if change.numel() >= 256:
            length = float(change.norm() / (factor.abs() * saved["subspace.direction"].norm()))
            assert 0.7 < length < 1.3, name


def test_merging_keeps_the_function_and_the_few_numbers_restore_it() -> None:
    base = vit()
    one, other = adapted(copy.deepcopy(base)), intrinsic_dim.TINY.build().adapt(copy.deepcopy(base))
    told = one(X).pooled
    assert not torch.allclose(other(X).pooled, told)
    surgery.restore(other, surgery.weights(one))
    assert torch.equal(other(X).pooled, told)
    merged = surgery.merge(one)
    assert set(merged.state_dict()) == set(base.state_dict()) and torch.equal(merged(X).pooled, told)


def test_weights_that_are_shared_stay_so() -> None:
    encoder = vit()
    blocks = encoder.get_submodule("trunk.blocks")
    blocks[1].mlp = blocks[0].mlp
    blocks[1].attention.out.weight = blocks[0].attention.out.weight
    before = blocks[0].mlp[0].weight.detach().clone()
    merged = surgery.merge(adapted(encoder))
    moved = surgery.weights(encoder)
    assert not moved and merged.get_submodule("trunk.blocks.0.mlp") is blocks[1].mlp
    assert torch.equal(blocks[0].attention.out.weight, blocks[1].attention.out.weight)
    assert not torch.equal(blocks[1].mlp[0].weight, before)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match=r"28 tensors to move.*dimensions=28 leaves no room"):
        intrinsic_dim.Config(dimensions=28).build().adapt(vit())
    assert intrinsic_dim.Config(dimensions=1, structure=False).build().adapt(table())
    with pytest.raises(RequestError, match="at least 1; got 0"):
        intrinsic_dim.Config(dimensions=0)
    with pytest.raises(RequestError, match=r"no projection named 'dens'\. Did you mean dense\?"):
        intrinsic_dim.Config(projection="dens")
