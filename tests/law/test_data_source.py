"""Splits, subsets, duplicates, threads, fingerprints, and the index with its cache."""

import gc
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch

from headwater.core.errors import RequestError
from headwater.data import Subset, duplicates, index, open, split
from headwater.data.opening import ENDINGS

from .test_data_open import cache, encoded, packed, photos, pixels, put  # noqa: F401 (cache is a fixture)


def sides(source, test, seed):
    return [[s.id(i) for i in range(len(s))] for s in split(source, test, seed)]


def test_split_is_a_function_of_seed_and_ids():
    source = open("digits")
    train, test = sides(source, 0.2, 0)
    assert sides(source, 0.2, 0) == [train, test]
    assert sides(source, 0.2, 1) != [train, test]
    assert len(test) == 359
    assert sorted(train + test) == sorted(map(str, range(1797)))
    order = np.random.default_rng(0).permutation(1797)
    moved = sides(Subset(source, order), 0.2, 0)
    assert set(moved[1]) == set(test)


@pytest.mark.parametrize("test", [0.2, 0.35, 17, 100])
def test_split_is_stratified_exactly(test):
    labels = np.repeat([0, 1, 2, -1], [101, 50, 7, 30])
    source = open((np.zeros((188, 2)), labels.astype(float)))
    source.labels, source.classes = labels, ("a", "b", "c")
    train, held = split(source, test, 3)
    count = round(188 * test) if isinstance(test, float) else test
    assert len(held) == count
    assert len(train) == 188 - count
    for kind in (0, 1, 2, -1):
        share = (labels == kind).sum() * count / 188
        assert abs((held.labels == kind).sum() - share) < 1


def test_split_of_numbers_to_regress_and_of_unlabelled_data():
    for source in (open("diabetes"), open(np.zeros((442, 2)))):
        assert [len(s) for s in split(source, 42, 0)] == [400, 42]


@pytest.mark.parametrize("test", [0, 1797, 0.0, 1.0])
def test_split_needs_items_on_both_sides(test):
    with pytest.raises(RequestError, match="both sides need some"):
        split(open("digits"), test, 0)


def test_subset_of_subset():
    source = open("digits")
    part = Subset(Subset(source, range(100, 200)), [5, 3])
    assert [part.id(0), part.id(1)] == ["105", "103"]
    assert part.source is source
    assert part.labels.tolist() == source.labels[[105, 103]].tolist()
    assert torch.equal(part.tensors["image"][1], source.read(103)["image"])
    assert torch.equal(part.read(0)["image"], source.read(105)["image"])
    assert part.fingerprint != source.fingerprint
    assert part.spec == source.spec
    with pytest.raises(RequestError, match="asks for items 0 to 1797"):
        Subset(source, [0, 1797])


def test_duplicates_are_found_by_content(tmp_path):
    photos(tmp_path / "a")
    put(tmp_path / "b/same.bmp", encoded(pixels(11), "BMP"))  # dog/1.png in another format
    put(tmp_path / "b/other.png", encoded(pixels(77)))
    put(tmp_path / "b/reshaped.png", encoded(pixels(11).reshape(5, 6, 3)))
    put(tmp_path / "b/broken.png", b"x")
    assert duplicates(open(tmp_path / "a"), open(tmp_path / "b")) == [("dog/1.png", "same.bmp")]
    train, test = split(open("digits"), 0.2, 0)
    assert duplicates(train, test) == []


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_many_threads_read_the_same_values(tmp_path, form):
    files = {f"{k:02}.png": encoded(pixels(k, 30, 30)) for k in range(40)}
    if form == "folder":
        for name, data in files.items():
            put(tmp_path / "data" / name, data)
    source = open(tmp_path / "data" if form == "folder" else packed(tmp_path, form, files))
    at = np.random.default_rng(0).integers(0, 40, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        for i, sample in zip(at, pool.map(source.read, at), strict=True):
            assert torch.equal(sample["image"], torch.from_numpy(pixels(i, 30, 30).transpose(2, 0, 1).copy()))


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_source_can_be_sent_to_another_process(tmp_path, form):
    source = open(packed(tmp_path, form, {f"{k}.png": encoded(pixels(k)) for k in range(4)}))
    sent = pickle.loads(pickle.dumps(source))
    assert torch.equal(sent.read(3)["image"], source.read(3)["image"])
    assert sent.fingerprint == source.fingerprint


def test_fingerprints_change_with_the_data(tmp_path):
    photos(tmp_path / "p")
    first = open(tmp_path / "p").fingerprint
    assert open(tmp_path / "p").fingerprint == first
    seen = {first}
    put(tmp_path / "p/cat/new.png", encoded(pixels()))
    seen.add(open(tmp_path / "p").fingerprint)
    put(tmp_path / "p/cat/new.png", encoded(pixels(5, 9, 9)))
    seen.add(open(tmp_path / "p").fingerprint)
    (tmp_path / "p/cat/new.png").rename(tmp_path / "p/cat/newer.png")
    seen.add(open(tmp_path / "p").fingerprint)
    assert len(seen) == 4
    x = np.zeros((4, 3))
    assert open(x).fingerprint != open(x + 1).fingerprint != open((x, [1, 2, 3, 4])).fingerprint
    one = open(packed(tmp_path, "tar", {"a.png": encoded(pixels())})).fingerprint
    assert open(packed(tmp_path, "tar", {"a.png": encoded(pixels()), "b.png": encoded(pixels())})).fingerprint != one


def settle(root):
    """Gives every folder an old modification time, as if nothing had been added for a while."""
    for at, _, _ in os.walk(root):
        os.utime(at, (1e9, 1e9))


def scans(monkeypatch):
    count = []
    walk = index._walk
    monkeypatch.setattr(index, "_walk", lambda *a: (count.append(1), walk(*a))[1])
    return count


def test_index_is_kept_and_made_anew_when_a_file_is_added(tmp_path, monkeypatch):
    photos(tmp_path / "p")
    settle(tmp_path / "p")
    count = scans(monkeypatch)
    assert len(open(tmp_path / "p")) == 6
    assert len(open(tmp_path / "p")) == 6
    assert len(count) == 1
    put(tmp_path / "p/cat/new.png", encoded(pixels()))
    assert len(open(tmp_path / "p")) == 7
    assert len(count) == 2
    put(tmp_path / "p/elk/new.png", encoded(pixels()))
    assert open(tmp_path / "p").classes == ("cat", "dog", "elk")
    assert len(count) == 3


def test_a_folder_that_just_changed_is_not_trusted_to_the_cache(tmp_path, monkeypatch):
    photos(tmp_path / "p")
    count = scans(monkeypatch)
    open(tmp_path / "p")
    open(tmp_path / "p")
    assert len(count) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "words"])
def test_a_damaged_index_is_built_anew(tmp_path, monkeypatch, cache, damage):  # noqa: F811
    photos(tmp_path / "p")
    settle(tmp_path / "p")
    names = [open(tmp_path / "p").id(i) for i in range(6)]
    (path,) = (cache / "index").iterdir()
    data = path.read_bytes()
    at = data.index(b"cat/0.png")
    path.write_bytes(
        {"cut": data[:-50], "flip": data[:at] + b"r" + data[at + 1 :], "empty": b"", "words": b"x" * 999}[damage]
    )
    count = scans(monkeypatch)
    again = open(tmp_path / "p")
    assert [again.id(i) for i in range(6)] == names
    assert len(count) == 1
    assert path.read_bytes() == data


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    photos(tmp_path / "p")
    settle(tmp_path / "p")
    put(tmp_path / "file", b"")
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "file"))
    assert len(open(tmp_path / "p")) == 6


def test_links_that_lead_back_up_end(tmp_path):
    photos(tmp_path / "p")
    (tmp_path / "p/cat/up").symlink_to(tmp_path / "p")
    assert len(open(tmp_path / "p")) == 6


def test_memory_stays_flat_in_the_number_of_files(tmp_path):
    """An open folder holds no Python object per file: 5,000 files allocate as few objects as 2."""
    picture = put(tmp_path / "few/0.png", encoded(pixels()))
    os.link(picture, tmp_path / "few/1.png")
    (tmp_path / "many").mkdir()
    for k in range(5_000):
        os.link(picture, tmp_path / f"many/{k:07}.png")
    kept = {}
    for name in ("few", "few", "many"):  # the first time also pays for imports
        gc.collect()
        tracemalloc.start()
        source = open(tmp_path / name)
        gc.collect()
        kept[name] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert len(source) == 5_000
    assert kept["many"] - kept["few"] < 100_000


def test_names_are_held_by_arrow_and_mapped_from_the_cache(tmp_path):
    for k in range(200):
        put(tmp_path / f"p/{'a long name ' * 15}{k:03}.png", encoded(pixels()))
    settle(tmp_path / "p")
    open(tmp_path / "p")
    before = pa.total_allocated_bytes()
    names = index.folder(str(tmp_path / "p"), ENDINGS).table["name"]
    assert names.nbytes > 36_000
    assert pa.total_allocated_bytes() - before < 4000  # the names lie in the mapped file
