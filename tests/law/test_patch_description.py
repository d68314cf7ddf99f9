"""Patch description: what a large network says of patches, on the student's grid, and a teacher for EfficientAD out of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged
from headwater.core.verbs import Encoder
from headwater.methods.distill.patch_description import TINY, Config, PatchDescription
from headwater.parts.convnet import ConvNeXtConfig, ResNetConfig
from headwater.parts.patchfeatures import PatchFeatures, layout, stage_maps
from headwater.parts.pdn import PDNConfig
from headwater.parts.swin import SwinConfig
from headwater.parts.views import Chain, Grey, Resize
from tests import small
from tests.law.huggingface import written
from tests.story.commands import headwater


def resnet(channels: int = 3) -> Encoder:
    """Maps every 4, 8 and 16 pixels."""
    return ResNetConfig(channels=channels, widths=(4, 6, 8), depths=(1, 1, 1), stem_stride=2).build()


def built(teacher: Encoder | None = None, config: Config = TINY, **student: Any) -> PatchDescription:
    torch.manual_seed(0)
    encoder = PDNConfig(**{"inner": (4, 8), "dim": 6, "padded": True, **student}).build()
    return PatchDescription(config, encoder, teacher or resnet())


def test_features_are_those_of_the_reference_step_by_step() -> None:
    """Patches, their enlargement to the first map, each map's channels, those of all: in the order in which its code goes."""
    maps = [torch.randn(2, 5, 8, 8), torch.randn(2, 12, 4, 4)]
    rows = []
    for each in maps:
        side = each.shape[-1]
        patches = F.unfold(each, 3, padding=1).view(2, each.shape[1], 3, 3, side, side)  # b c i j h w
        large = F.interpolate(patches.flatten(0, 3)[:, None], (8, 8), mode="bilinear")[:, 0]
        each_place = large.view(2, -1, 8, 8).permute(0, 2, 3, 1).reshape(2 * 64, -1)
        rows.append(F.adaptive_avg_pool1d(each_place[:, None], 20)[:, 0])
    joined = F.adaptive_avg_pool1d(torch.stack(rows, 1).reshape(2 * 64, 1, -1), 7)[:, 0]
    made = PatchFeatures(width=20)(maps, (8, 8), 7)
    torch.testing.assert_close(made, joined.view(2, 8, 8, 7).permute(0, 3, 1, 2))
    assert made.shape == (2, 7, 8, 8)


def test_a_grid_coarser_than_the_map_gets_means_of_it() -> None:
    fine = torch.randn(1, 1, 32, 32)
    made = PatchFeatures(around=1, width=1)([fine], (8, 8), 1)
    assert float(made.std()) < 0.35 * float(fine.std())  # of 16 values and more, not of four


def transformers_resnet(stages: int = 3) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(hidden_sizes=[16, 24, 32][:stages], depths=[1, 2, 1][:stages], embedding_size=8)
    return transformers.ResNetModel(config)


def transformers_convnext() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[4, 8, 12], depths=[1, 2, 1], num_stages=3, image_size=32)
    )


def transformers_vit() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 24}
    return transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=32, patch_size=8))


MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "resnet": (transformers_resnet, (1, 2, 3)),
    "convnext": (transformers_convnext, (1, 2, 3)),
    "vit": (transformers_vit, (2, 4, 6, 8)),  # of 8 blocks, after each quarter
}


@pytest.mark.parametrize("name", MODELS)
def test_the_maps_are_the_hidden_states_of_transformers(name: str, tmp_path: Path) -> None:
    make, at = MODELS[name]
    model = make()
    encoder = hw.load(f"hf:{written(model, tmp_path)}").encoder
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        states = model(x, output_hidden_states=True).hidden_states
        found = stage_maps(encoder, x, range(1, len(at) + 1))
    for made, k in zip(found, at, strict=True):
        want = states[k] if states[k].ndim == 4 else states[k][:, 1:].mT.unflatten(2, (4, 4))
        torch.testing.assert_close(made, want, rtol=1e-4, atol=1e-5)


def test_stages_and_the_pixels_between_their_positions() -> None:
    x, swin = torch.rand(1, 3, 32, 32), SwinConfig(dim=8, depths=(1, 1), heads=(1, 2), window=4, patch=2).build()
    for teacher, n in (
        (resnet(), 3),
        (ConvNeXtConfig(widths=(4, 8), depths=(1, 1)).build(), 2),
        (swin, 2),
        (small.vit(), 4),
    ):
        for stage in range(1, n + 1):
            (made,) = stage_maps(teacher.eval(), x, [stage])
            assert 32 // made.shape[-1] == layout(teacher, [stage])[1]
        with pytest.raises(RequestError, match=f"has stages 1 to {n}"):
            layout(teacher, [n + 1])
    assert len(swin.maps(x, upto=1)) == 1
    tokens = swin.norm(stage_maps(swin, x, [2])[0].permute(0, 2, 3, 1)).flatten(1, 2)  # type: ignore[operator]
    torch.testing.assert_close(tokens, swin(x).tokens)


@pytest.mark.parametrize(("padded", "given", "want"), [(True, 0, 512), (False, 0, 512), (False, 96, 96)])
def test_the_teacher_sees_so_many_pixels_that_its_first_map_is_the_students(
    padded: bool, given: int, want: int
) -> None:
    method = built(config=Config(side=given, features=PatchFeatures(width=8)), padded=padded)
    sizes = []
    maps = method.teacher.encoder.maps
    method.teacher.encoder.maps = lambda x, upto: sizes.append((*x.shape[2:], upto)) or maps(x, upto=upto)  # type: ignore[func-returns-value]
    x = torch.rand(1, 3, 256, 256)
    said = method.encoder.map(x)
    assert method.told(x, said.shape[2:]).shape == said.shape == (1, 6, *(64 if padded else 56,) * 2)
    assert sizes == [(want, want, 3)]


def test_without_padding_the_target_is_cut_to_what_the_student_says() -> None:
    teacher, x = resnet(), torch.rand(1, 3, 64, 64)
    whole, cut = (built(teacher, padded=p) for p in (True, False))
    a, b = (m.told(x, m.encoder.map(x).shape[2:]) for m in (whole, cut))
    assert b.shape[2:] == (8, 8)
    torch.testing.assert_close(a[:, :, 4:-4, 4:-4], b)
    cut.encoder.load_state_dict(whole.encoder.state_dict())  # and so is a position of the map: it sees the same pixels
    inside = slice(4, -4)
    torch.testing.assert_close(whole.encoder.map(x)[:, :, inside, inside], cut.encoder.map(x))


def test_targets_are_in_deviations_of_each_channel() -> None:
    method, x = built(), torch.rand(40, 3, 16, 16)
    method.begin(x)
    said = (method.told(x, (4, 4)) - method.mean) / method.std
    torch.testing.assert_close(said.mean((0, 2, 3)), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(said.std((0, 2, 3), correction=0), torch.ones(6), rtol=1e-3, atol=0)
    mean = method.mean.clone()
    method.begin(Ragged(F.pad(x, (0, 9, 0, 3), value=7.0), torch.full((40, 2), 16)))
    torch.testing.assert_close(method.mean, mean)


def test_the_loss_is_the_squared_error_and_the_teacher_stays_as_it_is() -> None:
    method = built().train()
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    x = small.batch().x["image"]
    assert isinstance(x, torch.Tensor)
    method.begin(x)
    loss = method.loss(Batch({"image": x}), small.step())
    with torch.no_grad():
        large = F.interpolate(x, (32, 32), mode="bilinear")  # four positions, eight pixels apart
        maps = method.teacher.encoder.eval().maps(large)[1:]
        told = (TINY.features(maps, (4, 4), 6) - method.mean) / method.std
    torch.testing.assert_close(loss.value, (method.encoder.map(x) - told).square().mean())
    torch.testing.assert_close(loss.metrics["explained"], 1 - loss.value)
    loss.value.backward()
    assert all(torch.equal(before[k], v) for k, v in method.teacher.state_dict().items())
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_the_student_sees_means_of_the_view() -> None:
    x = torch.rand(1, 3, 8, 8)
    method = built(config=Config(view=Resize(8), finer=2, features=TINY.features))
    torch.testing.assert_close(method.reduced(x)[0, 0, 1, 2], x[0, 0, 2:4, 4:6].mean())


def test_grey_pictures_have_a_teacher_of_colours() -> None:
    teacher, x = resnet(), torch.rand(2, 1, 16, 16)
    told = built(teacher).told(x.expand(-1, 3, -1, -1), (4, 4))
    torch.testing.assert_close(built(teacher, channels=1).told(x, (4, 4)), told)
    assert Chain(Resize(16), Grey(1.0))(x, Rng(0)).shape == x.shape
    with pytest.raises(RequestError, match="sees pictures of 3 channels, and these have 4"):
        built(channels=4)


def test_who_cannot_take_part_is_told_why() -> None:
    with pytest.raises(RequestError, match="trains a patch description network, and this is a ConvNet"):
        TINY.build({"image": small.convnet()})
    with pytest.raises(RequestError, match=r"The teacher is a PDN \(image\), which has no maps"):
        built(small.pdn())
    with pytest.raises(RequestError, match=r"TokenEncoder \(audio\)"):
        built(small.audio())
    with pytest.raises(RequestError, match="around is odd"):
        PatchFeatures(around=2)


def test_the_two_steps_from_a_checkpoint_to_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    for name, side in (("pictures", 80), ("good", 70), ("new", 70)):
        (tmp_path / name).mkdir()
        for i in range(16):
            picture = draw.integers(0, 255, (5, 5, 3), np.uint8)
            Image.fromarray(picture).resize((side, side + 10)).save(tmp_path / name / f"{i:02}.jpg")
    large = written(transformers_resnet(), tmp_path / "large")
    words = ("--steps", 2, "--batch-size", 4, "--json")
    teach = ("pretrain", "patch-description", "-d", tmp_path / "pictures", "--encoder", "pdn-nano", *words)
    said = headwater(capsys, *teach, "-o", tmp_path / "teacher", "--set", f"method.teacher=hf:{large}")
    assert said.code == 0, said.err
    said = headwater(
        capsys,
        "pretrain",
        "efficientad",
        "-d",
        tmp_path / "good",
        "--encoder",
        tmp_path / "teacher",
        *words,
        "-o",
        tmp_path / "run",
    )
    assert said.code == 0, said.err
    first, second = (hw.load(tmp_path / name).encoder.state_dict() for name in ("teacher", "run"))
    assert all(torch.equal(first[k], second[k]) for k in first)  # EfficientAD's teacher is the one of the first step
    said = headwater(
        capsys, "predict", "-e", tmp_path / "run", "-d", tmp_path / "new", "-o", tmp_path / "s.csv", "--json"
    )
    assert said.code == 0 and said.json["scored"] == 16, said.err
    refused = headwater(capsys, *teach, "-o", tmp_path / "x", "--set", "method.teacher=nowhere")
    assert refused.code == 2 and "no encoder at nowhere" in refused.err
