"""`headwater compare`: one page and one JSON, whatever becomes of one encoder."""

import json
from pathlib import Path

import pytest

import headwater as hw
from tests.story.commands import headwater


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("runs")
    for name in ("mae", "simclr"):
        hw.pretrain(name, "digits", out=at / name, steps=10, batch_size=64, device="cpu")
    hw.pretrain("mae", "wine", out=at / "wine", steps=2, batch_size=32, device="cpu")
    return at


def test_a_page_and_a_json(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(runs / n) for n in ("mae", "simclr", "wine", "gone")]
    out = tmp_path / "c"
    words = ("-d", "digits", "-o", out, "--tasks", "linear,knn,calibration", "--draws", 1, "--steps", 2)
    said = headwater(capsys, "compare", *names, *words, "--json")
    assert said.code == 0, said.err
    assert said.json == json.loads((out / "compare.json").read_text())
    by = {e["name"]: e for e in said.json["encoders"]}
    assert {by[names[0]]["rank"], by[names[1]]["rank"]} == {1, 2} and by[names[2]]["rank"] == 0
    assert "no such folder" in by[names[3]]["why"]
    scores = {(r["encoder"], r["task"]): r for r in said.json["rows"]}
    assert scores[names[0], "linear"]["score"] > 0.8 and scores[names[0], "linear"]["z"] is not None
    assert "reads table" in scores[names[2], "linear"]["why"]
    page = (out / "compare.html").read_text()
    assert "<svg" in page and "reads table" in page and "What failed" in page
    assert "http" not in page.replace("http://www.w3.org", "") and "<script src" not in page and "<link" not in page
    again = headwater(capsys, "compare", *names, *words)
    assert again.code == 2 and "is not empty" in again.err
    shown = headwater(capsys, "compare", *names[:2], *words[:3], tmp_path / "d", *words[4:])
    assert shown.code == 0 and "linear" in shown.out and "compare.html" in shown.out


def test_twins_and_two_data_sets(runs: Path) -> None:
    encoder = hw.load(runs / "simclr")
    made = hw.compare(
        [encoder, encoder, runs / "mae"], ["digits", hw.open("digits")], tasks=["knn", "few-shot"], draws=1
    )
    first, second, _ = made["encoders"]
    assert first["rank"] == second["rank"] and second["name"] == f"{first['name']} (2)"
    assert [d["name"] for d in made["data"]] == ["digits", "digits (2)"] and len(made["rows"]) == 12
    assert made["tasks"][0]["family"] == "classification" and len(made["agreement"]) == 4


def test_mistakes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object, told: str, code: int = 2) -> None:
        said = headwater(capsys, "compare", *words, "-o", tmp_path / "x")
        assert said.code == code and told in said.err and not (tmp_path / "x" / "compare.json").exists(), said

    refused(runs / "mae", "-d", "digits", "--tasks", "linaer", told="Did you mean linear")
    refused(runs / "mae", "-d", "diabetes", told="numbers for labels")
    refused(
        runs / "mae",
        "-d",
        "digits",
        "-d",
        "wine",
        "--labels",
        "a",
        "--labels",
        "b",
        "--labels",
        "c",
        told="3 times for 2",
    )
    refused(runs / "gone", "-d", "digits", told="no such folder")
    refused(runs / "wine", "-d", "digits", "--tasks", "knn", told="No encoder could do any of the tasks", code=1)
