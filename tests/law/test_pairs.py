"""Pairs by common stems: found, counted, learned from, and read one by one where one is asked for."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import headwater as hw
from headwater.core.errors import Unreadable

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 180, 40)}


def pictures_with_words(at: Path, n: int = 12) -> Path:
    at.mkdir()
    for i in range(n):
        word = [*COLOURS][i % 3]
        Image.new("RGB", (16, 16), COLOURS[word]).save(at / f"{i:02}.png")
        (at / f"{i:02}.txt").write_text(f"a {word} square, number {i}")
    return at


def test_files_with_a_common_stem_are_pairs_and_clip_learns_from_them(tmp_path: Path) -> None:
    source = hw.open(pictures_with_words(tmp_path / "both"))
    assert source.modalities == ("image", "text")
    assert len(source) == 12
    for i in (0, 7):
        sample = source.read(i)
        assert bytes(sample["text"].tolist()[:-1]).decode().endswith(f"number {i}")
        word = [*COLOURS][i % 3]
        assert tuple(sample["image"][:, 0, 0].tolist()) == COLOURS[word]
    run = hw.pretrain("clip", source, out=tmp_path / "run", steps=2, batch_size=4)
    for modality in ("image", "text"):
        assert hw.embed(hw.load(run.path, modality), source).shape[0] == 12


def test_partners_may_stand_in_folders_of_their_own_and_the_unpaired_are_counted(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "both")
    for kind, ending in (("images", "png"), ("texts", "txt")):
        (tmp_path / "apart" / kind).mkdir(parents=True)
        for file in (tmp_path / "both").glob(f"*.{ending}"):
            file.rename(tmp_path / "apart" / kind / file.name)
    (tmp_path / "apart" / "texts" / "03.txt").unlink()
    source = hw.open(tmp_path / "apart")
    assert len(source) == 11
    assert "1 files without a partner are left out." in source.notes
    assert not any(source.id(i).endswith("03.png") for i in range(11))


def test_sounds_and_pictures_pair_too(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "data", 6)
    for i in range(6):
        (tmp_path / "data" / f"{i:02}.txt").unlink()
        soundfile.write(tmp_path / "data" / f"{i:02}.wav", np.sin(np.arange(2000) * (i + 1) / 9) / 3, 8000)
    source = hw.open(tmp_path / "data")
    assert source.modalities == ("image", "audio")
    assert hw.pretrain("clip", source, out=tmp_path / "run", steps=1, batch_size=4).outcome.done


def test_an_encoder_of_one_modality_does_not_read_the_other(tmp_path: Path) -> None:
    source = hw.open(pictures_with_words(tmp_path / "both"))
    run = hw.pretrain("simclr", source.only("image"), out=tmp_path / "run", steps=1, batch_size=4)
    (tmp_path / "both" / "05.txt").write_text("")
    with pytest.raises(Unreadable, match="empty"):
        hw.open(tmp_path / "both").read(5)
    assert hw.embed(run.encoder, hw.open(tmp_path / "both")).shape[0] == 12


def test_a_few_texts_beside_pictures_are_no_pairs(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "data")
    for i in range(2, 12):
        (tmp_path / "data" / f"{i:02}.txt").unlink()
    source = hw.open(tmp_path / "data")
    assert source.modalities == ("image",)
    assert any("other files are left out: 2 .txt" in note for note in source.notes)
    assert hw.open(f"text:{tmp_path / 'data'}").modalities == ("text",)
