"""PELA: factors that are the nearest of their rank, blocks that are heard, and products that stay near their weights."""

import copy
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.engine.artefact import Card, load_encoder, save_encoder
from headwater.methods.adapt import pela
from headwater.methods.adapt.pela import Mended, strayed
from headwater.parts.layers import depths, layers
from headwater.parts.lowrank import Factored, FactoredConfig, factorise, rank
from headwater.parts.swin import SwinConfig
from tests.small import batch, convnet, mixer, step, t5, vit

X = batch().x["image"]


def plain(x: Input, rng: Rng) -> Input:
    return x


def mending(**named: float) -> Mended:
    torch.manual_seed(0)
    base = vit()
    config = pela.Config(**named)
    made = config.build().beforehand(base, config.build().adapt(copy.deepcopy(base)), plain)
    assert isinstance(made, Mended)
    return made


def test_the_product_is_the_best_of_its_rank_and_the_factors_share_the_values() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(20, 30)
    made = Factored.of(linear, 6)
    s = scipy.linalg.svd(linear.weight.detach().double().numpy(), compute_uv=False)
    error = (made.product - linear.weight).detach().double().square().sum()
    assert float(error) == pytest.approx((s[6:] ** 2).sum(), rel=1e-4)
    for factor in (made.get_parameter("0.weight"), made.get_parameter("1.weight")):
        found = np.linalg.svd(factor.detach().numpy(), compute_uv=False)[:6]
        np.testing.assert_allclose(found, np.sqrt(s[:6]), rtol=1e-4)
    assert torch.equal(made.get_parameter("1.bias"), linear.bias) and "0.bias" not in dict(made.named_parameters())


def test_full_rank_says_what_the_map_said() -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        linear, x = nn.Linear(7, 12, bias=bias), torch.randn(4, 7)
        torch.testing.assert_close(Factored.of(linear, 7)(x), linear(x), atol=1e-5, rtol=1e-4)


def test_the_rule_of_the_rank() -> None:
    assert rank(nn.Linear(768, 768), 2.0) == 192 and rank(nn.Linear(768, 2304), 2.0) == 288
    assert rank(nn.Linear(16, 16), 100.0) == 1 and rank(nn.Linear(4, 400), 1.01) <= 4
    for a, b, c in ((768, 3072, 3.0), (100, 30, 1.5)):
        k = rank(nn.Linear(a, b), c)
        assert k * (a + b) <= a * b / c < (k + 1) * (a + b)


def test_what_is_factorised_and_what_is_left_whole() -> None:
    base = vit()
    small = pela.TINY.build().adapt(copy.deepcopy(base))
    found = {n for n, m in small.named_modules() if isinstance(m, Factored)}
    names = ("attention.qkv", "attention.out", "mlp.0", "mlp.2")
    assert found == {f"trunk.blocks.{i}.{n}" for i in (0, 1) for n in names}
    assert all(p.requires_grad for p in small.parameters())
    assert sum(p.numel() for p in small.parameters()) < 0.65 * sum(p.numel() for p in base.parameters())
    few = factorise(vit(), 2.0, ("norm", "mlp"), "PELA")
    assert {n for n, m in few.named_modules() if isinstance(m, Factored)} >= {"trunk.blocks.0.attention.qkv"}
    assert not any(isinstance(m, Factored) for m in few.get_submodule("trunk.blocks.0.mlp"))


def test_a_student_that_is_the_teacher_has_nothing_to_learn() -> None:
    made = mending(gamma=0.0, ratio=1.0001)
    for name in [n for n, m in made.encoder.named_modules() if isinstance(m, Factored)]:
        parent, _, leaf = name.rpartition(".")
        setattr(made.encoder.get_submodule(parent), leaf, made.whole.encoder.get_submodule(name))
    assert float(made.loss(batch(), step()).value.detach()) == 0.0


def test_every_block_is_heard_before_the_last_norm() -> None:
    made = mending(gamma=0.0)
    said, told = (e.trace(X) for e in (made.encoder, made.whole.encoder))  # type: ignore[operator]
    want = torch.stack([(a.out - b.out).square().mean() for a, b in zip(said, told, strict=True)]).mean()
    torch.testing.assert_close(made.loss(batch(), step()).value, want)
    made.train()
    assert not made.whole.training and not made.whole.encoder.training
    made.loss(batch(), step()).value.backward()
    assert all(p.grad is None and not p.requires_grad for p in made.whole.parameters())
    assert made.encoder.get_parameter("trunk.blocks.0.norm1.weight").grad is not None


def test_products_are_drawn_to_where_they_stray_a_little() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5).requires_grad_(True)
    factor = Factored(nn.Linear(5, 6), 5)
    with torch.no_grad():
        factor.get_parameter("0.weight").copy_(torch.eye(5))
        factor.get_parameter("1.weight").copy_(weight)
        factor.get_parameter("1.weight")[2, 3] -= 0.001
    assert float(strayed([(factor, weight)], 1e-3).detach()) < 1e-12
    assert float(strayed([(factor, weight)], 0.5).detach()) == pytest.approx(0.499**2, rel=1e-3)
    other = Factored.of(nn.Linear(5, 6), 2)
    strayed([(other, weight), (factor, weight)], 0.1).backward()
    assert weight.grad is None
    assert all(p.grad is not None for n, p in other.named_parameters() if n.endswith("weight"))
    assert other.get_parameter("1.bias").grad is None


def test_what_is_mended_comes_nearer() -> None:
    made = mending()
    taught = torch.optim.Adam(made.encoder.parameters(), lr=3e-3)
    before = {n: v.clone() for n, v in made.whole.state_dict().items()}
    values = []
    for _ in range(60):
        taught.zero_grad()
        loss = made.loss(batch(), step())
        values.append(float(loss.metrics["features"]))
        loss.value.backward()
        taught.step()
    assert values[-1] < values[0] / 3
    assert all(torch.equal(v, before[n]) for n, v in made.whole.state_dict().items())


@pytest.mark.parametrize("make", [mixer, t5])
def test_encoders_of_other_makes_are_heard_too(make: object) -> None:
    encoder = make()  # type: ignore[operator]
    made = pela.TINY.build().beforehand(encoder, pela.TINY.build().adapt(copy.deepcopy(encoder)), plain)
    assert float(made.loss(batch(), step()).value.detach()) > 0


def test_the_small_encoder_is_an_architecture_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = vit(class_token=True)
    adapter = pela.Config(ratio=3.0).build()
    small = adapter.adapt(copy.deepcopy(base))
    card = Card(adapter.architecture(base.config), {}, {})
    save_encoder(tmp_path / "e", small, card)
    again, read = load_encoder(tmp_path / "e")
    assert read.architecture == FactoredConfig(of=base.config, ratio=3.0) and torch.equal(
        again(X).pooled, small(X).pooled
    )


def test_blocks_and_depths() -> None:
    assert [*layers(vit())] == ["trunk.blocks.0", "trunk.blocks.1"] and len(layers(t5())) == 2
    told = depths(vit(class_token=True, position="learned", grid=(4, 4)))
    assert told["prefix"] == told["table.table"] == told["tokenizer.embed.weight"] == 0
    assert told["trunk.blocks.0.norm1.weight"] == 1 and told["trunk.blocks.1.mlp.0.bias"] == 2
    assert told["trunk.norm.weight"] == 3
    deep = depths(convnet())
    assert deep[next(iter(deep))] == 0 and max(deep.values()) >= 2
    swin = SwinConfig(channels=3, patch=2, dim=8, depths=(1, 2), heads=(2, 2), window=2).build()
    assert [n for n in layers(swin) if n.startswith("stages")] == ["stages.0.0", "stages.1.0", "stages.1.1"]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match="PELA found no linear map to factorise in this ConvNet"):
        pela.TINY.build().adapt(convnet())
    with pytest.raises(RequestError, match=r"above 1, or nothing is saved; got 1\.0"):
        pela.Config(ratio=1.0)
