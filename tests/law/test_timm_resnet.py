"""ResNet and Wide ResNet of timm: the network written out by the names of its weights, and folders that are not whole."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import headwater as hw
from headwater.api.encoders import elsewhere
from headwater.core.errors import RequestError
from headwater.interop import huggingface as hf
from headwater.interop import timm_resnet
from headwater.parts.patchfeatures import stage_maps

SMALL = {"resnet18": (1, 2, 1, 1), "resnet50": (1, 2, 1, 1), "wide_resnet101_2": (2, 1, 2, 1)}  # depths


class Block(nn.Module):
    """As torchvision and timm name its layers; `inner` is the narrow width of a bottleneck, 0 for a basic block."""

    def __init__(self, wide_in: int, wide: int, inner: int, stride: int) -> None:
        super().__init__()
        shapes = (
            [(wide_in, inner, 1, 1), (inner, inner, 3, stride), (inner, wide, 1, 1)]
            if inner
            else [(wide_in, wide, 3, stride), (wide, wide, 3, 1)]
        )
        self.n = len(shapes)
        for k, (a, b, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{k}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{k}", nn.BatchNorm2d(b))
        self.downsample = (
            nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
            if stride > 1 or wide_in != wide
            else nn.Sequential()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.n + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            y = F.relu(y) if k < self.n else y
        return F.relu(y + self.downsample(x))


class Reference(nn.Module):
    def __init__(self, depths: tuple[int, ...], bottleneck: bool, factor: int) -> None:
        super().__init__()
        self.conv1, self.bn1, wide_in = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), 64
        for k, deep in enumerate(depths):
            base = 64 << k
            wide, inner = (4 * base, base * factor) if bottleneck else (base, 0)
            blocks = []
            for i in range(deep):
                blocks.append(Block(wide_in, wide, inner, 2 if i == 0 and k else 1))
                wide_in = wide
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(wide_in, 5)

    def maps(self, x: Tensor) -> list[Tensor]:
        x, found = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1), []
        for k in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{k}")(x)
            found.append(x)
        return found


def folder(at: Path, name: str, state: dict[str, Tensor], **about: Any) -> Path:
    at.mkdir(exist_ok=True)
    save_file({k: v.clone() for k, v in state.items()}, at / "model.safetensors")
    told = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "input_size": [3, 64, 64], "interpolation": "bilinear"}
    (at / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": {**told, **about}}))
    return at


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of each, with fewer blocks."""
    known = timm_resnet.SIZES[request.param]
    monkeypatch.setitem(timm_resnet.SIZES, request.param, replace(known, depths=SMALL[request.param]))
    return str(request.param)


def reference(name: str) -> Reference:
    torch.manual_seed(0)
    made = Reference(SMALL[name], name != "resnet18", 2 if "wide" in name else 1)
    for value in made.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5)
    return made.eval()


def test_the_maps_are_those_of_the_network_written_out(name: str, tmp_path: Path) -> None:
    model, x = reference(name), torch.rand(1, 3, 64, 64)
    loaded = hw.load(f"hf:{folder(tmp_path, name, model.state_dict())}")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    with torch.no_grad():
        want = model.maps((x - mean) / std)
        for made, told in zip(stage_maps(loaded.encoder, x, (1, 2, 3, 4)), want, strict=True):
            torch.testing.assert_close(made, told, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loaded.encoder(x).pooled, want[-1].mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert loaded.card.preprocessing == {"size": [64, 64], "interpolation": "bilinear", "fit": "cover", "crop": 0.875}


def test_timm_stands_for_its_folder_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timm_resnet.SIZES, "resnet18", replace(timm_resnet.SIZES["resnet18"], depths=SMALL["resnet18"]))
    at = folder(tmp_path / "own", "resnet18", reference("resnet18").state_dict())
    assert hw.load(f"timm:{at}").digest == hw.load(f"hf:{at}").digest
    assert elsewhere("timm:resnet18.a1_in1k") == "timm/resnet18.a1_in1k" and elsewhere("runs/timm") is None
    with pytest.raises(RequestError, match=r"hf download timm/resnet18\.none"):
        hw.load("timm:resnet18.none")
    run = hw.pretrain(  # what is asked for goes on from it
        "simclr",
        torch.rand(8, 3, 64, 64),
        out=tmp_path / "r",
        encoder=f"timm:{at}",
        steps=1,
        batch_size=4,
        device="cpu",
    )
    assert run.encoder.dim == 512


def test_the_published_sizes() -> None:
    counts = {
        "resnet18": 11_176_512,
        "resnet50": 23_508_032,
        "wide_resnet50_2": 66_834_240,
        "wide_resnet101_2": 124_837_696,
    }
    for name, n in counts.items():
        with torch.device("meta"):
            encoder = timm_resnet.SIZES[name].build()
        assert sum(p.numel() for p in encoder.parameters()) == n


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        timm_resnet.SIZES, "wide_resnet101_2", replace(timm_resnet.SIZES["wide_resnet101_2"], depths=(2, 1, 2, 1))
    )
    state = reference("wide_resnet101_2").state_dict()
    for change, said in (
        ({"layer1.0.conv2.weight": None}, "lacks 1 weights of a wide_resnet101_2, such as layer1.0.conv2.weight"),
        ({"layer9.0.conv1.weight": torch.zeros(1)}, "has 1 weights too many .* such as layer9.0.conv1.weight"),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, "conv1.weight has shape .* takes"),
    ):
        made = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(RequestError, match=said):
            hw.load(f"hf:{folder(tmp_path / 'x', 'wide_resnet101_2', made)}")
    with pytest.raises(RequestError, match="interpolation='lanczos'"):
        hw.load(f"hf:{folder(tmp_path / 'x', 'wide_resnet101_2', state, interpolation='lanczos')}")


def test_transformers_has_no_wide_one(tmp_path: Path) -> None:
    config = replace(timm_resnet.SIZES["wide_resnet50_2"], widths=(16, 32), depths=(1, 1))
    with pytest.raises(RequestError, match="inside is a quarter"):
        hf.save(config.build(), config, {}, tmp_path, "resnet")
