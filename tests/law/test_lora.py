import copy

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.methods.adapt import lora
from headwater.parts import surgery
from tests.small import batch, convnet, vit

X = batch().x["image"]


def adapted(**named: object) -> Encoder:
    """With corrections that are not zero."""
    torch.manual_seed(0)
    encoder = lora.Config(**{"rank": 3, "alpha": 6.0, **named}).build().adapt(vit())
    with torch.no_grad():
        for name, weight in surgery.weights(encoder).items():
            if name.endswith("up"):
                weight.normal_(std=0.2)
    return encoder


def test_it_starts_as_exactly_the_base():
    encoder = vit()
    before = encoder(X).pooled
    assert torch.equal(lora.TINY.build().adapt(encoder)(X).pooled, before)


def test_only_the_new_weights_train():
    encoder = adapted()
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert trained == set(surgery.weights(encoder)) and len(trained) == 8  # two maps in each of two blocks


def test_the_correction_is_scaled_by_alpha_over_rank():
    torch.manual_seed(0)
    linear = nn.Linear(5, 7)
    map_ = lora.LowRank(linear, rank=2, scale=4.0 / 2)
    nn.init.normal_(map_.up)
    x = torch.randn(3, 5)
    weight = linear.weight + 2.0 * map_.up @ map_.down
    torch.testing.assert_close(map_(x), x @ weight.T + linear.bias)
    assert map_.down.shape == (2, 5) and map_.up.shape == (7, 2)


def test_where_names_the_maps():
    encoder = adapted(where=("qkv",))
    assert {n.split(".")[-2] for n in surgery.weights(encoder)} == {"qkv"}


def test_merging_keeps_the_function_and_restores_the_architecture():
    encoder = adapted()
    before = encoder(X).pooled
    names = set(vit().state_dict())
    merged = surgery.merge(encoder)
    assert set(merged.state_dict()) == names
    torch.testing.assert_close(merged(X).pooled, before, atol=1e-5, rtol=1e-5)


def test_the_new_weights_alone_restore_the_function():
    base = vit()
    one, other = (lora.TINY.build().adapt(copy.deepcopy(base)) for _ in range(2))
    for weight in surgery.weights(one).values():
        weight.normal_()
    saved = {n: w.clone() for n, w in surgery.weights(one).items()}
    assert not torch.equal(other(X).pooled, one(X).pooled)
    surgery.restore(other, saved)
    assert torch.equal(other(X).pooled, one(X).pooled)


def test_weights_of_another_adaptation_are_refused():
    encoder = adapted()
    with pytest.raises(RequestError, match="shape"):
        surgery.restore(encoder, surgery.weights(adapted(rank=2)))
    with pytest.raises(RequestError, match="not in both"):
        surgery.restore(encoder, surgery.weights(adapted(where=("qkv",))))


def test_an_encoder_without_such_maps_is_told_what_it_has():
    with pytest.raises(RequestError, match=r"query.*embed, out, qkv"):
        lora.Config(where=("query",)).build().adapt(vit())
    with pytest.raises(RequestError, match="none"):
        lora.TINY.build().adapt(convnet())


def test_it_equals_peft():
    peft = pytest.importorskip("peft")
    ours = adapted(rank=3, alpha=7.0)
    theirs = surgery.merge(lora.Config(rank=3, where=("qkv", "out")).build().adapt(vit()))  # any copy of the base
    base = {n.replace(".base.", "."): w for n, w in ours.state_dict().items() if not n.endswith(("up", "down"))}
    theirs.load_state_dict(base)
    peft.inject_adapter_in_model(peft.LoraConfig(r=3, lora_alpha=7, target_modules=["qkv", "out"]), theirs)
    modules = dict(theirs.named_modules())
    new = surgery.weights(ours)
    with torch.no_grad():
        for name, weight in new.items():
            parent, _, leaf = name.rpartition(".")
            side = modules[parent].lora_A if leaf == "down" else modules[parent].lora_B
            assert side["default"].weight.shape == weight.shape
            side["default"].weight.copy_(weight)
    a, b = ours(X).pooled, theirs(X).pooled
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    for name in new:
        parent, _, leaf = name.rpartition(".")
        side = modules[parent].lora_A if leaf == "down" else modules[parent].lora_B
        torch.testing.assert_close(ours.get_parameter(name).grad, side["default"].weight.grad, atol=1e-5, rtol=1e-4)
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trained == sum(w.numel() for w in new.values())
