"""Audio encoders of `transformers`: equal outputs from shared random weights and waves, and equal bits on the way back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.types import Ragged
from headwater.interop import huggingface as hf
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.tokens import SpectrogramTokenizer, SpectrogramTokenizerConfig
from headwater.parts.tokens.spectrogram import kaldi_bank
from tests.law.huggingface import close, relative, round_trip, written

t = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
AST = {**SIZES, "patch_size": 8, "time_stride": 5, "frequency_stride": 6, "max_length": 42, "num_mel_bins": 32}
WAVE = {
    **SIZES,
    "conv_dim": (12, 12, 12),
    "conv_kernel": (10, 4, 2),
    "conv_stride": (5, 3, 2),
    "num_conv_pos_embedding_groups": 4,
}
# norm of the convolutions, stable (pre-norm) or not, kernel of the positions
KINDS = {
    "group": {"feat_extract_norm": "group", "num_conv_pos_embeddings": 8},
    "layer": {
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 7,
    },
    "group, stable": {"feat_extract_norm": "group", "do_stable_layer_norm": True, "num_conv_pos_embeddings": 8},
    "layer, not stable": {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 8, "layer_norm_eps": 1e-3},
}
LENGTHS = (3000, 1711, 640)


def waves() -> list[np.ndarray]:
    """Sounds of three lengths, loud and off centre."""
    rng = np.random.default_rng(0)
    return [(3 * rng.standard_normal(n) + 0.5).astype(np.float32) for n in LENGTHS]


def ragged(sounds: list[np.ndarray], junk: float = 0.0) -> Ragged:
    values = torch.full((len(sounds), 1, max(map(len, sounds))), junk)
    for row, sound in zip(values, sounds, strict=True):
        row[0, : len(sound)] = torch.from_numpy(sound)
    return Ragged(values, torch.tensor([[len(s)] for s in sounds]))


def heard(name: str, kind: str) -> tuple[Any, Any]:
    """A model of theirs, and what prepares waves for it."""
    model, config = {"wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config"), "hubert": ("HubertModel", "HubertConfig")}[name]
    masked = KINDS[kind].get("feat_extract_norm") == "layer"
    extractor = t.Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    return getattr(t, model)(getattr(t, config)(**WAVE, **KINDS[kind])), extractor


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_waves_sound_the_same_to_both_and_the_way_back_keeps_every_bit(name: str, kind: str, tmp_path: Path) -> None:
    model, extractor = heard(name, kind)
    loaded = hf.load(written(model, tmp_path / "theirs", extractor))
    assert loaded is not None
    assert (loaded.model_type, loaded.preprocessing) == (name, {"read": {"rate": 16000, "mix": True}})
    with torch.no_grad():
        for wave in waves():
            tokens = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).last_hidden_state
            close(loaded.encoder(torch.from_numpy(wave)[None, None]), tokens, tokens.mean(1))
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        made = t.AutoFeatureExtractor.from_pretrained(tmp_path / "ours")
        assert made.to_dict() == extractor.to_dict()
        assert torch.equal(again(torch.ones(1, 999)).last_hidden_state, model(torch.ones(1, 999)).last_hidden_state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_a_padded_batch_of_waves_says_what_each_says_alone(name: str, kind: str, tmp_path: Path) -> None:
    """Theirs too, where no padding reaches its norms: with a layer norm and a mask."""
    model, extractor = heard(name, kind)
    loaded = hf.load(written(model, tmp_path, extractor))
    assert loaded is not None
    with torch.no_grad():
        found = loaded.encoder(ragged(waves(), junk=99.0))
        assert found.valid is not None
        if "layer" in kind:
            batch = extractor(waves(), sampling_rate=16000, padding=True, return_tensors="pt")
            tokens, real = model(**batch).last_hidden_state, found.valid[..., None]
            assert relative(found.tokens * real, tokens * real) <= 1e-5
            assert relative(found.pooled, (tokens * real).sum(1) / real.sum(1)) <= 1e-5
        for i, wave in enumerate(waves()):
            alone = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).last_hidden_state
            assert int(found.valid[i].sum()) == alone.shape[1]
            assert relative(found.tokens[i][found.valid[i]], alone[0]) <= 1e-5


def test_heads_are_left_behind_and_older_names_of_the_weight_norm_are_read(tmp_path: Path) -> None:
    model = t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WAVE, **KINDS["layer"], vocab_size=7))
    written(model, tmp_path, t.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000))
    state = load_file(tmp_path / "model.safetensors")
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        state[f"wav2vec2.encoder.pos_conv_embed.conv.{old}"] = state.pop(f"wav2vec2.encoder.pos_conv_embed.conv.{new}")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = hf.load(tmp_path)
    assert loaded is not None
    assert loaded.preprocessing["read"]["rate"] == loaded.architecture.tokenizer.rate == 8000
    x = torch.from_numpy(waves()[0])[None]
    with torch.no_grad():
        assert relative(loaded.encoder(x[:, None]).tokens, model.wav2vec2(x).last_hidden_state) <= 1e-5


def turned(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Their patches [b n d], time first, in our order, pitch first."""
    return tokens.unflatten(1, grid[::-1]).transpose(1, 2).flatten(1, 2)


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # the lowest of 128 are narrower than a bin, theirs too
def test_the_filterbank_is_kaldis_as_transformers_has_it() -> None:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(257, 128, 20, 8000, 16000, mel_scale="kaldi", triangularize_in_mel_space=True)
    np.testing.assert_allclose(kaldi_bank(128, 257, 16000).numpy(), bank, atol=1e-6)
    config = SpectrogramTokenizerConfig(rate=16000, mels=128, frames=100, floor=2.0**-23, kaldi=True)
    tokenizer = config.build(8)
    assert isinstance(tokenizer, SpectrogramTokenizer)
    wave = waves()[0]
    want = t.ASTFeatureExtractor(do_normalize=False, max_length=17)(wave, sampling_rate=16000)["input_values"][0]
    found = tokenizer.logmel(torch.from_numpy(wave)[None, None])[0, 0]
    # in float32 the faintest of many thousand times stronger ones are rounded: as powers, all agree; as logarithms, most
    assert relative(found.exp(), torch.from_numpy(want).exp()) <= 1e-5
    assert np.abs(found.numpy() - want).mean() <= 1e-5


@pytest.mark.parametrize("changed", [{}, {"qkv_bias": False}, {"time_stride": 8, "frequency_stride": 8}])
def test_spectrograms_look_the_same_to_both_from_the_wave_on(changed: dict[str, Any], tmp_path: Path) -> None:
    model = t.ASTModel(t.ASTConfig(**(AST | changed)))
    extractor = t.ASTFeatureExtractor(num_mel_bins=32, max_length=42, mean=-3.3, std=2.2)
    loaded = hf.load(written(model, tmp_path / "theirs", extractor))
    assert loaded is not None
    encoder, a = loaded.encoder, loaded.architecture
    assert loaded.preprocessing == {"read": {"rate": 16000, "seconds": (41 * 160 + 400) / 16000, "mix": True}}
    assert from_json(json.loads(json.dumps(to_json(a)))) == a
    longest = np.concatenate([waves()[0]] * 3)[: 41 * 160 + 400]
    batch = extractor([longest, *waves()], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        out, found = model(batch["input_values"].float()), encoder(ragged([longest, *waves()], junk=99.0))
        assert found.prefix is not None
        assert relative(found.prefix, out.last_hidden_state[:, :2]) <= 1e-5
        close(found, turned(out.last_hidden_state[:, 2:], a.grid), out.pooler_output)
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(batch["input_values"].float()).pooler_output, out.pooler_output)
    made = t.AutoFeatureExtractor.from_pretrained(tmp_path / "ours").to_dict()
    for name in ("mean", "std", "max_length", "num_mel_bins", "sampling_rate", "do_normalize"):
        assert made[name] == pytest.approx(extractor.to_dict()[name]), name


def test_overlapping_patches_have_an_inverse_and_nothing_beyond_the_end_is_known() -> None:
    config = SpectrogramTokenizerConfig(rate=16000, mels=32, patch=(8, 8), frames=42, stride=(5, 6), kaldi=True)
    tokenizer = config.build(8)
    assert isinstance(tokenizer, SpectrogramTokenizer)
    x = torch.from_numpy(waves()[0])[None, None]
    tokenizer.calibrate(x)
    assert tokenizer.grid(x) == (7, 5)
    back = tokenizer.unpatch(tokenizer.patches(x), (7, 5))
    assert back.shape == (1, 1, 38, 32)
    torch.testing.assert_close(back[:, :, :17], tokenizer.logmel(x), rtol=1e-5, atol=1e-5)
    assert back[:, :, 17:].isnan().all()
    with pytest.raises(RequestError, match=r"at most 42 frames \(0\.43 s\).*'seconds'"):
        tokenizer(torch.zeros(1, 1, 9000))


def test_an_encoder_from_a_checkpoint_embeds_files_at_its_rate(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", 0.1 * rng.standard_normal((8000, 2)), 16000)
    model = written(
        t.ASTModel(t.ASTConfig(**AST)), tmp_path / "ast", t.ASTFeatureExtractor(num_mel_bins=32, max_length=42)
    )
    vectors = hw.embed(f"hf:{model}", tmp_path / "sounds")
    assert vectors.shape == (6, 16)  # half a second is more than 42 frames: two pieces of each
    assert np.isfinite(vectors).all()
    wave = written(t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **KINDS["layer"])), tmp_path / "wave")
    assert hw.embed(hw.load(f"hf:{wave}"), tmp_path / "sounds").shape == (3, 16)


REFUSED: dict[str, tuple[Any, str]] = {
    "adapter": (
        lambda: t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **KINDS["layer"], add_adapter=True)),
        "add_adapter=True",
    ),
    "attention adapter": (
        lambda: t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **KINDS["layer"], adapter_attn_dim=4)),
        "adapter_attn_dim=4",
    ),
    "widths": (
        lambda: t.HubertModel(t.HubertConfig(**(WAVE | {"conv_dim": (12, 12, 16)}))),
        r"conv_dim=\[12, 12, 16\]",
    ),
    "batch norm": (
        lambda: t.HubertModel(t.HubertConfig(**WAVE, conv_pos_batch_norm=True)),
        "conv_pos_batch_norm=True",
    ),
    "no norm": (
        lambda: t.HubertModel(t.HubertConfig(**WAVE, feat_proj_layer_norm=False)),
        "feat_proj_layer_norm=False",
    ),
    "activation": (lambda: t.ASTModel(t.ASTConfig(**AST, hidden_act="silu")), "hidden_act='silu'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_our_encoder_does_not_do_is_named_in_one_sentence(name: str, tmp_path: Path) -> None:
    build, said = REFUSED[name]
    with pytest.raises(RequestError, match=said) as caught:
        hf.load(written(build(), tmp_path))
    assert str(caught.value).count(". ") == 0


def test_an_extractor_that_contradicts_the_model_is_refused(tmp_path: Path) -> None:
    model = t.ASTModel(t.ASTConfig(**AST))
    with pytest.raises(RequestError, match=r"max_length=99.*config\.json 42"):
        hf.load(written(model, tmp_path / "a", t.ASTFeatureExtractor(num_mel_bins=32, max_length=99)))
    extractor = t.ASTFeatureExtractor(num_mel_bins=32, max_length=42, sampling_rate=8000)
    with pytest.raises(RequestError, match="sampling_rate=8000"):
        hf.load(written(model, tmp_path / "b", extractor))


def test_encoders_that_transformers_does_not_have_are_not_written(tmp_path: Path) -> None:
    facts = {"rate": 16000, "channels": 1, "length": 16000}
    for name in ("vit-micro", "conformer-micro"):
        config = named(name, "audio", facts)
        with pytest.raises(RequestError, match=r"No audio encoder of transformers is like this one.*AST.*wav2vec"):
            hf.save(config.build(), config, {}, tmp_path / name)
    config = named("wav2vec2-micro", "audio", facts)
    assert hf.save(config.build(), config, {}, tmp_path / "ours") == "wav2vec2"
    encoder = config.build()
    hf.save(encoder, config, {}, tmp_path / "ours", "hubert")
    model = t.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert type(model).__name__ == "HubertModel"
    x = torch.from_numpy(waves()[0])[None]
    with torch.no_grad():
        prepared = t.AutoFeatureExtractor.from_pretrained(tmp_path / "ours")(x[0].numpy(), sampling_rate=16000)
        want = model(torch.from_numpy(prepared["input_values"][0])[None]).last_hidden_state
        assert relative(encoder.eval()(x[:, None]).tokens, want) <= 1e-5
