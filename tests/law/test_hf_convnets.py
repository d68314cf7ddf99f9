"""ResNet and ConvNeXt of `transformers`: equal outputs, and equal bits on the way back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import RequestError
from headwater.interop import huggingface as hf
from tests.law.huggingface import close, round_trip, written

transformers = pytest.importorskip("transformers")


def convnext(**more: Any) -> Any:
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8, 12], depths=[1, 2, 1], num_stages=3, image_size=32, **more)
    return transformers.ConvNextModel(config)


def resnet(**more: Any) -> Any:
    kind = {"hidden_sizes": [16, 32], "depths": [2, 1], "embedding_size": 8, **more}
    return transformers.ResNetModel(transformers.ResNetConfig(**kind))


MODELS = {
    "convnext": convnext,
    "resnet, bottleneck": resnet,
    "resnet, basic": lambda: resnet(layer_type="basic", embedding_size=16),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_says_what_theirs_says_and_goes_back_to_the_same_bits(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    loaded = hf.load(written(model, tmp_path / "theirs"))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found, want = loaded.encoder(x), model(x)
        close(found, want.last_hidden_state.flatten(2).mT, want.pooler_output.flatten(1))
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(x).pooler_output, want.pooler_output)


def test_a_head_is_left_behind(tmp_path: Path) -> None:
    model = transformers.ConvNextForImageClassification(convnext().config)
    loaded = hf.load(written(model, tmp_path))
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encoder(x).pooled, model.convnext(x).pooler_output)


def test_a_setting_that_we_do_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="downsample_in_bottleneck=True"):
        hf.load(written(resnet(downsample_in_bottleneck=True), tmp_path))
