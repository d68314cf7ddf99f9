"""The mixer equals PatchTSMixer of `transformers`, both ways; it and the perceptron take missing values for what they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import RequestError
from headwater.interop import huggingface as hf
from headwater.parts.mixer import MixerConfig
from headwater.parts.perceptron import PerceptronConfig
from headwater.parts.tokens import TableTokenizerConfig
from tests.law.huggingface import close, round_trip, written

transformers = pytest.importorskip("transformers")

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixing": {"mode": "mix_channel", "use_positional_encoding": True},
    "attention": {"self_attn": True, "self_attn_heads": 2, "norm_mlp": "BatchNorm", "scaling": "mean"},
    "overlapping": {"patch_stride": 4, "gated_attn": False, "scaling": None, "positional_encoding_type": "random",
                    "use_positional_encoding": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_theirs_says_and_goes_back_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    shape = {"context_length": 35, "patch_length": 8, "patch_stride": 8, "d_model": 8, "num_layers": 2}
    config = transformers.PatchTSMixerConfig(**{**shape, "num_input_channels": 3, **KINDS[kind]})
    model = transformers.PatchTSMixerModel(config)
    loaded = hf.load(written(model, tmp_path / "theirs"))
    x = 5 + 3 * torch.randn(4, 3, 35)
    with torch.no_grad():
        want = model(x.mT).last_hidden_state
        close(loaded.encoder(x), want.flatten(1, 2), want.mean((1, 2)))
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(x.mT).last_hidden_state, want)


def test_what_normalises_channels_goes_along_and_comes_back(tmp_path: Path) -> None:
    config = MixerConfig(channels=2, length=32, patch=8, dim=8, depth=1)
    net = config.build().eval()
    net.normalise.set(torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0]))
    hf.save(net, config, {}, tmp_path)
    x = torch.randn(2, 2, 32)
    assert torch.equal(hf.load(tmp_path).encoder(x).pooled, net(x).pooled)


@pytest.mark.parametrize("scaling", ["std", "mean", "none"])
def test_a_missing_value_counts_as_the_mean_of_its_channel(scaling: Any) -> None:
    net = MixerConfig(channels=2, length=32, patch=8, dim=8, depth=1, scaling=scaling).build().eval()
    x = torch.randn(1, 2, 32)
    x[0, 0, 5] = x[0, 0, torch.arange(32) != 5].mean()
    holed = x.clone()
    holed[0, 0, 5] = torch.nan
    holed[0, 1, :] = torch.nan
    assert torch.isfinite(net(holed).pooled).all()
    if scaling == "none":  # the mean adds nothing to a channel's sum of squares, and does add to its size
        torch.testing.assert_close(net(holed).tokens[:, :4], net(x).tokens[:, :4])


def test_channels_that_do_not_mix_do_not_touch_each_other() -> None:
    x = torch.randn(1, 2, 32, requires_grad=True)
    for mixing in (False, True):
        net = MixerConfig(channels=2, length=32, patch=8, dim=8, depth=1, mixing=mixing).build()
        grad = torch.autograd.grad(net(x).tokens[0, :4].square().sum(), x)[0]
        assert (grad[0, 1].abs().sum() > 0) == mixing


def test_a_length_that_it_was_not_made_for_is_named() -> None:
    net = MixerConfig(channels=1, length=32, patch=8).build()
    with pytest.raises(RequestError, match="32 steps; the input has 40"):
        net(torch.rand(1, 1, 40))
    with pytest.raises(RequestError, match="longer than the series"):
        MixerConfig(channels=1, length=8, patch=16)
    with pytest.raises(RequestError, match="vit-micro"):
        net(torch.rand(1, 1, 32), keep=torch.zeros(1, 2, dtype=torch.long))


def test_the_perceptron_tells_a_missing_cell_from_the_mean() -> None:
    net = PerceptronConfig(tokenizer=TableTokenizerConfig(columns=4), dim=8, depth=2).build()
    net.tokenizer.normalise.set(torch.full((4,), 7.0), torch.full((4,), 2.0))
    mean, holed = torch.full((2, 4), 7.0), torch.full((2, 4), 7.0)
    holed[0, 1] = torch.nan
    said, told = net(mean).pooled, net(holed).pooled
    assert torch.isfinite(told).all() and torch.equal(said[1], told[1]) and not torch.allclose(said[0], told[0])
    assert net(mean).tokens.shape == (2, 1, 8)
    with pytest.raises(RequestError, match="vit-micro"):
        net(mean, keep=torch.zeros(2, 1, dtype=torch.long))
