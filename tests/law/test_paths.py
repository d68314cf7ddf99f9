"""Tables that name files: recognised, named by the user, and what happens where a cell or a file is missing."""

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.data import encoding
from headwater.data.loader import Loader

N = 12


def made(at: Path, **more: list[Any]) -> dict[str, list[Any]]:
    """Twelve pictures, each with a brightness of its own, and columns beside their paths."""
    (at / "pictures").mkdir(parents=True)
    for i in range(N):
        Image.new("L", (16, 16), 20 * i).save(at / "pictures" / f"{i}.png")
    return {"file": [f"pictures/{i}.png" for i in range(N)], **more}


def captions() -> list[Any]:
    return [f"a square, brightness {20 * i}" for i in range(N)]


def written(path: Path, columns: dict[str, list[Any]]) -> str:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        cells = [[*columns], *(["" if v is None else f'"{v}"' for v in row.values()] for row in rows)]
        path.write_text("\n".join(",".join(c) for c in cells) + "\n")
    return str(path)


def agree(source: Any, i: int) -> None:
    sample = source.read(i)
    assert encoding.decode(sample["text"]).endswith(f"brightness {int(sample['image'][0, 0, 0])}")


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_pictures_and_captions_are_pairs_and_clip_learns_from_them(tmp_path: Path, ending: str) -> None:
    at = written(tmp_path / f"pairs.{ending}", made(tmp_path, caption=captions(), label=["dark", "light"] * 6))
    source = hw.open(at)
    assert source.modalities == ("image", "text")
    assert len(source) == N
    for i in range(N):
        agree(source, i)
    assert source.classes == ("dark", "light")
    assert source.id(3) == "pictures/3.png"
    if ending == "csv":
        run = hw.pretrain("clip", at, out=tmp_path / "run", steps=2, batch_size=4)
        for modality in source.modalities:
            assert hw.embed(hw.load(run.path, modality), at).shape[0] == N
            assert hw.evaluate(hw.load(run.path, modality), at, labels_per_class=[1], baselines=[], draws=1)


def test_numbers_beside_pictures_are_table_rows(tmp_path: Path) -> None:
    columns = made(tmp_path, id=[*range(N)], split=["train"] * N, age=[30.5, None] * 6, kind=["b", "a"] * 6)
    source = hw.open(written(tmp_path / "t.csv", columns), labels="kind")
    assert source.modalities == ("image", "table")
    assert source.spec["table"]["names"] == ["age"]
    assert any("Columns left out: id, split;" in note for note in source.notes)
    np.testing.assert_array_equal(
        source.only("table").tensors["table"][:, 0].numpy(), np.array([30.5, np.nan] * 6, "f4")
    )
    assert source.labels is not None
    assert source.labels.tolist() == [1, 0] * 6
    run = hw.pretrain("clip", source, out=tmp_path / "run", steps=1, batch_size=4)
    assert hw.embed(hw.load(run.path, "table"), source).shape[0] == N
    with pytest.raises(RequestError, match=r"holds 2: image, table\. .* such as image:PATH"):
        hw.pretrain("simclr", source, out=tmp_path / "one", steps=1)


def test_a_modality_before_the_path_takes_it_alone(tmp_path: Path) -> None:
    at = written(tmp_path / "t.csv", made(tmp_path, age=[*range(N)], caption=captions()))
    assert hw.open(f"image:{at}").modalities == ("image",)
    assert hw.open(f"table:{at}").spec["table"]["names"] == ["file", "age", "caption"]
    assert hw.open(f"text:{at}").modalities == ("text",)
    with pytest.raises(RequestError, match=r"No column of .* names sounds; it has file, age, caption"):
        hw.open(f"audio:{at}")


def test_sounds_and_words_and_several_files_per_row(tmp_path: Path) -> None:
    columns = made(tmp_path, sound=[f"{i}.wav" for i in range(N)], caption=captions())
    for i in range(N):
        soundfile.write(tmp_path / f"{i}.wav", np.full(2000, i / 20), 8000)
    source = hw.open(written(tmp_path / "t.csv", columns))
    assert source.modalities == ("image", "audio", "text")
    assert float(source.read(4)["audio"].mean()) == pytest.approx(0.2, abs=1e-3)  # type: ignore[union-attr]
    agree(source, 4)
    pair = hw.open(tmp_path / "t.csv", columns={"audio": "sound", "text": "caption"})
    assert pair.modalities == ("audio", "text")
    assert hw.pretrain("clip", pair, out=tmp_path / "run", steps=1, batch_size=4).outcome.done


def test_columns_named_by_the_user_are_those_read(tmp_path: Path) -> None:
    at = written(
        tmp_path / "t.csv",
        made(tmp_path, title=["x"] * N, words=captions(), age=[*range(N)], tall=[*range(N)], kind=["u", "v"] * 6),
    )
    source = hw.open(at, columns={"image": "file", "text": "words", "table": ["age"]}, labels="kind")
    assert source.modalities == ("image", "text", "table")
    assert source.spec["table"]["names"] == ["age"]
    assert source.classes == ("u", "v")
    agree(source, 5)
    other = hw.open(at, columns={"image": "file", "text": "title", "table": ["age"]}, labels="kind")
    assert other.fingerprint != source.fingerprint
    assert hw.open(at, columns={"image": "file"}).modalities == ("image",)
    assert hw.open(at, columns={"text": "words", "table": "tall"}).modalities == ("text", "table")


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"image": "fille", "text": "caption"}, r"no column of .* named 'fille'. Did you mean file\?"),
        ({"imag": "file"}, r"no modality named 'imag'. Did you mean image\?"),
        ({"audio": "file"}, r"The column file of .* names no sounds; it holds such as 'pictures/0.png'"),
        ({"image": "age"}, r"The column age of .* holds int64, not images"),
        ({"image": ["file", "caption"]}, "image is read from one column"),
        ({}, "at least one modality"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, columns: dict[str, Any], match: str) -> None:
    at = written(tmp_path / "t.csv", made(tmp_path, caption=captions()))
    pq.write_table(pa.table(made(tmp_path / "more", caption=captions(), age=[*range(N)])), tmp_path / "more/t.parquet")
    with pytest.raises(RequestError, match=match):
        hw.open(tmp_path / "more" / "t.parquet", columns=columns)
    with pytest.raises(RequestError, match="columns= names columns of a table"):
        hw.open(tmp_path / "more", columns={"image": "file"})
    with pytest.raises(RequestError, match=r"no column of .* named 'kind'"):
        hw.open(at, labels="kind")


def test_a_row_whose_file_is_gone_or_broken_is_counted_and_an_empty_cell_is_an_item_without(tmp_path: Path) -> None:
    columns = made(tmp_path, caption=captions(), label=["a", "b"] * 6)
    columns["file"][1] = "pictures/gone.png"
    (tmp_path / "pictures" / "2.png").write_bytes(b"hello")
    columns["file"][3], columns["caption"][4] = None, " "
    at = written(tmp_path / "t.csv", columns)
    source = hw.open(at)
    assert "2 of 12 items lack a partner and are left out; missing=True keeps them." in source.notes
    assert len(source) == 10
    for i, why in ((1, "does not exist"), (2, "no image that Pillow knows")):
        with pytest.raises(Unreadable, match=why):
            source.read(i)
    assert [item for item, _ in hw.doctor(source).unreadable] == ["pictures/gone.png", "pictures/2.png"]
    run = hw.pretrain("clip", source, out=tmp_path / "run", steps=6, batch_size=4)
    named = json.loads((run.path / "unreadable.json").read_text())
    assert [item for item, _ in named] == ["pictures/2.png", "pictures/gone.png"]
    every = hw.open(at, missing=True)
    assert len(every) == N
    assert [*every.read(3)] == ["text"]
    assert [*every.read(4)] == ["image"]
    assert every.labels is not None
    assert every.labels.tolist() == [0, 1] * 6
    agree(every, 7)
    (kept, batch), *_ = Loader(every, N).ordered(range(N))
    assert kept == [0, *range(3, N)]
    assert batch.present is not None
    assert batch.present["image"].tolist() == [i != 3 for i in kept]


def test_empty_rows_are_left_out_whatever_is_asked(tmp_path: Path) -> None:
    columns = made(tmp_path, caption=captions())
    columns["file"][3] = columns["caption"][3] = None
    at = written(tmp_path / "t.csv", columns)
    for source in (hw.open(at), hw.open(at, missing=True), hw.open(at, columns={"image": "file"})):
        assert "1 of 12 items are empty and left out." in source.notes
        assert len(source) == N - 1
        assert "pictures/4.png" in {source.id(i) for i in range(N - 1)}


def test_files_in_the_cells_go_beside_words_too(tmp_path: Path) -> None:
    columns = made(tmp_path, caption=captions())
    cells = [{"bytes": (tmp_path / f).read_bytes(), "path": None} for f in columns.pop("file")]
    cells[2] = None  # type: ignore[call-overload]
    at = tmp_path / "t.parquet"
    pq.write_table(pa.table({"picture": cells, **columns}), at)
    source = hw.open(at)
    assert source.modalities == ("image", "text")
    assert len(source) == N - 1
    agree(source, 5)
    assert [*hw.open(at, missing=True).read(2)] == ["text"]


def test_captions_may_hold_commas_and_several_lines(tmp_path: Path) -> None:
    columns = made(tmp_path, caption=[f"{20 * i}\n" + "one, two\n" * 30_000 for i in range(N)])  # more than one block
    source = hw.open(written(tmp_path / "t.csv", columns))
    assert len(source) == N
    assert encoding.decode(source.read(6)["text"]).startswith("120\none, two\n")


def test_tables_that_name_no_files_stay_what_they_were(tmp_path: Path) -> None:
    columns = {"file": [f"nowhere/{i}.dat" for i in range(N)], "other": ["a.png"] * N, "x": [*range(N)]}
    assert hw.open(written(tmp_path / "t.csv", columns)).modalities == ("table",)
    lines = {"text": [f"words {i}" for i in range(N)], "source": ["b.png"] * N}
    assert hw.open(written(tmp_path / "t.jsonl", lines)).modalities == ("text",)


def test_a_table_at_an_address_names_files_beside_it(tmp_path: Path) -> None:
    at = written(tmp_path / "t.csv", made(tmp_path, caption=captions()))
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path), "/paired", recursive=True)
    source = hw.open("memory://paired/t.csv")
    assert source.modalities == ("image", "text")
    agree(source, 9)
    named = hw.open("memory://paired/t.csv", columns={"image": "file"})
    assert named.read(2)["image"].equal(hw.open(at).read(2)["image"])
    fs.rm("/paired", recursive=True)
