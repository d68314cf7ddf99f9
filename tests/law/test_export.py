"""Checkpoints of other libraries through every verb, and encoders written for other programs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import headwater as hw
from headwater.api.encoders import Pretrained, prepare
from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Features, Ragged
from headwater.core.verbs import Encoder
from headwater.engine.artefact import Card, load_encoder, save_encoder
from headwater.interop import export as files
from headwater.parts.architectures import named
from tests.law.huggingface import relative, written

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small ResNet over the digits, with its processor."""
    at = tmp_path_factory.mktemp("resnet")
    shape = {"num_channels": 1, "hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8}
    size = {"image_mean": [0.3], "image_std": [0.4], "size": {"height": 32, "width": 32}}
    written(transformers.ResNetModel(transformers.ResNetConfig(**shape)), at, transformers.ViTImageProcessorPil(**size))
    return f"hf:{at}"


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> str:
    at = tmp_path_factory.mktemp("swin")
    shape = {
        "num_channels": 1,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
        "image_size": 16,
    }
    size = {"image_mean": [0.3], "image_std": [0.4], "size": {"height": 16, "width": 16}}
    written(transformers.SwinModel(transformers.SwinConfig(**shape)), at, transformers.ViTImageProcessorPil(**size))
    return f"hf:{at}"


def test_it_goes_through_every_verb(swin: str, tmp_path: Path) -> None:
    start = hw.load(swin)
    vectors = hw.embed(swin, "digits", out=tmp_path / "vectors")
    np.testing.assert_array_equal(vectors, hw.embed(start, "digits"))
    said = hw.evaluate(swin, "digits", labels_per_class=[5], baselines=["raw", "random"], draws=2)
    assert len(said["rows"]) == 6
    hw.adapt("lora", swin, "digits", out=tmp_path / "adapted", steps=2)
    assert hw.load(tmp_path / "adapted").card.preprocessing == start.card.preprocessing
    run = hw.pretrain("simclr", "digits", out=tmp_path / "run", steps=1, batch_size=16, encoder=swin)
    before, after = start.encoder.state_dict(), run.encoder.encoder.state_dict()
    moved = {k: float((after[k] - v).abs().max()) for k, v in before.items()}
    assert 0 < moved["patches.weight"] < 0.01 and moved["normalise.mean"] == 0  # it went on from there, and not far
    assert run.encoder.card.preprocessing == start.card.preprocessing
    assert hw.export(run.path, tmp_path / "back")["model_type"] == "swin"
    assert torch.equal(hw.load(f"hf:{tmp_path / 'back'}").encoder.state_dict()["norm.weight"], after["norm.weight"])


PROCESSORS: dict[str, Any] = {
    "stretched": lambda: transformers.ViTImageProcessorPil(size={"height": 24, "width": 24}, resample=3),
    "stretched and cut": lambda: transformers.DeiTImageProcessorPil(
        size={"height": 32, "width": 32}, crop_size={"height": 28, "width": 28}, resample=3
    ),
    "covered and cut": lambda: transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}
    ),
    "ConvNeXt's": lambda: transformers.ConvNextImageProcessorPil(size={"shortest_edge": 28}, crop_pct=0.875),
    "not rescaled to one": lambda: transformers.ViTImageProcessorPil(
        size={"height": 24, "width": 24}, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_are_prepared_as_their_processor_does(name: str, tmp_path: Path) -> None:
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, image_size=28)
    processor = PROCESSORS[name]()
    loaded = hw.load(f"hf:{written(transformers.ConvNextModel(config), tmp_path / 'a', processor)}")
    hw.export(loaded, tmp_path / "b")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)  # pictures of blobs, not of noise
    for side in ((37, 50), (61, 40), (28, 28)):
        pictures = [np.asarray(Image.fromarray(c).resize(side[::-1], Image.Resampling.BICUBIC)) for c in coarse]
        want = torch.from_numpy(np.stack(processor(pictures)["pixel_values"]))
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        for at in (loaded, hw.load(f"hf:{tmp_path / 'b'}")):
            found = at.encoder.normalise(at.prepare(x))
            assert found.shape == want.shape
            step = 2 / 255 / at.encoder.normalise.std.min()  # Pillow and torch may round a byte differently
            assert (found - want).abs().max() <= step
        ragged = Ragged(nn.functional.pad(x, (0, 9, 0, 5)), torch.tensor([side, side]))
        torch.testing.assert_close(prepare(ragged, loaded.card.preprocessing), loaded.prepare(x))


def save(at: Path, name: str, modality: str, facts: dict[str, Any], **preprocessing: Any) -> Pretrained:
    torch.manual_seed(0)
    config = named(name, modality, facts)
    encoder = config.build()
    for value in encoder.state_dict().values():  # biases that are not zero
        if value.is_floating_point():
            value.add_(0.05 * torch.rand_like(value))
    save_encoder(at, encoder, Card(config, preprocessing, {"method": "none"}))
    return hw.load(at)


IMAGE = {"channels": 3, "size": (16, 16)}
ENCODERS: dict[str, tuple[Any, ...]] = {
    "resnet-micro": ("image", IMAGE, {"size": [16, 16]}),
    "vit-micro": ("text", {"vocabulary": 40}, {}),
    "swin-micro": ("image", IMAGE, {"size": [16, 16]}),
    "mixer-micro": ("series", {"channels": 2, "length": 32}, {}),
    "mlp-micro": ("table", {"columns": 5}, {}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_onnx_says_what_the_encoder_says(name: str, tmp_path: Path) -> None:
    """By the command, as the checks of annotations in these tests do not know torch's symbols for unknown sizes."""
    modality, facts, preprocessing = ENCODERS[name]
    pretrained = save(tmp_path / "e", name, modality, facts, **preprocessing)
    command = ["export", "--encoder", str(tmp_path / "e"), "--out", str(tmp_path / "e.onnx"), "--json"]
    done = subprocess.run([sys.executable, "-m", "headwater", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["format"] == "onnx" and made["difference"] <= 1e-5
    session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "e.onnx"))
    about = json.loads(session.get_modelmeta().custom_metadata_map["headwater"])
    assert about["modality"] == modality and about["dim"] == pretrained.dim


class Wrong(Encoder):
    """One that says something else once it is traced."""

    modality, dim = "image", 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 4)

    def forward(self, x: Any, keep: Any = None) -> Features:
        tokens = self.linear(x.flatten(1))[:, None]
        return Features(tokens, tokens[:, 0] * (1.001 if torch.compiler.is_exporting() else 1.0))


def test_onnx_that_says_something_else_fails_loudly_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    samples = [torch.rand(n, 3, 4, 4) for n in (2, 3)]
    with pytest.raises(WorkError, match=r"pooled of a batch of 2 differ by 0\.001"):
        files.onnx(Wrong(), samples, {}, tmp_path / "x.onnx")
    assert not [*tmp_path.iterdir()]


def test_safetensors_hold_every_weight_and_how_to_build_it(tmp_path: Path) -> None:
    pretrained = save(tmp_path / "e", "vit-micro", "image", IMAGE, size=[16, 16])
    hw.export(pretrained, tmp_path / "e.safetensors")
    found, own = load_file(tmp_path / "e.safetensors"), pretrained.encoder.state_dict()
    assert found.keys() == own.keys() and all(torch.equal(v, own[k]) for k, v in found.items())
    with safe_open(tmp_path / "e.safetensors", "pt") as file:
        assert json.loads(file.metadata()["headwater"])["preprocessing"] == {"size": [16, 16]}


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    vit = save(tmp_path / "vit", "vit-micro", "image", IMAGE, size=[16, 16])
    with pytest.raises(RequestError, match="learned positions"):
        hw.export(vit, tmp_path / "out")
    with pytest.raises(RequestError, match=r"format named 'tflite'.*Known: hf, onnx, peft, safetensors"):
        hw.export(vit, tmp_path / "out", "tflite")
    with pytest.raises(RequestError, match="exists"):
        hw.export(vit, tmp_path / "vit")
    series = save(tmp_path / "series", "vit-micro", "series", {"channels": 1, "length": 32})
    with pytest.raises(RequestError, match="data="):
        hw.export(series, tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["series", "vit"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), "pickle.*Convert"),
        (lambda at: (at / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda at: (at / "model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
        (lambda at: (at / "config.json").write_text("{"), "no JSON"),
        (lambda at: (at / "config.json").unlink(), "holds no config.json"),
        (lambda at: changed(at, model_type="resnett"), r"'resnett'\. Did you mean resnet\?"),
        (lambda at: changed(at, model_type="convnext", hidden_act="gelu"), "not those of a convnext"),
        (lambda at: changed(at, depths=[1, 2]), r"lacks 18 weights.*layers\.1"),
        (lambda at: changed(at, hidden_sizes=[16], depths=[1]), "not part of a resnet"),
        (lambda at: changed(at, num_channels=3), r"shape \(8, 1, 7, 7\).*\(8, 3, 7, 7\)"),
    ],
)
def test_a_checkpoint_that_is_wrong_is_named(change: Any, message: str, resnet: str, tmp_path: Path) -> None:
    at = tmp_path / "copy"
    at.mkdir()
    for path in Path(resnet.removeprefix("hf:")).iterdir():
        (at / path.name).write_bytes(path.read_bytes())
    change(at)
    with pytest.raises(RequestError, match=message) as found:
        hw.load(f"hf:{at}")
    assert str(at) in str(found.value)


def changed(at: Path, **more: Any) -> None:
    config = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps({**config, **more}))


def test_a_name_that_is_nowhere_is_not_looked_for_on_the_network(resnet: str) -> None:
    with pytest.raises(RequestError, match="local cache holds no checkpoint"):
        hw.load("hf:nobody/nothing")
    with pytest.raises(RequestError, match="give it as hf:"):
        hw.load(resnet.removeprefix("hf:"))


def test_weights_in_parts_are_put_together(tmp_path: Path) -> None:
    model = transformers.ResNetModel(transformers.ResNetConfig(hidden_sizes=[16, 32], depths=[1, 1], embedding_size=8))
    model.eval().save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert relative(hw.load(f"hf:{tmp_path}").encoder(x).pooled, model(x).pooler_output.flatten(1)) <= 1e-5
    next(tmp_path.glob("model-00002-of-*")).unlink()
    with pytest.raises(RequestError, match=r"lacks model-00002-of.* files of weights"):
        hw.load(f"hf:{tmp_path}")


WRAPPED: dict[str, Any] = {
    "image": lambda: transformers.MobileViTModel(
        transformers.MobileViTConfig(
            image_size=32, hidden_sizes=[8, 12, 16], neck_hidden_sizes=[4, 4, 4, 4, 4, 4, 4], num_attention_heads=2
        )
    ),
    "text": lambda: transformers.ElectraModel(
        transformers.ElectraConfig(
            vocab_size=30,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ),
    "series": lambda: transformers.PatchTSTModel(
        transformers.PatchTSTConfig(
            num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, d_model=8, num_attention_heads=2
        )
    ),
}


@pytest.mark.parametrize("modality", WRAPPED)
def test_any_other_model_is_wrapped(modality: str, tmp_path: Path) -> None:
    model = WRAPPED[modality]()
    pretrained = hw.load(f"hf:{written(model, tmp_path / 'a')}")
    assert pretrained.modality == modality
    x: Any = {"image": torch.rand(2, 3, 32, 32), "series": torch.randn(2, 2, 32)}.get(modality)
    with torch.no_grad():
        if modality == "text":
            ids, n = torch.randint(0, 30, (2, 6)), torch.tensor([[6], [4]])
            found = pretrained.encoder(Ragged(ids, n))
            alone = model(ids[1:, :4]).last_hidden_state
            assert relative(found.tokens[1:, :4], alone) <= 1e-5 and relative(found.pooled[1:], alone.mean(1)) <= 1e-5
            x = ids
        else:
            want = model(**{model.main_input_name: x if modality == "image" else x.mT})
            tokens = want.last_hidden_state
            tokens = tokens.flatten(2).mT if modality == "image" else tokens.flatten(1, 2)
            assert relative(pretrained.encoder(x).tokens, tokens) <= 1e-5
            assert pretrained.encoder(x).pooled.shape == (2, pretrained.dim)
        save_encoder(tmp_path / "ours", pretrained.encoder, pretrained.card)
        assert torch.equal(load_encoder(tmp_path / "ours")[0](x).pooled, pretrained.encoder(x).pooled)
        hw.export(pretrained, tmp_path / "back")
        assert torch.equal(hw.load(f"hf:{tmp_path / 'back'}").encoder(x).pooled, pretrained.encoder(x).pooled)


def test_a_model_of_several_modalities_cannot_be_wrapped(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViltConfig(vocab_size=9, image_size=16, patch_size=8, **small)
    with pytest.raises(RequestError, match=r"vilt.*cannot be wrapped"):
        hw.load(f"hf:{written(transformers.ViltModel(config), tmp_path)}")
