"""Archives with WebDataset keys: one, or several as one set."""

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.data import encoding
from headwater.data.shards import expanded


def picture(i: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (16, 16), i).save(out, "PNG")
    return out.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def shards(at: Path, n: int = 3, each: int = 10) -> Path:
    """Pictures with words and labels; the fourth of each shard lacks its words, the last of all its picture."""
    at.mkdir(exist_ok=True)
    for s in range(n):
        members = {}
        for i in range(s * each, (s + 1) * each):
            if i != n * each - 1:
                members[f"part/{i:05}.png"] = picture(i)
            if i % each != 3:
                members[f"part/{i:05}.txt"] = f"number {i}".encode()
            members[f"part/{i:05}.cls"] = str(i % 2).encode()
        tar(at / f"shard-{s:03}.tar", members)
    return at


def agree(source: hw.data.source.Source, i: int) -> int:  # type: ignore[name-defined]
    sample = source.read(i)
    number = int(sample["image"][0, 0, 0])
    assert encoding.decode(sample["text"]) == f"number {number}"
    return number


@pytest.mark.parametrize(
    "pattern", ["shard-{000..002}.tar", "shard-*.tar", "shard-{000,001,002}.tar", "list", "a list"]
)
def test_several_shards_are_one_source(tmp_path: Path, pattern: str) -> None:
    at = shards(tmp_path / "data")
    what: object = str(at / pattern)
    if pattern == "list":
        (at / "list.txt").write_text("".join(f"shard-{s:03}.tar\n" for s in range(3)))
        what = at / "list.txt"
    if pattern == "a list":
        what = [at / f"shard-{s:03}.tar" for s in range(3)]
    source = hw.open(what)
    assert source.modalities == ("image", "text")
    assert len(source) == 30 - 4
    assert "4 of 30 items lack a partner and are left out; missing=True keeps them." in source.notes
    numbers = [agree(source, i) for i in range(len(source))]
    assert numbers == [i for i in range(29) if i % 10 != 3]
    assert source.labels is not None
    assert source.labels.tolist() == [i % 2 for i in numbers]
    assert source.id(9) == "shard-001.tar/part/00010.png"
    assert source.path(9).endswith("/data/shard-001.tar/part/00010.png")


def test_items_without_partner_stay_if_asked_and_clip_learns(tmp_path: Path) -> None:
    at = shards(tmp_path / "data")
    every = hw.open(at / "shard-{000..002}.tar", missing=True)
    assert len(every) == 30
    assert [*every.read(13)] == ["image"]
    assert [*every.read(29)] == ["text"]
    assert {"1 of 30 items have no image.", "3 of 30 items have no text."} <= {*every.notes}
    assert len(every.only("text")) == 27
    run = hw.pretrain("clip", every, out=tmp_path / "run", steps=2, batch_size=16)
    assert hw.embed(hw.load(run.path, "image"), every).shape[0] == 29


def test_one_archive_with_captions_in_json(tmp_path: Path) -> None:
    members = {}
    for i in range(8):
        members |= {
            f"{i}.png": picture(i),
            f"{i}.json": json.dumps({"caption": f"number {i}", "label": "ab"[i % 2]}).encode(),
        }
    members["5.json"] = b"{"
    source = hw.open(tar(tmp_path / "a.tar", members))
    assert [agree(source, i) for i in range(8) if i != 5] == [0, 1, 2, 3, 4, 6, 7]
    with pytest.raises(Unreadable, match=r"5\.json: it is not JSON"):
        source.read(5)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0, 1, 0, -1, 0, 1]
    assert hw.open(f"image:{tmp_path / 'a.tar'}").modalities == ("image",)


def test_a_key_ends_at_its_first_dot_and_doubles_are_counted(tmp_path: Path) -> None:
    members = {}
    for i in range(6):
        wave = io.BytesIO()
        soundfile.write(wave, np.full(2000, i / 10), 8000, format="WAV")
        members |= {f"{i}.left.png": picture(i), f"{i}.sound.wav": wave.getvalue()}
    members["2.right.png"] = picture(99)
    source = hw.open(tar(tmp_path / "a.tar", members))
    assert source.modalities == ("image", "audio")
    assert [int(source.read(i)["image"][0, 0, 0]) for i in range(6)] == [0, 1, 2, 3, 4, 5]  # type: ignore[index]
    assert float(source.read(3)["audio"].mean()) == pytest.approx(0.3, abs=1e-3)  # type: ignore[union-attr]
    assert "1 files share name and kind with another and are left out." in source.notes


def test_equal_keys_in_two_shards_are_two_items(tmp_path: Path) -> None:
    for s in range(2):
        members = {}
        for i in range(4):
            members |= {f"{i}.png": picture(10 * s + i), f"{i}.txt": f"number {10 * s + i}".encode()}
        tar(tmp_path / f"{s}.tar", members)
    source = hw.open(tmp_path / "{0..1}.tar")
    assert [agree(source, i) for i in range(8)] == [0, 1, 2, 3, 10, 11, 12, 13]
    assert len({source.id(i) for i in range(8)}) == 8


def test_shards_of_one_modality(tmp_path: Path) -> None:
    for s in range(2):
        tar(
            tmp_path / f"{s}.tar",
            {f"{i}.{e}": d for i in range(4) for e, d in (("png", picture(4 * s + i)), ("cls", b"1"))},
        )
    source = hw.open(tmp_path / "?.tar")
    assert source.modalities == ("image",)
    assert [int(source.read(i)["image"][0, 0, 0]) for i in range(8)] == [*range(8)]  # type: ignore[index]
    assert source.classes == ("1",)


def test_shards_at_an_address(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(shards(tmp_path / "data")), "/sharded", recursive=True)
    for what in ("memory://sharded/shard-{000..002}.tar", "memory://sharded/shard-*.tar"):
        source = hw.open(what)
        assert len(source) == 26
        agree(source, 20)
    fs.rm("/sharded", recursive=True)


def test_braces() -> None:
    assert expanded("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expanded("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    assert expanded("plain.tar") == ["plain.tar"]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    at = shards(tmp_path / "data")
    with pytest.raises(RequestError, match=r"There is no archive .*shard-003.tar, one of the 4"):
        hw.open(at / "shard-{000..003}.tar")
    with pytest.raises(RequestError, match="No archive matches"):
        hw.open(at / "more-*.tar")
    (at / "x.csv").write_text("a\n1\n")
    with pytest.raises(RequestError, match=r"end in .tar or .zip; .*x.csv does not"):
        hw.open([at / "shard-000.tar", at / "x.csv"])
    cut = (at / "shard-001.tar").read_bytes()
    (at / "shard-001.tar").write_bytes(cut[: len(cut) // 2 - 100])
    with pytest.raises(RequestError, match=r"shard-001.tar is damaged"):
        hw.open(at / "shard-{000..002}.tar")


def test_reading_shards_keeps_memory_flat(tmp_path: Path) -> None:
    source = hw.open(shards(tmp_path / "data", n=2, each=150) / "shard-*.tar")
    for i in range(50):
        source.read(i)
    tracemalloc.start()
    try:
        for i in range(50, len(source)):
            source.read(i)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert left < 50_000
