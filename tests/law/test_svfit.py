"""SVFit: the same function at the start, one number per singular direction, and only those change."""

import copy

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.methods.adapt import svfit
from headwater.parts import surgery
from tests.small import batch, convnet, vit

X = batch().x["image"]


def adapted(base: Encoder | None = None, rank: int = 3) -> Encoder:
    """With values that have moved."""
    torch.manual_seed(1)
    encoder = svfit.Config(rank=rank).build().adapt(vit() if base is None else base)
    with torch.no_grad():
        for weight in surgery.weights(encoder).values():
            weight.mul_(1 + 0.3 * torch.randn_like(weight))
    return encoder


@pytest.mark.parametrize("rank", [1, 5, 16, 768])
def test_it_starts_as_the_base(rank: int) -> None:
    encoder = vit()
    before = encoder(X).pooled
    torch.testing.assert_close(svfit.Config(rank=rank).build().adapt(encoder)(X).pooled, before, atol=1e-5, rtol=1e-5)


def test_only_r_numbers_a_map_train() -> None:
    encoder = svfit.Config(rank=5).build().adapt(vit())
    trained = {n: p.numel() for n, p in encoder.named_parameters() if p.requires_grad}
    assert set(trained) == set(surgery.weights(encoder)) and list(trained.values()) == [5] * 4
    wide = svfit.SMALL.build().adapt(vit())
    assert {w.numel() for w in surgery.weights(wide).values()} == {16}  # all that the maps of width 16 have


def test_the_change_is_diagonal_in_the_singular_basis() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(7, 5).double()
    before = linear.weight.detach().clone()
    u, s, v = torch.linalg.svd(before, full_matrices=False)
    map_ = svfit.Singular(linear, rank=3)
    torch.testing.assert_close(map_.values.detach(), s[:3])
    with torch.no_grad():
        map_.values.add_(torch.tensor([0.5, -2.0, 0.1]))  # a value may change its sign
        change = u.T @ (map_.merged().weight - before) @ v.T
    torch.testing.assert_close(change, torch.diag(torch.tensor([0.5, -2.0, 0.1, 0, 0])).double(), atol=1e-7, rtol=1e-6)


def test_the_gradient_of_a_value_is_that_of_the_weight_along_its_direction() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 4), torch.randn(9, 6)
    u, _, v = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    linear(x).pow(3).sum().backward()
    assert linear.weight.grad is not None
    told = torch.einsum("ij,ij->j", u[:, :2], linear.weight.grad @ v[:2].T)
    map_ = svfit.Singular(copy.deepcopy(linear), rank=2)
    map_(x).pow(3).sum().backward()
    assert map_.values.grad is not None
    torch.testing.assert_close(map_.values.grad, told, rtol=1e-4, atol=1e-5)


def test_scaling_all_values_scales_the_whole_weight() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 4), torch.randn(9, 6)
    whole = copy.deepcopy(linear)
    map_ = svfit.Singular(linear, rank=4)
    with torch.no_grad():
        map_.values.mul_(1.25)
    torch.testing.assert_close(map_(x), x @ (1.25 * whole.weight).T + whole.bias)


def test_merging_keeps_the_function_and_restores_the_architecture() -> None:
    encoder = adapted()
    before = encoder(X).pooled
    merged = surgery.merge(encoder)
    assert set(merged.state_dict()) == set(vit().state_dict())
    torch.testing.assert_close(merged(X).pooled, before, atol=1e-5, rtol=1e-5)


def test_the_values_alone_restore_the_function() -> None:
    base = vit()
    one, other = adapted(copy.deepcopy(base)), svfit.Config(rank=3).build().adapt(copy.deepcopy(base))
    assert not torch.allclose(other(X).pooled, one(X).pooled)
    surgery.restore(other, {n: w.clone() for n, w in surgery.weights(one).items()})
    torch.testing.assert_close(other(X).pooled, one(X).pooled)
    with pytest.raises(RequestError, match="shape"):
        surgery.restore(other, surgery.weights(adapted(rank=2)))


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match="SVFit found no linear map named qkv or out in this ConvNet"):
        svfit.TINY.build().adapt(convnet())
    with pytest.raises(RequestError, match="at least 1; got 0"):
        svfit.Config(rank=0)
