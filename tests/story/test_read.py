"""`--read`: what a path does not say, said on the command line."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from tests.story.commands import headwater


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """A table of 24 rows that names a picture in each but the last, and an age."""
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    rows = []
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / "scans" / f"{i}.png")
        rows.append(f"{f'scans/{i}.png' if i < 23 else ''},{20 + i},{i % 2},{i}")
    (tmp_path / "visits.csv").write_text("scan,age,sick,number\n" + "\n".join(rows) + "\n")
    return tmp_path / "visits.csv"


def test_columns_of_a_table_of_paths(visits: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = ("--data", visits, "--read", "columns.image=scan", "--read", "columns.table=age,number")
    assert "23 images and table rows" in headwater(capsys, "doctor", *table).out
    assert "24 images and table rows" in headwater(capsys, "doctor", *table, "--read", "missing=true").out
    run = tmp_path / "run"
    said = headwater(capsys, "pretrain", "mae", "--data", visits, "--read", "columns.image=scan", "--labels", "sick",
                     "--out", run, "--steps", 2, "--batch-size", 8, "--device", "cpu")  # fmt: skip
    assert said.code == 0, said.err
    out = tmp_path / "v.parquet"
    said = headwater(capsys, "embed", "-e", run, "--data", visits, "--read", "columns.image=scan", "--labels", "sick",
                     "--out", out)  # fmt: skip
    assert said.code == 0, said.err
    labels = pq.read_table(out)["label"].to_pylist()
    assert len(labels) == 23 and len(set(labels)) == 2


def test_boxes_and_masks_beside_pictures(visits: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 16} for i in range(5)]
    box = {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 5, 6], "area": 30, "iscrowd": 0}
    coco = {"images": pictures, "annotations": [box], "categories": [{"id": 1, "name": "lesion"}]}
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    scans = visits.parent / "scans"
    said = headwater(capsys, "doctor", "--data", scans, "--read", f"annotations={tmp_path / 'instances.json'}")
    assert said.code == 0 and "lesion: 1" in said.out, said.out + said.err


def test_a_way_of_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tone = np.sin(np.arange(16000) / 5)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", tone, 16000)
    said = headwater(capsys, "doctor", "--data", tmp_path, "--read", "rate=8000", "--read", "seconds=0.5")
    assert "resampled to 8000 Hz" in said.out and "8 sounds" in said.out, said.out


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("rate", "name=value"),
        ("=3", "name=value"),
        ("missing=perhaps", "true or false"),
        ("bitrate=3", "Did you mean rate?"),
        ("modality=sound", "audio"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    pair: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    said = headwater(capsys, "doctor", "--data", tmp_path, "--read", pair)
    assert said.code == 2 and told in said.err, said.err
