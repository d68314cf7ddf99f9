"""Swin and SwinV2: equal outputs to `transformers` and equal bits on the way back, windows that do not leak, any size."""

from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import RequestError
from headwater.interop import huggingface as hf
from headwater.parts.swin import SwinConfig, together
from tests.law.huggingface import close, round_trip, written

transformers = pytest.importorskip("transformers")


def swin(version: int, **more: Any) -> Any:
    shape = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4}
    if version == 1:
        return transformers.SwinModel(transformers.SwinConfig(**{**shape, **more}))
    return transformers.Swinv2Model(transformers.Swinv2Config(**{**shape, **more}))


@pytest.mark.parametrize("version", [1, 2])
def test_it_says_what_theirs_says_and_goes_back_to_the_same_bits(version: int, tmp_path: Path) -> None:
    model = swin(version, pretrained_window_sizes=[6, 3]) if version == 2 else swin(version)
    loaded = hf.load(written(model, tmp_path / "theirs"))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found, want = loaded.encoder(x), model(x)
        close(found, want.last_hidden_state, want.pooler_output)
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(x).pooler_output, want.pooler_output)


@pytest.mark.parametrize("version", [1, 2])
def test_pictures_that_divide_into_nothing_are_filled_up_as_theirs(version: int, tmp_path: Path) -> None:
    model = swin(version, image_size=36)  # 18 tokens in windows of 4, then 9
    loaded = hf.load(written(model, tmp_path))
    x = torch.rand(1, 3, 35, 36)
    with torch.no_grad():
        want = model(x)
        close(loaded.encoder(x), want.last_hidden_state, want.pooler_output)


def small(version: int, **more: Any) -> SwinConfig:
    return SwinConfig(
        **{"dim": 8, "depths": (2, 2), "heads": (2, 4), "window": 4, "version": version, "patch": 2, **more}
    )


@pytest.mark.parametrize("version", [1, 2])
def test_windows_keep_to_themselves_and_shifting_joins_neighbours(version: int) -> None:
    net = small(version, depths=(2,), heads=(2,)).build().eval()
    x = torch.randn(1, 16, 16, 8, requires_grad=True)
    for block, reached in ((net.stages[0][0], 4), (net.stages[0][1], 2)):
        grad = torch.autograd.grad(block.windowed(x)[0, 0, 0].sum(), x)[0][0].abs().sum(-1) > 0
        assert grad[:reached, :reached].all() and grad.sum() == reached**2  # shifted, the corner is a window of 2 x 2
    assert together(2, 2, 4, 2, torch.device("cpu")).sum((1, 2)).tolist() == [256, 128, 128, 64]


@pytest.mark.parametrize("version", [1, 2])
def test_a_map_smaller_than_a_window_is_one_window(version: int) -> None:
    net = small(version, window=7).build().eval()
    out = net(torch.rand(2, 3, 8, 8))
    assert out.tokens.shape == (2, 4, 16) and out.pooled.isfinite().all()


def test_the_sizes_are_those_published() -> None:
    count = lambda c: sum(p.numel() for p in c.build().parameters())  # noqa: E731
    assert count(SwinConfig()) == 27_519_354  # Swin-T without its classifier
    assert count(SwinConfig(version=2, window=8)) == 27_578_154


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(RequestError, match="same stages"):
        SwinConfig(depths=(2,))
    with pytest.raises(RequestError, match="stage 1 does not divide into 5 heads"):
        SwinConfig(depths=(2,), heads=(5,))
    with pytest.raises(RequestError, match="vit-tiny"):
        small(1).build()(torch.rand(1, 3, 16, 16), keep=torch.zeros(1, 2, dtype=torch.long))


def test_absolute_positions_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="use_absolute_embeddings=True"):
        hf.load(written(swin(1, use_absolute_embeddings=True), tmp_path))
