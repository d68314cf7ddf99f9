"""Curation as a user does it: raw data or embeddings in, a manifest out, and pre-training from the manifest."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError
from headwater.data.curated import counts
from headwater.data.source import Subset
from tests.story.commands import headwater

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of two photographs as files, some of them again at another size and in another format, and one broken."""
    root, source = tmp_path_factory.mktemp("data") / "photos", hw.open("sample-photos")
    assert source.labels is not None
    for i in range(len(source)):
        folder = root / source.classes[source.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        tile = Image.fromarray(source.read(i)["image"].permute(1, 2, 0).numpy())
        tile.save(folder / f"{i:03}.png")
        if i % 10 == 0:
            tile.resize((80, 72)).save(folder / f"{i:03}-again.jpg", quality=90)
    (root / "broken.png").write_bytes(b"none")
    return root


def test_files_are_freed_of_twins_and_learned_from(capsys: Capture, photos: Path, tmp_path: Path) -> None:
    said = headwater(capsys, "curate", "near-duplicates", "-d", photos, "-o", tmp_path / "once", "--json")
    assert said.code == 0, said.err
    assert said.json["pool"] == 132 and said.json["kept"] < 120
    kept = hw.open(tmp_path / "once")
    ids = {kept.id(i) for i in range(len(kept))}
    assert len(kept) == said.json["kept"]
    for i in range(0, 120, 10):  # of each pair one at most
        names = [p.relative_to(photos).as_posix() for p in photos.glob(f"*/{i:03}*")]
        assert len(names) == 2 and len({*names} & ids) <= 1
    page = (tmp_path / "once/report.html").read_text()
    assert f"{len(kept)} of 132 items kept" in page and "data:image/png" in page and "its twin, dropped" in page
    assert [item for item, _ in said.json["unreadable"]] == ["broken.png"]
    assert "1 more cannot be read and is left out, such as broken.png: the content is no image" in page
    run = headwater(
        capsys, "pretrain", "mae", "-d", tmp_path / "once", "-o", tmp_path / "run", "--steps", 2, "--batch-size", 8,
        "--set", "size=32", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert hw.load(tmp_path / "run").modality == "image"
    seen = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert seen["n"] == len(kept) and seen["name"] == "photos/, curated"


def test_embeddings_are_balanced_and_lead_back_to_the_data(capsys: Capture, tmp_path: Path) -> None:
    hw.pretrain("simclr", "digits", out=tmp_path / "run", steps=4, batch_size=32, device="cpu")
    vectors = hw.embed(tmp_path / "run", "digits", out=tmp_path / "vectors")
    base = ("curate", "balanced", "--keep", "0.1", "--json")
    said = headwater(capsys, *base, "-d", tmp_path / "vectors", "-o", tmp_path / "even")
    assert said.code == 0, said.err
    assert said.json["kept"] == 180 and not (tmp_path / "even/vectors").exists()
    again = headwater(capsys, *base, "-d", "digits", "-e", tmp_path / "run", "-o", tmp_path / "again")
    ours, theirs = (pq.read_table(tmp_path / name / "kept.parquet") for name in ("even", "again"))
    assert again.code == 0 and ours.equals(theirs)
    kept, digits = hw.open(tmp_path / "even/manifest.json"), hw.open("digits")
    assert isinstance(kept, Subset) and kept.labels is not None and digits.labels is not None
    np.testing.assert_array_equal(kept.labels, digits.labels[ours["position"]])
    page = (tmp_path / "even/report.html").read_text()
    assert "Groups before and after" in page and "Labels before and after" in page and "group 0, such as " in page
    twice = hw.curate("near-duplicates", kept, keep=20)  # a choice among what was chosen
    assert len(twice.kept) == 20 and twice.data is not None and len(twice.data) == 20
    np.testing.assert_allclose(hw.embed(tmp_path / "run", kept), vectors[ours["position"]], atol=1e-4)


@pytest.mark.parametrize("data", ["wine", "waves", "sentences", "tones", "blobs-3d", "moving-shapes"])
def test_values_of_other_kinds_are_features_too(data: str) -> None:
    made = hw.curate("balanced", data, keep=30, set=["levels=(6,)"])
    assert len(made.kept) == 30 and made.data is not None and len(made.data) == 30


def test_arrays_are_curated_in_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    x[150:] = x[:50] + 1e-4
    made = hw.curate("near-duplicates", x, out=tmp_path / "m", set=["threshold=0.999"])
    assert made.kept.tolist() == [*range(150)] and made.data is not None
    with pytest.raises(RequestError, match="made of data in memory"):
        hw.open(tmp_path / "m")


def test_an_interrupted_call_goes_on_and_another_result_is_not_written_over(photos: Path, tmp_path: Path) -> None:
    made = hw.curate("balanced", photos, keep=10, out=tmp_path / "a")
    with pytest.raises(RequestError, match="name a new folder"):
        hw.curate("balanced", photos, keep=10, out=tmp_path / "a")
    for path in [*(tmp_path / "a").iterdir()]:
        if path.is_file():
            path.unlink()
    stamp = (tmp_path / "a/vectors/part-00000.parquet").stat().st_mtime_ns
    again = hw.curate("balanced", photos, keep=10, out=tmp_path / "a")
    assert again.kept.tolist() == made.kept.tolist()
    assert (tmp_path / "a/vectors/part-00000.parquet").stat().st_mtime_ns == stamp


def test_a_manifest_follows_data_that_grow_and_says_what_they_lost(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i, path in enumerate(sorted(photos.glob("*/*.png"))[:30]):
        (root / f"{i + 10}.png").write_bytes(path.read_bytes())
    hw.curate("balanced", root, keep=8, out=tmp_path / "m")
    before = hw.open(tmp_path / "m")
    names = [before.id(i) for i in range(8)]
    (root / "00.png").write_bytes((root / "10.png").read_bytes())
    after = hw.open(tmp_path / "m")
    assert [after.id(i) for i in range(8)] == names
    (root / names[3]).unlink()
    with pytest.raises(RequestError, match=f"lacks 1 of the 8 items .* {names[3]}"):
        hw.open(tmp_path / "m")


def test_a_mixture_can_be_written_by_hand(tmp_path: Path) -> None:
    hw.curate("balanced", "digits", keep=400, out=tmp_path / "m", set=["levels=(4,)"])
    path = tmp_path / "m/manifest.json"
    facts = json.loads(path.read_text())

    def mixed(mixture: dict[str, float]) -> Subset:
        path.write_text(json.dumps(facts | {"mixture": mixture, "draws": 1000}))
        made = hw.open(tmp_path / "m")
        assert isinstance(made, Subset)
        return made

    made = mixed({"0": 3, "2": 1})
    kept = pq.read_table(tmp_path / "m/kept.parquet")
    group = dict(zip(kept["position"].to_pylist(), kept["group"].to_pylist(), strict=True))
    drawn = [group[i] for i in made.indices.tolist()]
    assert (drawn.count(0), drawn.count(2), len(drawn)) == (750, 250, 1000)
    times = np.unique(made.indices[np.array(drawn) == 0], return_counts=True)[1]
    assert times.max() - times.min() <= 1
    for told, mixture in (
        ("sums to nothing", {"0": 0.0, "1": 0.0}),
        ("finite weights", {"0": 1.0, "1": -1.0}),
        ("finite weights", {"0": float("nan")}),
        ("finite weights", {"0": "much"}),
        ("sums to nothing", {}),
        ("group 9, of which no item", {"0": 1.0, "9": 1.0}),
    ):
        with pytest.raises(RequestError, match=told):
            mixed(mixture)
    for draws in ("many", 0, -5, 2.5, None):
        path.write_text(json.dumps(facts | {"mixture": {"0": 1}, "draws": draws}))
        with pytest.raises(RequestError, match=f"a whole number of 1 or more; got {draws!r}"):
            hw.open(tmp_path / "m")
    path.write_text(json.dumps(facts | {"mixture": [1, 2], "draws": 5}))
    with pytest.raises(RequestError, match="needs a weight for each group"):
        hw.open(tmp_path / "m")
    pq.write_table(kept.drop_columns(["group"]), tmp_path / "m/kept.parquet")
    with pytest.raises(RequestError, match="belong to no groups"):
        hw.open(tmp_path / "m")
    assert counts(np.array([0, 1]), {"0": 1, "1": 0}, 5, "x").tolist() == [5, 0]


def test_a_mixture_is_searched_for_data_that_count(capsys: Capture, tmp_path: Path) -> None:
    digits, g = hw.open("digits"), np.random.default_rng(0)
    assert digits.tensors is not None
    x = digits.tensors["image"].numpy()
    noise = g.random((300, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "pool.npz", x=np.concatenate([x[:300], noise]))
    np.savez(tmp_path / "wanted.npz", x=x[1000:1200])
    base = ("curate", "climb", "-d", tmp_path / "pool.npz", "--keep", 200)
    settings = ("--set", "rounds=(6,3)", "--set", "groups=2", "--set", "clusters=8", "--set", "top=50", "--steps", 25)
    said = headwater(capsys, *base, "--target", tmp_path / "wanted.npz", *settings, "-o", tmp_path / "mixed", "--json")
    assert said.code == 0, said.err
    assert len(said.json["losses"]) == 9 and sum(said.json["mixture"].values()) == pytest.approx(1)
    mixed = hw.open(tmp_path / "mixed")
    assert isinstance(mixed, Subset) and len(mixed) == 200
    share = float((mixed.indices < 300).mean())
    assert share > 0.6, share  # half of the pool
    page = (tmp_path / "mixed/report.html").read_text()
    assert "The mixture" in page and "200 draws from 600 of 600 items, mixed as 9 trials suggest" in page
    assert "group 0, such as " in page and ", of the data " in page
    for told, words in (
        ("climb needs a target", base),
        ("balanced makes no trials", ("curate", "balanced", "-d", "digits", "--target", "digits")),
        ("holds image and the target series", (*base, "--target", "waves")),
        ("does not pre-train", (*base, "--target", "digits", "--proxy", "nmc")),
    ):
        said = headwater(capsys, *words, "-o", tmp_path / "x")
        assert said.code == 2 and told in said.err, said.err


def test_a_few_samples_are_made_and_learned_from(capsys: Capture, tmp_path: Path) -> None:
    hw.pretrain("simclr", "digits", out=tmp_path / "run", steps=4, batch_size=32, device="cpu")
    base = ("curate", "krr-st", "-d", "digits", "-e", tmp_path / "run", "--set", "steps=20", "--set", "widths=(16,)")
    said = headwater(capsys, *base, "--keep", 12, "-o", tmp_path / "few", "--json")
    assert said.code == 0, said.err
    assert said.json["kept"] == 12 and 0 < said.json["error"] < 5
    with np.load(tmp_path / "few/distilled.npz", allow_pickle=False) as file:
        x, targets = file["x"], file["targets"]
        mean, std = file["mean"], file["std"]
    assert x.shape == (12, 1, 8, 8) and targets.shape == (12, hw.load(tmp_path / "run").dim) == (12, *mean.shape)
    vectors = hw.embed(tmp_path / "run", "digits")
    np.testing.assert_allclose(mean, vectors.mean(0), atol=0.1 * vectors.std())
    np.testing.assert_allclose(std, vectors.std(0), rtol=0.2, atol=1e-3)
    for form in ("few", "few/distilled.npz"):
        source = hw.open(tmp_path / form)
        assert len(source) == 12
        np.testing.assert_array_equal(source.read(3)["image"], x[3])
        np.testing.assert_array_equal(source.targets, targets)
    assert "samples made from 1,797 items" in (tmp_path / "few/report.html").read_text()
    run = hw.pretrain("mae", tmp_path / "few", out=tmp_path / "mae", steps=2, batch_size=4, device="cpu")
    assert run.outcome.done  # what needs no vectors takes the pictures alone
    words = ("pretrain", "krr-st", "-d", tmp_path / "few", "-o", tmp_path / "learned", "--steps", 40, "--device", "cpu")
    learned = headwater(capsys, *words, "--json")
    assert learned.code == 0, learned.err
    losses = [json.loads(line) for line in (tmp_path / "learned/metrics.jsonl").read_text().splitlines()]
    errors = [line["loss"] for line in losses if "loss" in line]
    assert errors[-1] < errors[0]
    assert hw.embed(tmp_path / "learned", "digits").shape == (1797, hw.load(tmp_path / "learned").dim)
    again = headwater(capsys, *base, "--keep", 12, "-o", tmp_path / "again", "--json")
    assert again.json["error"] == said.json["error"]
    for told, words in (
        ("is above the pool, 1,438 items beside", (*base, "--keep", 1500)),
        ("above the pool, which holds 1,797", (*base, "--keep", 9000)),
        ("krr-st needs a teacher", ("curate", "krr-st", "-d", "digits", "--keep", 5)),
        ("krr-st needs a teacher", base),
        ("a target says nothing", (*base, "--keep", 5, "--target", "digits")),
        ("KRRST learns from samples that come with target vectors", ("pretrain", "krr-st", "-d", "digits")),
        ("KRRST learns from images; this data holds series", ("pretrain", "krr-st", "-d", "waves")),
    ):
        said = headwater(capsys, *words, "-o", tmp_path / "x")
        assert said.code == 2 and told in said.err, said.err


def test_samples_are_made_of_pictures_that_can_be_read(capsys: Capture, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i, path in enumerate(sorted(photos.glob("*/*.png"))[:24]):
        (root / f"{i:02}.png").write_bytes(path.read_bytes() if i % 12 else b"none")
    hw.pretrain("simclr", root, out=tmp_path / "run", steps=1, batch_size=4, device="cpu", set=["size=32"])
    base = ("curate", "krr-st", "-d", root, "-e", tmp_path / "run", "--set", "steps=3", "--set", "widths=(8,)")
    said = headwater(capsys, *base, "--keep", 16, "-o", tmp_path / "few")
    assert said.code == 0 and "unreadable: 00.png" in said.out and "unreadable: 12.png" in said.out, said.err
    assert (
        len(hw.open(tmp_path / "few")) == 16 and "2 more cannot be read" in (tmp_path / "few/report.html").read_text()
    )
    said = headwater(capsys, *base, "--keep", 20, "-o", tmp_path / "all")
    assert said.code == 2 and "above the pool" in said.err and not (tmp_path / "all/manifest.json").exists()


def test_what_to_label_next(capsys: Capture, photos: Path, tmp_path: Path) -> None:
    files = sorted(p.relative_to(photos).as_posix() for p in photos.glob("*/*"))
    rows = [
        f"{f},{'flower' if 'flower' in f else 'roof' if i % 2 else 'outlier'}"
        for i, f in enumerate(files)
        if i % 4 == 0
    ]
    rows += [f"{f},{'roof' if 'china' in f else 'flower'}" for i, f in enumerate(files[:60]) if i % 8 == 1]
    (tmp_path / "some.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    base = ("curate", "active-outliers", "-d", photos, "--labels", tmp_path / "some.csv", "--keep")
    said = headwater(capsys, *base, 12, "-o", tmp_path / "next", "--json")
    assert said.code == 0, said.err
    kept = pq.read_table(tmp_path / "next/kept.parquet")
    assert len(kept) == 12 and not {*kept["id"].to_pylist()} & {row.partition(",")[0] for row in rows}
    assert set(kept["label"].to_pylist()) == {None} and min(kept["score"].to_pylist()) >= 0
    page = (tmp_path / "next/report.html").read_text()
    free = 132 - len({row.partition(",")[0] for row in rows})
    assert f"12 of the {free} items without a label are to be labelled next" in page
    assert "Labels and guesses before and after" in page and "no label" in page
    said = headwater(capsys, *base, 120, "-o", tmp_path / "more")
    assert said.code == 2 and "is above the pool, " in said.err and "without a label" in said.err
    said = headwater(capsys, "curate", "active-outliers", "-d", "waves", "-o", tmp_path / "all", "--keep", 3)
    assert said.code == 2 and "above the pool, 0 without a label" in said.err


def test_bad_requests_are_refused(capsys: Capture, photos: Path, tmp_path: Path) -> None:
    def refused(told: str, *words: object) -> None:
        out = tmp_path / f"x{len([*tmp_path.iterdir()])}"
        said = headwater(capsys, "curate", *words, "-o", out)
        assert said.code == 2 and told in said.err and len(said.err.strip().splitlines()) == 1, said.err
        assert not (out / "manifest.json").exists()

    refused("A budget of 5,000 items is above the pool, which holds 1,797", "balanced", "-d", "digits", "--keep", 5000)
    refused("expected a number of items, or a share", "balanced", "-d", "digits", "--keep", "some")
    refused("expected a whole number of items", "balanced", "-d", "digits", "--keep", "-3")
    refused("keep=0.0001 of 1797 items is none", "balanced", "-d", "digits", "--keep", "0.0001")
    refused("named 'balancd'. Did you mean balanced?", "balancd", "-d", "digits")
    refused("'mae' does not choose data; these do: ", "mae", "-d", "digits")
    refused("named 'nonsense'", "balanced", "-d", "digits", "--set", "nonsense=1")
    refused("whose values are no features; give an --encoder", "balanced", "-d", "motifs")
    bad = np.ones((50, 4), np.float32)
    bad[31, 2] = np.nan
    rows = pa.FixedSizeListArray.from_arrays(pa.array(bad.ravel()), 4)
    (tmp_path / "bad").mkdir()
    names = pa.array([str(i) for i in range(50)])
    pq.write_table(pa.table({"id": names, "path": names, "vector": rows}), tmp_path / "bad/part-00000.parquet")
    refused("hold NaN or infinity, first in row 31", "near-duplicates", "-d", tmp_path / "bad")
    refused("holds embeddings already", "balanced", "-d", tmp_path / "bad", "-e", "hf:x")
    np.save(tmp_path / "bad.npy", bad)
    refused("bad.npy holds NaN or infinity; features are", "balanced", "-d", tmp_path / "bad.npy")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text('{"kind": "headwater manifest"')
    refused("is damaged", "balanced", "-d", tmp_path / "broken")
