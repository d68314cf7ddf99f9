"""BEiT, DINOv3 and VideoMAE of `transformers`: equal outputs, equal bits on the way back, and what they have alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.types import Ragged
from headwater.interop import huggingface as hf
from headwater.parts.architectures import from_json, to_json
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig
from tests.law.huggingface import close, round_trip, written

t = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
PICTURE = {**SIZES, "image_size": 16, "patch_size": 4}
CLIP = {**PICTURE, "image_size": [8, 12], "num_frames": 6, "num_labels": 3}
UNEVEN = {"hidden_size": 28, "intermediate_size": 122}  # 28 * (122 / 28) is a little less than 122
SHARED = {"use_shared_relative_position_bias": True}
SILU = {"use_gated_mlp": True, "hidden_act": "silu"}
NO_BIASES = {"query_bias": False, "key_bias": False, "value_bias": False}


def beit(kind: str = "BeitModel", **more: Any) -> Any:
    return getattr(t, kind)(t.BeitConfig(**{**PICTURE, "vocab_size": 5, "use_mask_token": True, **more}))


def dinov3(**more: Any) -> Any:
    return t.DINOv3ViTModel(t.DINOv3ViTConfig(**{**PICTURE, "num_register_tokens": 2, **more}))


def videomae(kind: str = "VideoMAEModel", **more: Any) -> Any:
    return getattr(t, kind)(t.VideoMAEConfig(**{**CLIP, **more}))


MODELS: dict[str, Callable[[], Any]] = {
    "BEiT, a bias per block": lambda: beit(use_relative_position_bias=True),
    "BEiT, one bias": lambda: beit(**SHARED, use_mean_pooling=False),
    "BEiT, absolute positions": lambda: beit(use_absolute_position_embeddings=True, layer_scale_init_value=0.0),
    "BEiT, which fills in": lambda: beit("BeitForMaskedImageModeling", **SHARED),
    "BEiT, without positions": lambda: beit(patch_size=[4, 4], image_size=[16, 16]),
    "DINOv3": dinov3,
    "DINOv3, gated": lambda: dinov3(**SILU, **NO_BIASES, num_register_tokens=0),
    "DINOv3, all biases": lambda: dinov3(key_bias=True, hidden_act="relu", patch_size=[4, 2]),
    "VideoMAE": videomae,
    "VideoMAE, normalised": lambda: videomae(use_mean_pooling=False, qv_bias=False, tubelet_size=3, **UNEVEN),
    "VideoMAE, a classifier": lambda: videomae("VideoMAEForVideoClassification"),
}


def said(model: Any, x: torch.Tensor, **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Their tokens of patches, and what they pool (where they pool nothing: the mean)."""
    kind = type(model).__name__
    if kind.startswith("VideoMAE"):
        inner = getattr(model, "videomae", model)
        tokens = inner(x.transpose(1, 2)).last_hidden_state
        return tokens, model.fc_norm(tokens.mean(1)) if inner is not model else tokens.mean(1)
    if kind == "BeitForMaskedImageModeling":
        tokens = model.layernorm(model.beit(x, **how).last_hidden_state)[:, 1:]
        return tokens, tokens.mean(1)
    out = model(x, **how)
    return out.last_hidden_state[:, 1 + getattr(model.config, "num_register_tokens", 0) :], out.pooler_output


@pytest.mark.parametrize("name", MODELS)
def test_both_say_the_same_and_the_way_back_keeps_every_bit(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    loaded = hf.load(written(model, tmp_path / "theirs"))
    assert loaded is not None
    x = torch.rand(2, 3, 6, 8, 12) if name.startswith("VideoMAE") else torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        tokens, pooled = said(model, x)
        close(hw.load(f"hf:{tmp_path / 'theirs'}")(x), tokens, pooled)
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert all(
            m.startswith(("embeddings.mask_token", "beit.embeddings.mask", "lm_head", "classifier")) for m in missing
        )
        assert torch.equal(said(again, x)[1], pooled)
    assert from_json(to_json(loaded.architecture)) == loaded.architecture
    rewritten = hf.load(tmp_path / "ours")
    assert rewritten is not None and rewritten.architecture == loaded.architecture


@pytest.mark.parametrize("size", [(8, 12), (20, 16), (32, 24)])
@pytest.mark.parametrize(
    "name", ["BEiT, a bias per block", "BEiT, one bias", "BEiT, absolute positions", "DINOv3", "DINOv3, gated"]
)
def test_pictures_of_other_sizes_look_the_same_to_both(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    model = MODELS[name]()
    loaded = hf.load(written(model, tmp_path))
    assert loaded is not None
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        close(
            loaded.encoder(x),
            *said(model, x, **({} if name.startswith("DINO") else {"interpolate_pos_encoding": True})),
        )


def test_clips_of_another_length_are_numbered_on_and_other_frames_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    loaded = hf.load(written(videomae(), tmp_path / "a"))
    torch.manual_seed(0)
    longer = hf.load(written(videomae(num_frames=10), tmp_path / "b"))
    assert loaded is not None and longer is not None
    x = torch.rand(1, 3, 10, 8, 12)
    with torch.no_grad():
        found, want = loaded.encoder(x), longer.encoder(x)
    assert torch.equal(found.tokens, want.tokens)
    with pytest.raises(RequestError, match=r"the input has \(3, 3, 3\)"):
        loaded.encoder(torch.rand(1, 3, 6, 12, 12))


def processor(name: str) -> Any:
    """As published: BEiT's stretches, VideoMAE's covers and cuts."""
    if name == "beit":
        return t.BeitImageProcessorPil(size={"height": 16, "width": 16})
    return t.VideoMAEImageProcessorPil(size={"shortest_edge": 12}, crop_size={"height": 8, "width": 8})


@pytest.mark.parametrize("name", ["beit", "videomae"])
def test_samples_are_prepared_as_their_processor_does_and_it_is_written_back(name: str, tmp_path: Path) -> None:
    model = beit(**SHARED) if name == "beit" else videomae(image_size=8, num_frames=2)
    frames = [torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8) for _ in range(2)]
    written(model, tmp_path / "a", processor(name))
    encoder = hw.load(f"hf:{tmp_path / 'a'}")
    hf.save(encoder.encoder, encoder.card.architecture, encoder.card.preprocessing, tmp_path / "b")
    for at, made in (("a", processor(name)), ("b", t.AutoImageProcessor.from_pretrained(tmp_path / "b"))):
        pixels = [f.permute(1, 2, 0).numpy() for f in frames]
        want = torch.from_numpy(np.stack(made(pixels)["pixel_values"]))
        encoder = hw.load(f"hf:{tmp_path / at}")
        x = torch.stack(frames)
        ready = encoder.prepare(x if name == "beit" else x.transpose(0, 1)[None])
        seen = encoder.encoder.tokenizer.normalise(ready)
        seen = seen if name == "beit" else seen.transpose(1, 2)
        assert seen.shape == want.shape
        apart = (seen - want).abs()
        step = 1 / 255 / 0.5  # Pillow and torch may round a byte differently, now and then
        assert apart.max() <= 1.01 * step and (apart < 1e-5).float().mean() > 0.98


def test_dinov3s_processor_is_read_and_a_size_without_one_is_the_configurations(tmp_path: Path) -> None:
    at = written(dinov3(), tmp_path)
    card = hw.load(f"hf:{at}").card.preprocessing
    assert card == {"interpolation": "bilinear", "size": [16, 16], "fit": "stretch", "crop": 1.0}
    (at / "preprocessor_config.json").write_text(
        '{"image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": true, "size": {"height": 24, "width": 32}, '
        '"resample": 3, "do_normalize": true, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    encoder = hw.load(f"hf:{at}")
    assert encoder.card.preprocessing == {"interpolation": "bicubic", "size": [24, 32], "fit": "stretch", "crop": 1.0}
    assert encoder.encoder.tokenizer.normalise.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder(torch.rand(1, 3, 40, 40)).tokens.shape == (1, 48, 16)


REFUSED: dict[str, Callable[[], Any]] = {
    "use_shared_relative_position_bias=True": lambda: beit(**SHARED, use_relative_position_bias=True),
    r"image_size=\[16, 24\]": lambda: beit(image_size=[16, 24], **SHARED),
    "hidden_act='silu'": lambda: beit(hidden_act="silu"),
    "rope_theta=50.0 is not supported for DINOv3; 100.0 is": lambda: dinov3(rope_theta=50.0),
    "query_bias=False, key_bias=False, value_bias=True": lambda: dinov3(query_bias=False),
    "proj_bias=False": lambda: dinov3(proj_bias=False),
    "hidden_act='gelu' with use_gated_mlp=True": lambda: dinov3(use_gated_mlp=True),
    "use_mean_pooling=False": lambda: videomae("VideoMAEForVideoClassification", use_mean_pooling=False),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_our_encoder_does_not_do_is_named(named: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=named):
        hf.load(written(REFUSED[named](), tmp_path))


def test_what_a_family_cannot_express_is_refused_by_all(tmp_path: Path) -> None:
    base = TokenEncoderConfig(
        tokenizer=GridTokenizerConfig(modality="image", channels=3, patch=(4, 4)),
        trunk=TransformerConfig(dim=16, depth=1, heads=2, activation="swiglu"),
        position="learned",
        grid=(4, 4),
        class_token=True,
        prefix_positions=1,
        pool="class",
    )
    plain = replace(base.trunk, activation="gelu")
    for made in (
        base,
        replace(base, trunk=plain, relative="shared"),
        replace(base, trunk=plain, pool_norm=1e-6),
        replace(base, trunk=replace(plain, norm="open")),
        replace(base, trunk=replace(plain, qkv_bias=False)),
    ):
        with pytest.raises(RequestError, match="is like this encoder"):
            hf.save(made.build(), made, {}, tmp_path)
    for kind in ("beit", "dinov3_vit", "videomae"):
        with pytest.raises(RequestError, match="is not like this encoder"):
            hf.save(base.build(), base, {}, tmp_path, kind)
    for kind, model in (("beit", beit(**SHARED)), ("dinov3_vit", dinov3()), ("videomae", videomae())):
        loaded = hf.load(written(model, tmp_path / kind))
        assert loaded is not None
        other = replace(loaded.architecture, trunk=replace(loaded.architecture.trunk, qkv_bias=True, causal=True))
        with pytest.raises(RequestError, match="is not like this encoder"):
            hf.save(other.build(), other, {}, tmp_path, kind)


def small(**more: Any) -> Any:
    torch.manual_seed(0)
    trunk = TransformerConfig(dim=16, depth=2, heads=2, rotary=more.get("position") == "centred", qkv_bias="qv")
    shape = {"tokenizer": GridTokenizerConfig(modality="image", channels=1, patch=(2, 2), fill=True), "trunk": trunk}
    encoder = TokenEncoderConfig(**{**shape, "grid": (4, 4), "class_token": True, **more}).build().eval()
    for value in encoder.parameters():
        torch.nn.init.normal_(value, std=0.5)
    return encoder


KINDS: list[dict[str, Any]] = [
    {"position": "centred"},
    {"relative": "shared", "position": "none"},
    {"relative": "blocks", "position": "learned"},
]


@pytest.mark.parametrize("kind", KINDS)
def test_places_stay_with_their_tokens_when_some_are_left_out(kind: dict[str, Any]) -> None:
    encoder, x = small(**kind), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        want = encoder(x).tokens
        order = torch.stack([torch.randperm(16) for _ in range(2)])
        torch.testing.assert_close(encoder(x, keep=order).tokens, want.gather(1, order[..., None].expand(-1, -1, 16)))
        few = torch.tensor([[3, 7], [7, 3]])  # that of one sample must not be the other's
        found = encoder(x, keep=few).tokens
        for i in range(2):
            torch.testing.assert_close(found[i], encoder(x[i : i + 1], keep=few[i : i + 1]).tokens[0])
        moved = encoder(x, keep=few + 1).tokens - found
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_picture_is_seen_as_it_is_alone(kind: dict[str, Any]) -> None:
    encoder = small(**kind)
    values, extent = torch.rand(2, 1, 8, 8), torch.tensor([[8, 8], [4, 6]])
    with torch.no_grad():
        both, alone = encoder(Ragged(values, extent)), encoder(Ragged(values[1:, :, :4, :6], extent[1:]))
        real = both.valid[1]
        torch.testing.assert_close(both.tokens[1][real], alone.tokens[0])
        if kind["position"] == "centred":  # which also is how it is seen without padding
            torch.testing.assert_close(alone.tokens, encoder(values[1:, :, :4, :6]).tokens)
    if kind["position"] != "centred":
        with pytest.raises(RequestError, match="at most"):
            encoder(Ragged(torch.rand(1, 1, 10, 8), torch.tensor([[10, 8]])))


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_is_the_forward_pass(kind: dict[str, Any]) -> None:
    encoder, x = small(**kind), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(encoder.trunk.norm(encoder.trace(x)[-1].out)[:, 1:], encoder(x).tokens)


def test_a_bias_joins_causal_attention_and_padding() -> None:
    trunk = TransformerConfig(dim=16, depth=2, heads=2, causal=True).build().eval()
    x, bias = torch.randn(2, 5, 16), [torch.randn(1, 2, 5, 5)]
    later = torch.cat([x[:, :3], -x[:, 3:]], 1)
    with torch.no_grad():
        torch.testing.assert_close(trunk(x, bias=bias)[:, :3], trunk(later, bias=bias)[:, :3])
        assert not torch.allclose(trunk(x, bias=bias), trunk(x))
        valid = torch.arange(5) < torch.tensor([[5], [3]])
        torch.testing.assert_close(trunk(x, valid, bias=bias)[1, :3], trunk(later, bias=bias)[1, :3])


def test_settings_that_do_not_go_together_are_named() -> None:
    with pytest.raises(RequestError, match="relative=shared needs grid"):
        small(relative="shared", grid=())
    with pytest.raises(RequestError, match="position=sequence needs grid"):
        small(position="sequence", grid=())
    with pytest.raises(RequestError, match=r"position=centred needs trunk.rotary=True and relative=none"):
        small(position="centred", relative="blocks")
