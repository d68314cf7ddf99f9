"""TSMixer: equal to PatchTSMixer of transformers in filling in and in forecasting; channels, gates, masks and heads by law."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.interop.huggingface.family import to_ours
from headwater.interop.huggingface.patchtsmixer import PatchTSMixer
from headwater.methods.reconstruct import tsmixer
from headwater.parts.forecasting import Hierarchy, Reconcile, ReconcileConfig
from headwater.parts.mixer import Gate
from tests.small import mixer, step, vit

SHAPE: dict[str, Any] = {
    "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 8, "num_layers": 2, "num_input_channels": 3,
    "prediction_length": 10, "dropout": 0.0, "head_dropout": 0.0,
}  # fmt: skip


def build(channels: int = 2, encoder: dict[str, Any] | None = None, **changes: Any) -> tsmixer.TSMixer:
    torch.manual_seed(0)
    made = replace(tsmixer.TINY, **changes).build({"series": mixer(channels, **(encoder or {}))})
    for p in made.parameters():  # norms and biases too: a weight of one or zero would hide a mistake
        nn.init.normal_(p, std=0.3)
    return made


def carried(theirs: nn.Module, config: tsmixer.Config, mixing: bool) -> tsmixer.TSMixer:
    """Our method with the reference's weights."""
    family, given = PatchTSMixer(), theirs.config.to_dict()
    method = config.build({"series": family.architecture(given, {}).build()})
    state = {k.removeprefix("model."): v for k, v in theirs.state_dict().items()}
    assert method.encoder.config.mixing == mixing
    ours = to_ours(family.rules(given), state)
    method.encoder.load_state_dict({**method.encoder.state_dict(), **ours})
    assert {*ours} | {"normalise.mean", "normalise.std"} == {*method.encoder.state_dict()}
    head = theirs.head.base_forecast_block if config.horizon else theirs.head.base_pt_block
    (method.forecaster.head.linear if config.horizon else method.to_patch[1]).load_state_dict(head.state_dict())
    return method.eval()


@pytest.fixture(params=["common_channel", "mix_channel"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def drawn(make: Any, **config: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model = getattr(transformers, make)(transformers.PatchTSMixerConfig(**{**SHAPE, **config})).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
@pytest.mark.parametrize("hidden_only", [True, False])
def test_filling_in_equals_the_reference(mode: str, hidden_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = drawn("PatchTSMixerForPretraining", mode=mode, masked_loss=hidden_only)
    method = carried(theirs, replace(tsmixer.TINY, hidden_only=hidden_only), mode == "mix_channel")
    x = 5 + 3 * torch.randn(4, 3, 32)
    mask = method.hidden(method.encoder.cut(x), Rng(3))

    def theirs_masks(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs.masked_fill(mask[..., None], 0), mask.float()

    monkeypatch.setattr(theirs.model.masking, "forward", theirs_masks)
    want = theirs(x.mT)
    got = method(Batch({"series": x}), Step(Rng(3)))
    torch.testing.assert_close(got.value, want.loss, rtol=1e-5, atol=0)
    want.loss.backward()
    got.value.backward()
    theirs_embed = theirs.model.encoder.patcher.weight.grad
    torch.testing.assert_close(method.encoder.embed.weight.grad, theirs_embed, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_forecasts_equal_the_reference(mode: str) -> None:
    theirs = drawn("PatchTSMixerForPrediction", mode=mode)
    method = carried(theirs, replace(tsmixer.TINY, horizon=10), mode == "mix_channel")
    x = 5 + 3 * torch.randn(4, 3, 42)
    want = theirs(x[..., :32].mT, future_values=x[..., 32:].mT)
    torch.testing.assert_close(method.predict(Batch({"series": x[..., :32]}), step()), want.prediction_outputs.mT)
    torch.testing.assert_close(method(Batch({"series": x}), step()).value, want.loss)


def test_channels_meet_only_where_they_mix() -> None:
    x, other = torch.randn(2, 3, 24), torch.randn(2, 24)
    changed = x.clone()
    changed[:, 2] = other
    apart, mixed = (
        build(3, {"mixing": m, "any_series": not m}, horizon=8).eval() for m in (False, True)
    )  # fmt: skip
    said, told = (apart.predict(Batch({"series": v}), step()) for v in (x, changed))
    assert torch.equal(said[:, :2], told[:, :2]) and not torch.equal(said[:, 2], told[:, 2])
    order = [2, 0, 1]
    torch.testing.assert_close(apart.predict(Batch({"series": x[:, order]}), step()), said[:, order])
    said, told = (mixed.predict(Batch({"series": v}), step()) for v in (x, changed))
    assert (said[:, :2] - told[:, :2]).abs().min() > 0


def test_a_gate_shares_out_one_and_with_no_weights_shares_evenly() -> None:
    gate = Gate(6)
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close((gate(x) / x).sum(-1), torch.ones(2, 3, 4))
    nn.init.zeros_(gate.weigh.weight)
    nn.init.zeros_(gate.weigh.bias)
    torch.testing.assert_close(gate(x), x / 6)


@pytest.mark.parametrize("hierarchy", [0, 4])
def test_forecasts_follow_unit_and_level(hierarchy: int) -> None:
    method = build(horizon=8, hierarchy=hierarchy).eval()
    x = torch.randn(4, 2, 24)
    said = method.predict(Batch({"series": x}), step())
    told = method.predict(Batch({"series": 30 * x - 7}), step())
    torch.testing.assert_close(told, 30 * said - 7, rtol=1e-3, atol=1e-2)  # up to the floor of the variance
    method.encoder.normalise.set(torch.tensor([-7.0, 3.0]), torch.tensor([30.0, 0.5]))
    torch.testing.assert_close(
        method.predict(Batch({"series": 30 * x - 7}), step()), 30 * said - 7, rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize(("ratio", "n"), [(0.5, 5), (0.4, 6), (0.5, 6), (0.75, 7)])
def test_the_count_of_hidden_patches_is_that_of_the_reference(ratio: float, n: int) -> None:
    patches = torch.zeros(8, 3, n, 4)
    alike = build(ratio=ratio).hidden(patches, Rng(0))
    assert (alike.sum(2) == n - int(n * (1 - ratio))).all()
    assert torch.equal(alike, alike[:, :1].expand_as(alike)) and not torch.equal(alike[0], alike[1])
    own = build(ratio=ratio, consistent=False).hidden(patches, Rng(0))
    assert (own.sum(2) == n - int(n * (1 - ratio))).all() and not torch.equal(own[:, 0], own[:, 1])
    final = build(final=2).hidden(patches, Rng(0))
    assert final[..., -2:].all() and not final[..., :-2].any()


def test_only_hidden_and_known_values_cost_anything() -> None:
    method = build()
    x = torch.randn(4, 2, 24)
    x[0, 1, 3:14], x[1, 0] = torch.nan, torch.nan
    hidden = method.hidden(method.encoder.cut(x), step().rng)
    known = method.encoder.cut(~x.isnan())
    said: list[Tensor] = []
    method.to_patch.register_forward_hook(lambda _, __, out: (out.retain_grad(), said.append(out))[0])
    loss = method(Batch({"series": x}), step()).value
    loss.backward()
    assert loss.isfinite() and said[0].grad is not None
    assert torch.equal(said[0].grad != 0, known & hidden[..., None])


def test_the_loss_is_the_same_for_series_that_differ_in_length() -> None:
    x = torch.randn(3, 2, 24)
    longer = torch.cat([x, torch.full((3, 2, 5), 77.0)], 2)
    method = build()
    want = method(Batch({"series": x}), step()).value
    torch.testing.assert_close(method(Batch({"series": Ragged(longer, torch.full((3, 1), 24))}), step()).value, want)
    with pytest.raises(RequestError, match="20 steps is shorter than the 24"):
        method(Batch({"series": Ragged(longer, torch.full((3, 1), 20))}), step())


def test_reconciliation_sees_all_channels_around_each_step() -> None:
    torch.manual_seed(0)
    across = ReconcileConfig(targets=2, known=1, around=1).build()
    base, past, known = torch.randn(3, 2, 5), torch.randn(3, 3, 9), torch.randn(3, 1, 5)
    whole = torch.cat([past[..., -1:], torch.cat([base, known], 1), torch.zeros(3, 3, 1)], 2)
    for t in range(5):
        flat = whole[..., t : t + 3].flatten(1)
        gated = flat * across.gate.weigh(flat).softmax(1)
        torch.testing.assert_close(across(base, past, known)[..., t], base[..., t] + across.linear(gated))
    blind = Reconcile(replace(across.config, past=False, known=0))
    assert torch.equal(blind(base, past[:, :2]), blind(base, past[:, :2] + 1))
    nn.init.zeros_(across.linear.weight)
    nn.init.zeros_(across.linear.bias)
    assert torch.equal(across(base, past, known), base)


def test_a_hierarchy_costs_its_means_and_its_disagreement() -> None:
    method = build(horizon=8, hierarchy=4)
    x = torch.randn(3, 2, 32)
    forecast, means = method.forecast(method.encoder.seen(x[..., :24]))
    assert means is not None
    truth = x[..., 24:]

    def mean(v: Tensor) -> Tensor:
        return torch.stack([v[..., :4].mean(2), v[..., 4:].mean(2)], 2)

    want = (forecast - truth).square().mean() + (
        (means - mean(truth)).square().mean() + (mean(forecast) - means).square().mean()
    ) / 4  # fmt: skip
    torch.testing.assert_close(method(Batch({"series": x}), step()).value, want)
    with pytest.raises(RequestError, match="3 steps does not divide"):
        Hierarchy(4, 8, 8, 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match="learned to fill in"):
        build().predict(Batch({"series": torch.randn(2, 2, 24)}), step())
    with pytest.raises(RequestError, match="mixer-micro"):
        tsmixer.TINY.build({"series": vit()})
    with pytest.raises(RequestError, match="no window of 44"):
        build(horizon=20)(Batch({"series": torch.randn(2, 2, 32)}), step())
    with pytest.raises(RequestError, match="hides all of 6"):
        build(ratio=0.9)(Batch({"series": torch.randn(2, 2, 24)}), step())
