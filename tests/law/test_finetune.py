"""Fine-tuning's options: rates that fall from layer to layer, layers that are kept, and stopping when nothing gets better."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW
from headwater.methods.adapt import finetune
from headwater.methods.supervise import classify
from tests.small import batch, convnet, vit


def made() -> classify.Classify:
    torch.manual_seed(0)
    return classify.TINY.build({"image": vit(class_token=True)})


def stream(start: int) -> Iterator[Batch]:
    while True:
        yield batch()


def test_the_rate_falls_from_layer_to_layer() -> None:
    method = made()
    rates = {}
    for group in AdamW(layer_decay=0.5).build(method).param_groups:
        rates |= dict.fromkeys(group["params"], (group["scale"], group["weight_decay"]))
    found = {n: rates[p] for n, p in method.named_parameters()}
    want = {
        "tokenizer.embed": 0.125,
        "prefix": 0.125,
        "blocks.0": 0.25,
        "blocks.1": 0.5,
        "trunk.norm": 1.0,
        "head": 1.0,
    }
    for part, scale in want.items():
        assert {found[n][0] for n in found if part in n} == {scale}, part
    assert (
        found["encoder.trunk.blocks.0.mlp.0.weight"][1] == 0.05 and found["encoder.trunk.blocks.0.mlp.0.bias"][1] == 0.0
    )
    assert len(rates) == len([*method.parameters()])
    plain = AdamW().build(method).param_groups
    assert [g["scale"] for g in plain] == [1.0, 1.0] and [g["weight_decay"] for g in plain] == [0.05, 0.0]


def test_a_step_moves_early_layers_less() -> None:
    moved = {}
    for decay in (1.0, 0.1):
        method = made()
        before = {n: p.detach().clone() for n, p in method.named_parameters()}
        optimiser = AdamW(rate=1e-3, warmup=0.0, weight_decay=0.0, layer_decay=decay)
        fit(method, stream, FitConfig(steps=1, batch_size=8, optimiser=optimiser))
        moved[decay] = {n: float((p.detach() - before[n]).abs().max()) for n, p in method.named_parameters()}
    for name, share in (("head.weight", 1.0), ("encoder.trunk.blocks.1.mlp.0.weight", 0.1), ("encoder.prefix", 1e-3)):
        assert moved[0.1][name] == pytest.approx(share * moved[1.0][name], rel=0.05), name


def test_frozen_layers_keep_their_weights() -> None:
    encoder = finetune.Config(freeze=1).build().adapt(vit(class_token=True))
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert all("blocks.1" in n or n.startswith("trunk.norm") for n in trained) and len(trained) == 14
    assert all(p.requires_grad for p in finetune.TINY.build().adapt(convnet()).parameters())
    with pytest.raises(RequestError, match="freeze=3 was asked for, and this TokenEncoder has 2 blocks"):
        finetune.Config(freeze=3).build().adapt(vit())


def numbers(values: list[float]) -> Any:
    """Facts that say one after the other."""
    left = iter(values)
    return lambda: {"good": next(left)}


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_that_gets_no_better_ends_with_its_best_weights(kept: bool, tmp_path: Path) -> None:
    said = [0.1, 0.5, 0.3, 0.4, 0.5, 0.9]
    config = FitConfig(steps=60, batch_size=8, log_every=10, keep_best="good", patience=3, optimiser=AdamW(rate=1e-2))
    method, out = made(), tmp_path / "run" if kept else None
    found = fit(method, stream, config, out=out, facts=numbers(said))
    assert found.done and found.step == 50  # 0.9 is never seen
    whole = made()
    fit(whole, stream, FitConfig(steps=60, batch_size=8, log_every=10, optimiser=AdamW(rate=1e-2)))
    weights, others = dict(method.named_parameters()), dict(whole.named_parameters())
    assert not torch.equal(weights["head.weight"], others["head.weight"])
    if kept:
        again = made()
        assert fit(again, stream, config, out=out, resume=True, facts=numbers([])).step == 50
        assert torch.equal(again.head.weight, method.head.weight)


def test_the_best_weights_are_those_of_the_best_line() -> None:
    caught: list[torch.Tensor] = []
    method = made()

    def facts() -> dict[str, Any]:
        caught.append(method.head.weight.detach().clone())
        return {"good": -abs(len(caught) - 2)}

    fit(method, stream, FitConfig(steps=90, batch_size=8, keep_best="good", patience=2), facts=facts)
    assert len(caught) == 4 and torch.equal(method.head.weight, caught[1])


def test_patience_that_is_not_tried_changes_nothing() -> None:
    one, other = made(), made()
    fit(one, stream, FitConfig(steps=30, batch_size=8))
    fit(other, stream, FitConfig(steps=30, batch_size=8, keep_best="good", patience=5), facts=numbers([1.0, 2.0, 3.0]))
    assert torch.equal(one.head.weight, other.head.weight)


def test_it_is_a_verb_for_users(tmp_path: Path) -> None:
    hw.pretrain("mae", "digits", out=tmp_path / "run", steps=2, batch_size=16, device="cpu")
    edits = ["fit.patience=1", "fit.log_every=2", "adapter.freeze=1", "fit.optimiser.rate=1e-9"]
    found = hw.adapt(
        "finetune", tmp_path / "run", "digits", out=tmp_path / "t", steps=40, batch_size=16, device="cpu", set=edits
    )
    _, tuned, full = found["rows"]
    assert tuned["trained_parameters"] < full["trained_parameters"]
    assert tuned["steps"] == 4  # nothing gets better at such a rate
    assert found["adapter_bytes"] < 4.2 * tuned["trained_parameters"] + 9000  # what is frozen is not saved again
    assert hw.load(tmp_path / "t").dim == hw.load(tmp_path / "run").dim


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match=r"layer_decay lies above 0 and is 1 at most; got 1\.5"):
        AdamW(layer_decay=1.5)
    with pytest.raises(RequestError, match="patience must not be negative"):
        FitConfig(patience=-1)
    with pytest.raises(RequestError, match="patience=2 needs keep_best"):
        fit(made(), stream, FitConfig(steps=2, batch_size=8, patience=2))
    with pytest.raises(RequestError, match="freeze must not be negative"):
        finetune.Config(freeze=-1)
