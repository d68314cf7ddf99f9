"""Each mistake gets one clear sentence and its exit code, and loses nothing."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headwater as hw
from headwater.api.run import claim_afresh
from headwater.core.errors import RequestError
from headwater.engine import checkpoint
from headwater.engine.artefact import load_encoder, save_encoder
from tests.story.commands import headwater

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "pictures"
    root.mkdir()
    g = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(g.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
    return root


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Path:
    hw.pretrain("mae", pictures, out=tmp_path / "run", steps=4, batch_size=8, device="cpu")
    return tmp_path / "run"


def wrong(said: Any, *words: str, code: int = 2) -> None:
    """One sentence or two on standard error, nothing on standard output, the exit code, and these words."""
    assert said.code == code, said
    assert not said.out.strip()
    assert said.err.startswith("headwater: ") or "Error" in said.err
    for word in words:
        assert word in said.err, said.err


def pretrain(capsys: Capture, data: object, out: Path, *more: object) -> Any:
    return headwater(capsys, "pretrain", "mae", "-d", data, "-o", out, "--steps", 2, "--batch-size", 8, *more)


@pytest.mark.parametrize("words", [("pretrain",), ("pretrain", "mae"), ("list", "--nonsense"), ("prtrain",)])
def test_a_command_that_is_incomplete_or_misspelt(capsys: Capture, words: tuple[str, ...]) -> None:
    said = headwater(capsys, *words)
    assert said.code == 2
    assert "Error" in said.err or "Usage" in said.err
    assert not said.out.strip()


def test_a_missing_folder(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    wrong(pretrain(capsys, tmp_path / "photo", tmp_path / "x"), "photo", "photos")
    assert not (tmp_path / "x").exists()


def test_an_empty_folder(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    wrong(pretrain(capsys, tmp_path / "none", tmp_path / "x"), "none", "empty")


def test_a_folder_without_a_readable_file(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.docx").write_bytes(b"x")
    wrong(pretrain(capsys, tmp_path / "docs", tmp_path / "x"), ".docx")


def test_broken_pictures_among_good_ones_are_named_and_counted(capsys: Capture, pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    for path in pictures.iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    (root / "zero.png").write_bytes(b"")
    (root / "cut.png").write_bytes((pictures / "00.png").read_bytes()[:200])
    said = headwater(
        capsys, "pretrain", "mae", "-d", root, "-o", tmp_path / "x", "--steps", 12, "--batch-size", 8, "--json"
    )
    assert said.code == 0, said.err
    named = dict(json.loads((tmp_path / "x" / "unreadable.json").read_text()))
    assert set(named) == {"zero.png", "cut.png"}
    assert "zero.png" in (tmp_path / "x" / "report.html").read_text()
    rows = "".join(f"{path.name},{'ab'[i % 2]}\n" for i, path in enumerate(sorted(root.iterdir())))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    said = headwater(
        capsys, "evaluate", "-e", tmp_path / "x", "-d", root, "--labels", tmp_path / "labels.csv", "--baselines", "raw",
        "--labels-per-class", 1, "--draws", 2, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["data"]["unreadable"] == 2


def test_too_many_broken_pictures_stop_the_run(capsys: Capture, pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "mostly"
    root.mkdir()
    for i, path in enumerate(sorted(pictures.iterdir())):
        (root / path.name).write_bytes(path.read_bytes() if i % 2 else b"")
    wrong(pretrain(capsys, root, tmp_path / "x", "--steps", 30), "do not decode", "00.png", code=1)


def test_mixed_sizes_train_and_mixed_channels_are_settled(capsys: Capture, tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    g = np.random.default_rng(0)
    for i in range(12):
        shape = (40 + i, 60 - i) if i % 2 else (40 + i, 60 - i, 3)
        Image.fromarray(g.integers(0, 255, shape, dtype=np.uint8)).save(root / f"{i}.png")
    said = headwater(
        capsys, "pretrain", "mae", "-d", root, "-o", tmp_path / "x", "--steps", 1, "--batch-size", 4,
        "--encoder", "vit-micro/32", "--set", "method.decoder.depth=1", "--set", "method.decoder.dim=32",
        "--set", "method.decoder.heads=4", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert hw.embed(tmp_path / "x", root).shape == (12, 96)


def test_missing_cells_of_a_table_are_kept_as_missing(capsys: Capture, tmp_path: Path) -> None:
    rows = ["a,b,c"] + [f"{i},{'' if i % 5 == 0 else i * 2},{i % 3}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    said = headwater(capsys, "doctor", "-d", tmp_path / "t.csv")
    assert said.code == 0 and "missing" in said.out
    assert pretrain(capsys, tmp_path / "t.csv", tmp_path / "x").code == 0
    assert np.isfinite(hw.embed(tmp_path / "x", tmp_path / "t.csv")).all()


def test_a_label_column_that_does_not_exist(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,target\n" + "\n".join(f"{i},{i % 2}" for i in range(9)))
    wrong(headwater(capsys, "doctor", "-d", tmp_path / "t.csv", "--labels", "tagret"), "tagret", "target")


def test_a_patch_that_does_not_divide(capsys: Capture, pictures: Path, tmp_path: Path) -> None:
    wrong(pretrain(capsys, pictures, tmp_path / "x", "--encoder", "vit-micro/5"), "16", "5", "divide", "patch of 4")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--set", "method.mask.ration=0.5"), ("ration", "Did you mean ratio?")),
        (("--set", "method.mask.ratio=2"), ("between 0 and 1",)),
        (("--encoder", "vit-tinny"), ("vit-tinny", "Did you mean vit-tiny?")),
        (("--encoder", "resnet-18"), ("MAE", "vit-tiny")),
        (("--precision", "fp8"), ("fp8", "bfloat16")),
        (("--device", "cuda"), ("--device cpu",)),
        (("--steps", "0"), ("steps", "at least 1")),
    ],
)
def test_unknown_fields_and_values(
    capsys: Capture, pictures: Path, tmp_path: Path, more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    wrong(pretrain(capsys, pictures, tmp_path / "x", *more), *words)


def test_an_unknown_method(capsys: Capture, pictures: Path, tmp_path: Path) -> None:
    said = headwater(capsys, "pretrain", "simclrr", "-d", pictures, "-o", tmp_path / "x")
    wrong(said, "simclrr", "Did you mean simclr?")
    wrong(headwater(capsys, "pretrain", "knn", "-d", pictures, "-o", tmp_path / "x"), "knn", "does not pre-train")


def test_an_output_folder_that_holds_another_run(capsys: Capture, pictures: Path, run: Path) -> None:
    before = (run / "run.json").read_text()
    wrong(pretrain(capsys, pictures, run), "another run", "--resume")
    wrong(pretrain(capsys, pictures, run, "--resume", "--steps", 4, "--seed", 5), "fit.seed=0 and not fit.seed=5")
    assert (run / "run.json").read_text() == before
    occupied = run.parent / "mine"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("dear")
    wrong(pretrain(capsys, pictures, occupied), "not a run folder")
    assert (occupied / "thesis.txt").read_text() == "dear"


def test_an_encoder_with_a_flipped_byte(capsys: Capture, pictures: Path, run: Path) -> None:
    path = run / "encoder" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(bytes(data))
    said = headwater(capsys, "embed", "-e", run, "-d", pictures, "-o", run / "v.parquet")
    wrong(said, "weights.safetensors", "damaged")


def test_a_checkpoint_with_a_flipped_byte_is_passed_over_and_told(
    capsys: Capture, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    more = ("--set", "fit.log_every=1", "--set", "fit.save_every=1", "--set", "fit.keep_last=9")
    assert pretrain(capsys, pictures, out, *more).code == 0
    reference = checkpoint.load(out / "checkpoints", 2).method
    newest = checkpoint.folder(out / "checkpoints", 2) / "optimiser.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x00")
    said = pretrain(capsys, pictures, out, *more, "--resume")
    assert said.code == 0, said.err
    assert "damaged" in (out / "metrics.jsonl").read_text()
    again = checkpoint.load(out / "checkpoints", 2).method
    assert all(bool((again[k] == v).all()) for k, v in reference.items())


def test_a_full_disk(capsys: Capture, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    wrong(pretrain(capsys, pictures, tmp_path / "x"), "the disk is full", "untouched", code=1)


def test_a_loss_that_is_not_finite(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i},{i % 7}" for i in range(64)))
    said = pretrain(
        capsys, tmp_path / "t.csv", tmp_path / "x", "--steps", 40, "--set", "fit.optimiser.rate=1e30",
        "--set", "fit.optimiser.warmup=0.01", "--set", "fit.clip=1e30", "--set", "fit.log_every=1",
    )  # fmt: skip
    wrong(said, "not finite at step", "--set fit.optimiser.rate", code=1)


def test_labels_that_are_missing_or_too_few(capsys: Capture, pictures: Path, run: Path, tmp_path: Path) -> None:
    wrong(headwater(capsys, "evaluate", "-e", run, "-d", pictures), "no labels", "--labels")
    rows = "file,label\n" + "\n".join(f"{i:02}.png,{'cat' if i < 36 else 'dog'}" for i in range(40))
    (tmp_path / "labels.csv").write_text(rows)
    said = headwater(capsys, "evaluate", "-e", run, "-d", pictures, "--labels", tmp_path / "labels.csv", "--draws", 2)
    wrong(said, "5 labels per class were asked for", "--labels-per-class")


def test_an_encoder_whose_features_are_not_finite(capsys: Capture, pictures: Path, run: Path, tmp_path: Path) -> None:
    encoder, card = load_encoder(run / "encoder")
    for weight in encoder.parameters():
        weight.data.fill_(float("nan"))
    save_encoder(tmp_path / "nan", encoder, card)
    rows = "".join(f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    said = ("-e", tmp_path / "nan", "-d", pictures, "--labels", tmp_path / "labels.csv")
    for words in (
        ("evaluate", *said, "--baselines", "raw", "--labels-per-class", 1, "--draws", 1),
        ("continual", "nmc", *said, "--sessions", 2, "-o", tmp_path / "c"),
        ("embed", *said[:4], "-o", tmp_path / "v.parquet"),
    ):
        wrong(headwater(capsys, *words), "not finite for", "NaN", code=1)


def test_an_encoder_that_is_not_there(capsys: Capture, pictures: Path, tmp_path: Path) -> None:
    wrong(headwater(capsys, "embed", "-e", tmp_path / "no", "-d", pictures, "-o", tmp_path / "v"), "no encoder", "no")


def test_an_encoder_of_another_modality_or_channel_count(capsys: Capture, run: Path, tmp_path: Path) -> None:
    wrong(headwater(capsys, "embed", "-e", run, "-d", "wine", "-o", tmp_path / "v"), "image", "table")
    np.save(tmp_path / "bands.npy", np.zeros((8, 4, 16, 16), np.uint8))
    wrong(headwater(capsys, "embed", "-e", run, "-d", tmp_path / "bands.npy", "-o", tmp_path / "w"), "3 channels", "4")


def test_an_adapter_that_finds_nothing_to_adapt(capsys: Capture, tmp_path: Path) -> None:
    hw.pretrain("simclr", "digits", out=tmp_path / "c", steps=2, device="cpu")
    said = headwater(capsys, "adapt", "lora", "-e", tmp_path / "c", "-d", "digits", "-o", tmp_path / "l")
    wrong(said, "LoRA found no linear map")
    assert not (tmp_path / "l").exists()


def test_an_adapter_needs_two_classes(capsys: Capture, pictures: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("file,label\n" + "".join(f"{i:02}.png,cat\n" for i in range(40)))
    said = ("adapt", "lora", "-e", run, "-d", pictures, "--labels", tmp_path / "one.csv", "-o", tmp_path / "l")
    wrong(headwater(capsys, *said), "one class, cat")
    assert not (tmp_path / "l").exists()


def test_a_folder_of_another_encoder_names_both_in_short(tmp_path: Path) -> None:
    claim_afresh(tmp_path / "x", {"base": "a" * 64}, end="end.json")
    with pytest.raises(RequestError, match=r"stopped and has another base, a{12}\.\.\. and not b{12}\.\.\.;"):
        claim_afresh(tmp_path / "x", {"base": "b" * 64}, end="end.json")


def test_a_budget_of_labels_that_is_no_number(capsys: Capture, run: Path) -> None:
    wrong(headwater(capsys, "evaluate", "-e", run, "-d", "digits", "--labels-per-class", "1,many"), "many")


def test_embeddings_of_something_else_are_not_mixed(capsys: Capture, pictures: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.parquet"
    assert headwater(capsys, "embed", "-e", run, "-d", pictures, "-o", out, "--json").code == 0
    said = headwater(capsys, "embed", "-e", run, "-d", pictures, "-o", out, "--dtype", "float16")
    wrong(said, "other embeddings", "dtype")
