"""What the doctor says of data with known faults, and the statistics that normalisation uses."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from headwater.core.errors import RequestError
from headwater.data import open
from headwater.data.doctor import examine
from headwater.data.statistics import statistics

from .test_data_open import cache, encoded, photos, pixels, put  # noqa: F401 (cache is a fixture)


def test_a_folder_with_every_fault(tmp_path):
    photos(tmp_path, 5)
    put(tmp_path / "cat/flat.png", encoded(np.full((6, 5, 3), 77, np.uint8)))
    put(tmp_path / "cat/twin.bmp", encoded(pixels(3), "BMP"))
    put(tmp_path / "cat/zero.png", b"")
    put(tmp_path / "cat/half.png", encoded(pixels(20))[:-30])
    put(tmp_path / "loose.png", encoded(pixels(30, 9, 9)))
    put(tmp_path / "dog/grey.png", encoded(pixels(31, c=0)))
    found = examine(open(tmp_path))
    assert (found.items, found.sampled) == (16, 16)
    assert dict(found.unreadable).keys() == {"cat/zero.png", "cat/half.png"}
    assert "zero bytes" in dict(found.unreadable)["cat/zero.png"]
    assert found.duplicates == (("cat/3.png", "cat/twin.bmp"),)
    image = found.modalities["image"]
    assert image.constant == ("cat/flat.png",)
    assert image.sizes == {"6 x 5": 13, "9 x 9": 1}
    assert image.channels == {"3": 14}
    assert image.dtypes == {"uint8": 14}
    assert found.classes == {"cat": 9, "dog": 6}
    assert found.imbalance == 1.5
    assert found.unlabelled == 1
    assert found.rate > 0
    text = "\n".join(found.lines())
    for words in ("16 images", "unreadable: 2 of 16", "zero bytes", "cat/3.png = cat/twin.bmp", "cat/flat.png"):
        assert words in text
    for words in ("2 classes", "1 items without", "Grey and colour", "items/s"):
        assert words in text
    assert json.loads(found.to_json())["modalities"]["image"]["sizes"]["9 x 9"] == 1


def test_a_table_with_missing_cells_and_a_dead_column():
    draw = np.random.default_rng(0)
    table = pa.table(
        {
            "a": [1.0, None, 3.0, None],
            "b": [5.0] * 4,
            "c": draw.normal(size=4),
            "long": pa.array([[1]] * 4),
            "y": [1.5, None, 2, 3],
        }
    )
    found = examine(open(table, labels="y"), sample=3)
    facts = found.modalities["table"]
    assert facts.missing == {"a": 2}
    assert facts.constant == ("b",)
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("long (list")
    assert found.unlabelled == 1
    assert found.classes == {}
    assert found.sampled == 3
    assert any("missing cells: 2 in 1 columns" in line for line in found.lines())


def test_no_labels_and_pairs():
    assert "labels: none." in examine(open(np.zeros((3, 2, 5)))).lines()
    pair = examine(open("captioned-digits"), sample=50)
    assert pair.modalities.keys() == {"image", "text"}
    assert pair.modalities["text"].mean == ()
    assert any("carry the labels" in line for line in pair.lines())


def test_statistics_of_images_series_and_tables(tmp_path):
    for k in range(4):
        put(tmp_path / f"{k}.png", encoded(pixels(k, 4 + k, 5)))  # unequal sizes: pixels count alike, not pictures
    values = np.concatenate([pixels(k, 4 + k, 5).reshape(-1, 3) for k in range(4)]) / 255
    mean, std = statistics(open(tmp_path))["image"]
    assert mean.dtype == torch.float32
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, values.std(0), atol=1e-6)
    series = np.random.default_rng(0).normal(100, 0.1, (50, 2, 30))
    mean, std = statistics(open(series))["series"]
    np.testing.assert_allclose(mean, series.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, series.std((0, 2)), rtol=1e-4)
    cells = np.random.default_rng(0).normal(size=(40, 3))
    cells[::3, 0] = np.nan
    cells[:, 2] = 7
    mean, std = statistics(open(cells))["table"]
    np.testing.assert_allclose(mean, np.nanmean(cells, 0), atol=1e-6)
    np.testing.assert_allclose(std, [np.nanstd(cells[:, 0]), cells[:, 1].std(), 1], atol=1e-6)


def test_statistics_are_a_function_of_the_seed():
    source = open("digits")
    one, again, other = (statistics(source, 100, seed)["image"] for seed in (0, 0, 1))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    mean, std = statistics(source, 5000)["image"]
    assert torch.allclose(mean, source.tensors["image"].mean())
    assert torch.allclose(std, source.tensors["image"].std(), atol=1e-5)


def test_statistics_need_one_number_of_channels(tmp_path):
    put(tmp_path / "a.png", encoded(pixels()))
    clear = pixels(c=4)
    put(tmp_path / "b.png", encoded(clear))
    source = open(tmp_path)
    assert source.spec["image"]["channels"] is None
    assert "differ in channels (3, 4)" in source.notes[0]
    with pytest.raises(RequestError, match="one number of channels"):
        statistics(source)
