"""Sounds: files of any rate and length become items at one rate, and tokens that no padding reaches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.data.source import split
from headwater.methods.agree import simclr
from headwater.methods.reconstruct import mae
from headwater.parts.architectures import named
from headwater.parts.bands import BandMask, ClusterMask
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import where_hidden
from headwater.parts.tokens import SpectrogramTokenizer, SpectrogramTokenizerConfig, Tokenizer, WaveTokenizerConfig
from headwater.parts.tokens.spectrogram import mel_bank
from headwater.parts.tokens.wave import WaveStem
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import BandStop, Chain, Delay, Loudness, Playback
from headwater.parts.views.kit import audio as kit

RATE = 8000
FRONTS = {
    "patches": SpectrogramTokenizerConfig(rate=RATE, patch=(8, 16), mels=32),
    "frames": SpectrogramTokenizerConfig(rate=RATE, patch=(4, 32), mels=32),
    "wave": WaveTokenizerConfig(rate=RATE, width=16),
    "wave, layer norm": WaveTokenizerConfig(rate=RATE, width=16, norm="layer", bias=True, standardise=False),
}


def noise(b: int = 4, t: int = 4000, channels: int = 1) -> Tensor:
    return torch.randn(b, channels, t, generator=torch.Generator().manual_seed(0))


def ragged(junk: float = 0.0, t: int = 4000) -> Ragged:
    """Four sounds of their own lengths, with junk where none is."""
    extent = torch.tensor([[t], [t // 2], [t // 3 + 7], [300]])
    inside = (torch.arange(t) < extent)[:, None]
    return Ragged(torch.where(inside, noise(t=t), junk), extent)


def built(name: str) -> Tokenizer:
    torch.manual_seed(0)
    return FRONTS[name].build(16)


def encoder(name: str) -> TokenEncoderConfig:
    return TokenEncoderConfig(tokenizer=FRONTS[name], trunk=TransformerConfig(dim=16, depth=2, heads=2))


@pytest.mark.parametrize("rate", [8000, 16000])
def test_the_spectrogram_is_the_one_of_transformers(rate: int) -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    tokenizer = SpectrogramTokenizerConfig(rate=rate, mels=64, patch=(1, 64), floor=1e-10).build(8)
    assert isinstance(tokenizer, SpectrogramTokenizer)
    size = tokenizer.logmel.size
    bank = mel_filter_bank(size // 2 + 1, 64, 0.0, rate / 2, rate, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_bank(64, size // 2 + 1, rate).numpy(), bank, atol=1e-6)
    wave = noise(2, rate)
    made = tokenizer.logmel(wave)[:, 0]
    for i in range(2):
        want = spectrogram(
            wave[i, 0].double().numpy(),
            np.hanning(round(0.025 * rate) + 1)[:-1],
            round(0.025 * rate),
            round(0.01 * rate),
            fft_length=size,
            power=2.0,
            center=False,
            mel_filters=bank,
            mel_floor=1e-10,
            log_mel="log",
        ).T
        np.testing.assert_allclose(made[i].numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_convolutions_are_those_of_wav2vec(norm: str) -> None:
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

    torch.manual_seed(0)
    bias = norm == "layer"
    theirs = Wav2Vec2FeatureEncoder(Wav2Vec2Config(conv_dim=(24,) * 7, feat_extract_norm=norm, conv_bias=bias)).eval()
    config = WaveTokenizerConfig(rate=16000, width=24, norm=norm, bias=bias)
    assert (config.hop, config.reach) == (320, 400)
    ours = WaveStem(config)
    for i, layer in enumerate(theirs.conv_layers):
        ours.convs[i].load_state_dict(layer.conv.state_dict())
        if hasattr(layer, "layer_norm"):
            torch.nn.init.normal_(layer.layer_norm.weight)
            ours.norms[i].load_state_dict(layer.layer_norm.state_dict())
    wave = noise(2, 4321)
    torch.testing.assert_close(ours(wave), theirs(wave[:, 0]).transpose(1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FRONTS)
def test_patches_have_an_exact_inverse(name: str) -> None:
    tokenizer, x = built(name), noise()
    patches, grid = tokenizer.patches(x), tokenizer.grid(x)
    assert patches.shape == (4, int(np.prod(grid)), tokenizer.patch_dim)
    assert len(grid) == tokenizer.rank == tokenizer(x).place.shape[2] == (2 if name == "patches" else 1)
    if isinstance(tokenizer, SpectrogramTokenizer):
        tokenizer.calibrate(x)
        back = tokenizer.unpatch(tokenizer.patches(x), grid)
        picture = tokenizer.picture(x).values
        torch.testing.assert_close(back[:, :, : picture.shape[2]], picture, rtol=1e-5, atol=1e-5)
    else:
        back = tokenizer.unpatch(patches, grid, like=x)
        torch.testing.assert_close(back, x[..., : back.shape[2]], rtol=1e-5, atol=1e-5)
        assert x.shape[2] - back.shape[2] < tokenizer.config.reach


@pytest.mark.parametrize("name", FRONTS)
def test_neither_padding_nor_what_lies_there_changes_a_token(name: str) -> None:
    tokenizer = built(name)
    x, junk = ragged(), ragged(99.0)
    together, valid = tokenizer(x), tokenizer.valid(x)
    assert valid is not None
    torch.testing.assert_close(tokenizer(junk).x[valid], together.x[valid])
    for i in range(4):
        alone = tokenizer(x.values[i : i + 1, :, : x.extent[i, 0]])
        assert alone.x.shape[1] == int(valid[i].sum())
        torch.testing.assert_close(alone.x[0], together.x[i][valid[i]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("module", [mae, simclr])
def test_padding_changes_no_loss(name: str, module: object) -> None:
    torch.manual_seed(0)
    views = kit(RATE)
    config = module.TINY.viewed(replace(views, weak=lambda x, rng: x, strong=views.strong))
    method = config.build({"audio": encoder(name).build()})
    a, b = (method.loss(Batch({"audio": x}), Step(Rng(0))).value for x in (ragged(), ragged(99.0)))
    assert a.isfinite()
    torch.testing.assert_close(a, b)


def test_what_lies_beyond_a_sound_is_never_a_target() -> None:
    tokenizer = built("patches")
    patches, valid = tokenizer.patches(ragged()), tokenizer.valid(ragged())
    assert valid is not None
    assert not patches[valid].isnan().all(-1).any()
    assert patches[valid].isnan().any()  # 300 samples are 2 frames, and a patch has 8
    assert tokenizer.distance(torch.zeros_like(patches), patches).isfinite().all()


def test_calibration_sees_no_padding() -> None:
    tokenizer, other = built("patches"), built("patches")
    assert isinstance(tokenizer, SpectrogramTokenizer)
    assert isinstance(other, SpectrogramTokenizer)
    tokenizer.calibrate(ragged())
    other.calibrate(ragged(1e3))
    torch.testing.assert_close(tokenizer.cut.normalise.std, other.cut.normalise.std)
    seen = [tokenizer.logmel(v[None, :, : int(n)])[0, 0] for v, n in zip(ragged().values, ragged().extent, strict=True)]
    torch.testing.assert_close(tokenizer.cut.normalise.mean, torch.cat(seen).mean()[None], rtol=1e-4, atol=1e-4)


def test_an_encoder_by_name_makes_frames_or_reads_the_wave() -> None:
    facts = {"rate": RATE, "channels": 1, "length": 4000}
    assert named("vit-micro/frames", "audio", facts).tokenizer.patch == (4, 64)
    assert isinstance(named("vit-micro/wave", "audio", facts).tokenizer, WaveTokenizerConfig)
    assert named("vit-micro/8", "audio", facts).tokenizer.patch == (8, 8)
    with pytest.raises(RequestError, match="a whole number such as vit-tiny/16, or frames or wave"):
        named("vit-micro/tones", "audio", facts)


def test_bands_hide_a_stretch_of_time_or_of_pitch_as_a_whole() -> None:
    for axis, other in ((0, 1), (1, 0)):
        hidden = where_hidden(BandMask(0.5, 2, axis)(8, (12, 6), Rng(0))).view(8, 12, 6)
        assert hidden.sum((1, 2)).tolist() == [36] * 8
        line = hidden.all(1 + other)
        assert torch.equal(line, hidden.any(1 + other))
        assert len({tuple(row.tolist()) for row in line}) > 1
    with pytest.raises(RequestError, match="no axis 2"):
        BandMask(0.5, 2, 2)(8, (12, 6), Rng(0))


def test_clusters_hide_the_exact_share_in_pieces_larger_than_patches() -> None:
    hidden = where_hidden(ClusterMask(0.4, (3, 3))(64, (16, 8), Rng(0))).view(64, 16, 8)
    assert hidden.sum((1, 2)).tolist() == [int(0.4 * 128)] * 64
    around = F.avg_pool2d(hidden[:, None].float(), 3, 1)[:, 0]
    assert (around == 1).sum((1, 2)).min() >= 1  # somewhere a whole cluster
    alone = where_hidden(ClusterMask(0.4, (1, 1))(64, (16, 8), Rng(0))).view(64, 16, 8)
    assert (F.avg_pool2d(hidden[:, None].float(), 3, 1) == 1).sum() > 10 * (
        F.avg_pool2d(alone[:, None].float(), 3, 1) == 1
    ).sum()


VIEWS: dict[str, Callable[..., object]] = {
    "playback": Playback((0.4, 1.0), (0.8, 1.25)),
    "loudness": Loudness(silence=0.3),
    "delay": Delay(0.3),
    "band": BandStop(RATE, 0.5),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_do_not_hear_padding_and_shards_agree(name: str) -> None:
    view = VIEWS[name]
    clean, junk = view(ragged(), Rng(3)), view(ragged(99.0), Rng(3))
    assert torch.equal(clean.extent, junk.extent)
    torch.testing.assert_close(clean.values, junk.values)
    outside = torch.arange(clean.values.shape[2]) >= clean.extent
    assert not clean.values[outside[:, None]].any()
    x = ragged()
    halves = [
        view(Ragged(x.values[s], x.extent[s]), Rng(3, shard=k, shards=2)) for k, s in enumerate((slice(2), slice(2, 4)))
    ]
    for k, half in enumerate(halves):
        whole = clean.values[2 * k : 2 * k + 2, :, : half.values.shape[2]]
        torch.testing.assert_close(half.values, whole)


def test_a_delay_moves_and_a_band_is_silenced() -> None:
    x = noise(6)
    moved = Delay(0.25)(x, Rng(0))
    for before, after in zip(x[:, 0], moved[:, 0], strict=True):
        shifts = [
            s for s in range(-1000, 1001) if (after[1500] == before[1500 - s]) and (after[2000] == before[2000 - s])
        ]
        assert len(shifts) == 1
        (s,) = shifts
        assert not after[:s].any() if s > 0 else not after[len(after) + s :].any() or s == 0
    spectrum = torch.fft.rfft(BandStop(RATE, 0.5)(x, Rng(0))).abs()
    kept = spectrum > 1e-2
    lost = 1 - kept.float().mean((1, 2))
    assert 0.01 < lost.mean() < 0.5
    assert (
        (~kept[:, 0]).float().diff().abs().sum(1) <= 4
    ).all()  # one band, but for a bin that happens to be near zero


def sound(at: Path, seconds: float, rate: int = RATE, channels: int = 1, pitch: float = 440.0) -> Path:
    time = np.arange(int(rate * seconds)) / rate
    values = 0.3 * np.sin(2 * np.pi * pitch * time)
    soundfile.write(at, np.stack([values] * channels, 1) if channels > 1 else values, rate)
    return at


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_formats_hold_what_was_written(ending: str, tmp_path: Path) -> None:
    sound(tmp_path / f"a.{ending}", 1.0, 16000)
    source = hw.open(tmp_path)
    assert source.reading("audio") == {"rate": 16000, "seconds": 10.0, "mix": True}
    made = source.read(0)["audio"][0]
    want = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert abs(len(made) - 16000) <= 1200  # mp3 comes in frames
    best = max(float(torch.dot(made[k : k + 8000], want[:8000])) for k in range(0, 2200, 1))
    assert best > 0.95 * float(want[:8000].square().sum())


def test_long_files_are_cut_into_items_and_no_more_of_them_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            sound(tmp_path / name / f"{i}.wav", 2.5)
    source = hw.open(tmp_path, reading={"seconds": 1.0})
    assert len(source) == 18
    assert source.spec["audio"]["length"] == 2.5 * RATE // 3
    assert source.id(4) == "a/1.wav#1"
    assert source.labels is not None
    assert source.labels.tolist() == [0] * 9 + [1] * 9
    whole = hw.open(tmp_path).read(1)["audio"]
    assert torch.equal(torch.cat([source.read(i)["audio"] for i in range(3, 6)], 1), whole[:, : 3 * (20_000 // 3)])
    train, test = split(source, 6, seed=0)
    cut = {test.group(i) for i in range(len(test))}
    assert len(cut) == 2  # three pieces of one recording of each class
    assert not cut & {train.group(i) for i in range(len(train))}
    assert any("no longer than that" in note for note in source.notes)


def test_one_long_file_among_many_that_were_not_looked_at_is_read_whole(tmp_path: Path) -> None:
    for i in range(200):
        sound(tmp_path / f"{i:03}.wav", 0.01)
    sound(tmp_path / "001.wav", 11.0)
    source = hw.open(tmp_path)
    assert len(source) == 200
    assert source.read(1)["audio"].shape == (1, 11 * RATE)


def test_channels_are_mixed_unless_asked(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 0.5, channels=2)
    mixed = hw.open(tmp_path)
    assert mixed.read(0)["audio"].shape == (1, 4000)
    assert any("mixed to one" in note for note in mixed.notes)
    assert hw.open(tmp_path, reading={"mix": False}).read(0)["audio"].shape == (2, 4000)
    with pytest.raises(RequestError, match=r"no way of reading sounds named 'seonds'. Did you mean seconds"):
        hw.open(tmp_path, reading={"seonds": 3})
    with pytest.raises(RequestError, match="positive rate"):
        hw.open(tmp_path, reading={"rate": -3})


def test_damaged_files_are_named_with_the_reason(tmp_path: Path) -> None:
    for i in range(3):
        sound(tmp_path / f"{i}.flac", 1.0)
    whole = (tmp_path / "2.flac").read_bytes()
    (tmp_path / "3.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4.flac").write_bytes(b"")
    soundfile.write(tmp_path / "5.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "6.wav", np.zeros(0), RATE)
    found = dict(hw.doctor(hw.open(tmp_path)).unreadable)
    assert set(found) == {"3.flac", "4.flac", "5.wav", "6.wav"}
    assert "zero bytes" in found["4.flac"]
    assert "not finite" in found["5.wav"]
    assert "no samples" in found["6.wav"]


def test_arrays_say_their_rate_or_are_taken_to_be_at_16_khz(tmp_path: Path) -> None:
    x = noise(6, 800).numpy()
    source = hw.open(x, modality="audio")
    assert source.spec["audio"]["rate"] == 16_000
    assert any("taken to be at 16000 Hz" in note for note in source.notes)
    with pytest.raises(RequestError, match="does not say its sampling rate and 8000 Hz is wanted"):
        source.conform("audio", {"rate": 8000})
    told = hw.open((x, np.arange(6) % 2), modality="audio", reading={"rate": 8000})
    assert told.notes == ()
    assert told.tensors is not None
    faster = told.conform("audio", {"rate": 16_000, "seconds": 10.0, "mix": True})
    assert faster.read(0)["audio"].shape == (1, 1600)
    assert faster.labels.tolist() == [0, 1] * 3
    assert any("are at 8000 Hz and are resampled to 16000" in note for note in faster.notes)
    loud = hw.open((32767 * np.ones((2, 1, 9))).astype(np.int16), modality="audio", reading={"rate": 8000})
    assert loud.read(0)["audio"].max() == pytest.approx(1, abs=1e-4)
    np.save(tmp_path / "x.npy", x)
    assert hw.open(f"audio:{tmp_path / 'x.npy'}", reading={"rate": 8000}).reading("audio")["rate"] == 8000


def test_an_encoder_of_generated_sounds_meets_files_of_another_rate(tmp_path: Path) -> None:
    run = hw.pretrain("mae", "tones", out=tmp_path / "run", steps=2, batch_size=4, encoder="vit-micro/frames")
    assert run.encoder.card.preprocessing["read"]["rate"] == RATE
    (tmp_path / "slow").mkdir()
    (tmp_path / "fast").mkdir()
    for i in range(3):
        sound(tmp_path / "slow" / f"{i}.wav", 0.5, RATE, pitch=200 + 300 * i)
        sound(tmp_path / "fast" / f"{i}.wav", 0.5, 44_100, pitch=200 + 300 * i)
    slow, fast = (hw.embed(run.encoder, tmp_path / name) for name in ("slow", "fast"))
    near = np.linalg.norm(fast - slow, axis=1).max()
    far = min(np.linalg.norm(slow[i] - slow[j]) for i in range(3) for j in range(i))
    assert near < 0.5 * far
    again = hw.pretrain(
        "mae", "tones", out=tmp_path / "run", steps=2, batch_size=4, encoder="vit-micro/frames", resume=True
    )
    assert np.array_equal(hw.embed(again.encoder, tmp_path / "slow"), slow)


def test_waves_are_learned_from_too(tmp_path: Path) -> None:
    run = hw.pretrain("simclr", "tones", out=tmp_path / "run", steps=2, batch_size=4, encoder="vit-micro/wave")
    assert hw.embed(run.encoder, "tones", batch_size=64).shape == (1200, 96)


def test_the_kit_is_a_chain_of_views_of_waves() -> None:
    made = kit(RATE).strong(noise(), Rng(0))
    assert isinstance(kit(RATE).strong, Chain)
    assert isinstance(made, Ragged)
    assert made.values.isfinite().all()


def test_a_sound_that_ends_early_is_unreadable_in_its_last_piece(tmp_path: Path) -> None:
    for name in ("a", "b"):  # data of which nothing can be read whole are refused when they are opened
        sound(tmp_path / f"{name}.flac", 3.0)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) * 2 // 3])
    source = hw.open(tmp_path, reading={"seconds": 1.0})
    assert len(source) == 6
    assert all(source.read(i)["audio"].shape == (1, RATE) for i in (0, 3, 4, 5))
    with pytest.raises(Unreadable, match=r"a\.flac#2"):
        source.read(2)
