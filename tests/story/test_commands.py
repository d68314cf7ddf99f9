"""Each command, run as a user would on real files, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import headwater as hw
from headwater.api import adapt as adapting
from headwater.api import catalogue
from headwater.api.usage import usage
from tests.story.commands import headwater


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 real digits as PNG files, 16 x 16, in a folder per class."""
    root = tmp_path_factory.mktemp("data") / "digits"
    pictures, labels = load_digits(return_X_y=True)
    for i in range(160):
        at = root / f"digit-{labels[i]}" / f"{i:03}.png"
        at.parent.mkdir(parents=True, exist_ok=True)
        pixels = (pictures[i].reshape(8, 8) * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR).save(at)
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mae"
    hw.pretrain("mae", folder, out=out, steps=20, batch_size=32, device="cpu")
    return out


def test_doctor_describes_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = headwater(capsys, "doctor", "--data", folder)
    assert said.code == 0 and "160" in said.out and "16" in said.out
    assert headwater(capsys, "doctor", "--data", folder, "--json").json


def test_pretrain_leaves_the_whole_truth_of_the_run(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["method"] == "mae" and record["outcome"]["done"] and record["fingerprint"]
    assert any(line.startswith("fit.steps=20") for line in record["recipe"])
    assert {"torch", "headwater", "python"} <= record["versions"].keys()
    for name in ("metrics.jsonl", "health.json", "report.html", "views.png", "encoder/weights.safetensors"):
        assert (run / name).stat().st_size > 0, name
    assert "http://" not in (run / "report.html").read_text().replace("http://www.w3.org", "")


def test_a_run_can_be_moved_and_loads_to_the_same_bits(run: Path, folder: Path, tmp_path: Path) -> None:
    x = next(iter(hw.open(folder).read(i)["image"] for i in range(1)))[None]
    before = hw.load(run)(x).pooled
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in sorted((run / "encoder").iterdir()):
        (moved / path.name).write_bytes(path.read_bytes())
    assert torch.equal(before, hw.load(moved)(x).pooled)


def test_embed_writes_parquet_and_goes_on(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vectors.parquet"
    said = headwater(capsys, "embed", "-e", run, "-d", folder, "-o", out, "--json", "--dtype", "float16")
    assert said.code == 0 and said.json["items"] == 160
    table = pq.read_table(out / "part-00000.parquet")
    assert table.column_names == ["id", "path", "label", "vector"] and len(table) == 160
    assert table.column("label")[0].as_py().startswith("digit-") and Path(table.column("path")[0].as_py()).is_file()
    direct = hw.embed(run, folder)
    written = np.stack(table.column("vector").to_pylist())
    np.testing.assert_allclose(written, direct, rtol=2e-3, atol=1e-3)
    first = (out / "part-00000.parquet").stat().st_mtime_ns
    assert headwater(capsys, "embed", "-e", run, "-d", folder, "-o", out, "--dtype", "float16").code == 0
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first


def test_evaluate_measures_all_rivals_and_gives_a_verdict(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = headwater(capsys, "evaluate", "-e", run, "-d", folder, "--labels-per-class", "1,all", "--draws", 2, "--json")
    assert said.code == 0, said.err
    rows = said.json["rows"]
    kinds = {r["features"] for r in rows}
    assert {"raw pixels", "untrained encoder", "trained from scratch", "pre-trained encoder"} < kinds
    assert all(r["low"] <= r["mean"] <= r["high"] for r in rows)
    assert said.json["verdict"]["words"] and said.json["data"]["duplicates_across"] == 0
    assert (run / "evaluation.json").is_file()
    assert "untrained encoder" in (run / "report.html").read_text()  # drawn anew
    assert headwater(capsys, "report", run).code == 0


def test_adapt_trains_few_weights_and_leaves_an_encoder(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, broken = tmp_path / "lora", folder / "digit-0" / "broken.png"
    broken.write_bytes(b"")
    said = headwater(capsys, "adapt", "lora", "-e", run, "-d", folder, "-o", out, "--steps", 5, "--json")
    broken.unlink()
    assert said.code == 0, said.err
    frozen, lora, full = said.json["rows"]
    assert lora["trained_parameters"] < full["trained_parameters"] / 2
    size = (out / "adapter" / "weights.safetensors").stat().st_size
    assert size < (out / "encoder" / "weights.safetensors").stat().st_size / 2 and size == said.json["adapter_bytes"]
    assert hw.load(out).dim == hw.load(run).dim and 0 <= frozen["accuracy"] <= 1
    assert 0 < frozen["memory_bytes"] < lora["memory_bytes"] < full["memory_bytes"]
    told = hw.predict(out, folder)
    assert told.classes == tuple(hw.open(folder).classes) and len(told.ids) == len(hw.open(folder))


def test_an_adaptation_that_was_killed_begins_anew_and_a_finished_one_is_kept(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("adapt", "svfit", "-e", run, "-d", folder, "--steps", 2, "--batch-size", 16, "-o")
    assert headwater(capsys, *words, tmp_path / "whole").code == 0
    out, save = tmp_path / "killed", adapting._save

    def killed(at: Path, *more: Any) -> int:
        save(at, *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(adapting, "_save", killed)
    assert headwater(capsys, *words, out).code != 0
    monkeypatch.undo()
    said = headwater(capsys, *words, out, "--seed", 1)
    assert said.code == 2 and "was stopped and has" in said.err and "--resume" not in said.err
    assert headwater(capsys, *words, out).code == 0
    weights = [(at / "adapter" / "weights.safetensors").read_bytes() for at in (out, tmp_path / "whole")]
    assert weights[0] == weights[1]
    said = headwater(capsys, *words, out)
    assert said.code == 2 and "is finished" in said.err and "--resume" not in said.err


def test_few_random_directions_fit_into_a_few_kilobytes(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "few"
    said = headwater(
        capsys, "adapt", "intrinsic-dim", "-e", run, "-d", folder, "-o", out, "--steps", 2, "--batch-size", 16,
        "--set", "adapter.dimensions=400", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["rows"][1]["trained_parameters"] == 400
    assert (out / "adapter" / "weights.safetensors").stat().st_size < 2000
    said = headwater(
        capsys,
        "adapt",
        "intrinsic-dim",
        "-e",
        run,
        "-d",
        folder,
        "-o",
        tmp_path / "no",
        "--set",
        "adapter.dimensions=9",
    )
    assert said.code == 2 and "leaves no room" in said.err and not (tmp_path / "no").exists()


def test_a_smaller_encoder_is_one_as_any_other(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    said = headwater(
        capsys, "adapt", "pela", "-e", run, "-d", folder, "-o", out, "--steps", 2, "--batch-size", 16, "--json"
    )
    assert said.code == 0, said.err
    sizes = said.json["encoder_parameters"]
    assert sizes["after"] < 0.7 * sizes["before"]
    assert hw.embed(out, folder).shape == (len(hw.open(folder)), hw.load(run).dim)
    assert len(hw.predict(out, folder).ids) == len(hw.open(folder))


def test_masks_are_kept_in_bits_and_predict(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks"
    said = headwater(
        capsys, "adapt", "r-amt", "-e", run, "-d", folder, "-o", out, "--steps", 2, "--batch-size", 16, "--json"
    )
    assert said.code == 0, said.err
    trained = said.json["rows"][1]["trained_parameters"]
    assert (out / "adapter" / "weights.safetensors").stat().st_size < trained / 8 + 15_000
    told = hw.predict(out, folder)
    assert len(told.classes) == len(hw.open(folder).classes)


def test_a_killed_run_resumes_to_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    said = headwater(capsys, "verify-resume", "simclr", "--steps", 12, "--kills", 1, "--json")
    assert said.code == 0 and said.json["same"] and said.json["tensors"] > 20


def test_list_and_show_cover_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    found = headwater(capsys, "list", "--json").json
    assert {"mae", "simclr", "dino", "lora", "teen"} <= {m["name"] for m in found}
    for method in found:
        shown = headwater(capsys, "show", method["name"])
        assert shown.code == 0 and "arXiv" in shown.out and "\nuse " in shown.out
    assert "method.mask.ratio=0.75" in headwater(capsys, "show", "MAE").out


def test_what_show_says_to_type_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for name in catalogue.names():
        for line in usage(name):
            if line.startswith("hw."):
                folder, kind = line.removeprefix("hw.").removesuffix("()").split(".")
                assert getattr(getattr(hw, folder), kind)().__module__.endswith(f".{catalogue.short(name)}")
                continue
            said = headwater(capsys, *line.removeprefix("headwater ").split())
            assert said.code == 2 and ("RUN" in said.err or "DATA" in said.err), said  # no such run, nothing else wrong
    assert usage("bob") == ["headwater compare RUN RUN --data DATA --out OUT"]
    assert "hw.assess.NaiveBayes()" in usage("dis-vs-gen")


def test_tables_and_series_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, method in (("wine", "mae"), ("waves", "simclr")):
        out = tmp_path / data
        said = headwater(capsys, "pretrain", method, "-d", data, "-o", out, "--steps", 4, "--json")
        assert said.code == 0, said.err
        assert hw.embed(out, data).shape[0] == len(hw.open(data))


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        "demo",
        "doctor",
        "pretrain",
        "embed",
        "evaluate",
        "adapt",
        "list",
        "show",
        "report",
        "verify-resume",
    ):
        said = headwater(capsys, command, "--help")
        assert said.code == 0 and len(said.out) > 200, command
