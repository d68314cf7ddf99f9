"""TTM: levels move no value, channels stay apart, known ones correct, the frozen part stays; blocks equal PatchTSMixer's."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW
from headwater.methods.supervise import ttm
from headwater.parts.mixer import Level, Mixer, MixerConfig, stack
from tests.small import mixer, step, vit

LEVELS = {"dim": 32, "levels": 3, "depth": 2}


def build(channels: int = 2, encoder: dict[str, Any] | None = None, **changes: Any) -> ttm.TTM:
    torch.manual_seed(0)
    made = replace(ttm.TINY, **changes).build({"series": mixer(channels, **{**LEVELS, **(encoder or {})})})
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made.eval()


def told(method: ttm.TTM, x: Tensor) -> Tensor:
    return method.predict(Batch({"series": x}), step()).detach()


def test_levels_go_from_fine_to_coarse_and_move_no_value() -> None:
    encoder = mixer(**LEVELS)
    assert isinstance(encoder, Mixer)
    x = torch.arange(2 * 3 * 6 * 32.0).view(2, 3, 6, 32)
    seen: list[torch.Size] = []
    for level in encoder.blocks:
        level.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
        assert torch.equal(level.down(level.up(x)), x)
        assert torch.equal(level.up(x).flatten(), x.flatten())
    encoder.blocks(x)
    assert seen == [(2, 3, 24, 8), (2, 3, 12, 16), (2, 3, 6, 32)]
    assert [MixerConfig(**{**shape(), "dim": 8}).parts(k) for k in range(3)] == [
        1,
        1,
        1,
    ]  # parts of 4 and less are none
    with pytest.raises(RequestError, match="must divide by 4"):
        MixerConfig(**{**shape(), "dim": 30})


def shape() -> dict[str, Any]:
    return {"channels": 1, "length": 24, "patch": 4, "levels": 3}


@pytest.mark.parametrize("levels", [0, 1])
def test_one_level_is_a_plain_mixer(levels: int) -> None:
    plain = mixer(dim=32, depth=2)
    assert isinstance(plain, Mixer)
    other = mixer(dim=32, depth=2, levels=levels)
    state = {k.replace("blocks.", "blocks.0.blocks.") if levels else k: v for k, v in plain.state_dict().items()}
    other.load_state_dict(state)
    x = torch.randn(3, 2, 24)
    assert torch.equal(plain(x).tokens, other(x).tokens)


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
@pytest.mark.parametrize("mode", ["common_channel", "mix_channel"])
def test_blocks_of_a_level_equal_the_reference(mode: str) -> None:
    reference = pytest.importorskip("transformers.models.patchtsmixer.modeling_patchtsmixer")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    mixing = mode == "mix_channel"
    config = MixerConfig(**{**shape(), "channels": 3}, dim=32, depth=2, mixing=mixing)
    ours = Level(config, 4)
    theirs = transformers.PatchTSMixerConfig(
        context_length=96, patch_length=4, patch_stride=4, d_model=8, num_input_channels=3, mode=mode, dropout=0.0
    )  # 24 patches of 8 features, as those of 6 and 32 become
    layers = [reference.PatchTSMixerLayer(theirs).eval() for _ in range(2)]
    axes = {
        "patches": "patch_mixer",
        "features": "feature_mixer",
        **({"channels": "channel_feature_mixer"} if mixing else {}),
    }
    for block, layer in zip(ours.blocks, layers, strict=True):
        for a, b in ((getattr(block, o), getattr(layer, t)) for o, t in axes.items()):
            for p in b.parameters():
                nn.init.normal_(p, std=0.3)
            pairs = (
                (a.norm.norm, b.norm.norm),
                (a.mlp[0], b.mlp.fc1),
                (a.mlp[3], b.mlp.fc2),
                (a.gate.weigh, b.gating_block.attn_layer),
            )
            for mine, other in pairs:
                mine.load_state_dict(other.state_dict())
    x = torch.randn(2, 3, 6, 32)
    want = x.reshape(2, 3, 24, 8)
    for layer in layers:
        want = layer(want)
    torch.testing.assert_close(ours(x), want.reshape(2, 3, 6, 32))
    assert len(stack(config.over(24, 8))) == 2


def test_channels_do_not_see_each_other_and_any_number_may_come() -> None:
    method, x = build(), torch.randn(3, 2, 24)
    said = told(method, x)
    other = x.clone()
    other[:, 1] = torch.randn(3, 24)
    assert torch.equal(told(method, other)[:, 0], said[:, 0])
    torch.testing.assert_close(told(method, torch.cat([x, x, x], 1)), torch.cat([said] * 3, 1))
    torch.testing.assert_close(
        told(method, torch.cat([torch.randn(3, 2, 9), x], 2)), said
    )  # the last steps alone are seen
    mixed = build(mixing=True)
    said = told(mixed, x)
    assert (told(mixed, other)[:, 0] - said[:, 0]).abs().min() > 0
    with pytest.raises(RequestError, match="looks across 2 channels; these series have 1"):
        told(mixed, x[:, :1])


def test_forecasts_follow_unit_and_level() -> None:
    method, x = build(), torch.randn(3, 2, 24)
    said = told(method, x)
    torch.testing.assert_close(told(method, 20 * x - 50), 20 * said - 50, rtol=1e-3, atol=1e-2)
    method.encoder.normalise.set(torch.tensor([4.0, -50.0]), torch.tensor([2.0, 20.0]))
    torch.testing.assert_close(told(method, 20 * x - 50), 20 * said - 50, rtol=1e-3, atol=1e-2)


def test_known_channels_correct_the_others_and_only_their_future_counts() -> None:
    method = build(3, known=(1,))
    x = torch.randn(4, 3, 32)
    said = told(method, x)
    assert torch.equal(said[:, 1], x[:, 1, 24:])
    blind = x.clone()
    blind[:, [0, 2], 24:] = torch.nan
    torch.testing.assert_close(told(method, blind), said)
    x[:, 1, 28] += 1  # a step of the future touches the forecasts one step around it
    moved = ((told(method, x) - said).abs() > 0)[:, [0, 2]]
    assert moved[..., 3:6].all() and not moved[..., :3].any() and not moved[..., 6:].any()
    nn.init.zeros_(method.forecaster.reconcile.linear.weight)
    nn.init.zeros_(method.forecaster.reconcile.linear.bias)
    plain = build(3)
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if "reconcile" not in k})
    torch.testing.assert_close(told(method, x)[:, [0, 2]], told(plain, x[..., :24])[:, [0, 2]])
    fresh = replace(ttm.TINY, reconcile=1).build({"series": mixer()})
    assert not fresh.forecaster.reconcile.linear.weight.any()  # it begins as if it were not there


def test_what_is_frozen_stays() -> None:
    method = replace(ttm.TINY, frozen=True).build({"series": mixer(**LEVELS)})
    before = {k: v.clone() for k, v in method.state_dict().items()}
    data = Batch({"series": torch.randn(8, 2, 32)})
    fit(method, lambda start: iter([data] * 9), FitConfig(steps=3, batch_size=8, optimiser=AdamW(weight_decay=0.1)))
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not [k for k in changed if k.startswith("encoder.")]
    assert all(p.grad is None for p in method.encoder.parameters())


def test_the_loss_is_in_the_scale_of_the_data_and_passes_over_what_is_missing() -> None:
    method = build()
    method.encoder.normalise.set(torch.tensor([5.0, 0.0]), torch.tensor([10.0, 0.5]))
    x = torch.randn(4, 2, 32)
    x[0, 0, 26:], x[1, 1, 2:9] = torch.nan, torch.nan
    away = (told(method, x[..., :24]) - x[..., 24:]) / torch.tensor([[10.0], [0.5]])
    loss = method(Batch({"series": x}), step()).value
    torch.testing.assert_close(loss, away.square().nanmean())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_the_sampling_rate_is_told_by_a_token() -> None:
    method = build(encoder={"resolutions": 3})
    x = torch.randn(2, 2, 32)
    assert method.encoder(x).tokens.shape == (2, 12, 32) and method.encoder(x).prefix.shape == (2, 2, 32)
    unknown, first, second = (method(Batch({"series": x}, torch.full((2,), k)), step()).value for k in (-1, 0, 1))
    assert len({float(v.detach()) for v in (unknown, first, second)}) == 3
    assert torch.equal(method(Batch({"series": x}), step()).value, unknown)
    assert method.forecaster.head.linear.in_features == 7 * 8  # patches and the token, decoder width


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match="ttm-micro"):
        ttm.TINY.build({"series": vit()})
    with pytest.raises(RequestError, match="no window of 32"):
        build()(Batch({"series": torch.randn(2, 2, 30)}), step())
    with pytest.raises(RequestError, match="channel 2 is said to be known; there are 2"):
        build(known=(2,), reconcile=1)
    with pytest.raises(RequestError, match="at least 1 step"):
        ttm.Config(horizon=0)
    with pytest.raises(RequestError, match="from the 24 before them; a series has 30"):
        told(build(known=(1,), reconcile=1), torch.randn(1, 2, 30))
