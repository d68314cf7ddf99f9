"""What a run predicts: forecasts in the units of the data, beside truth and season; classes; and what cannot be, refused."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import headwater as hw
from headwater.api import catalogue, learned
from headwater.api.forecasts import Forecasts, filled, period, repeat
from headwater.api.predict import Classes
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.parts.architectures import from_json, to_json
from tests.story.commands import headwater

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of TTM on waves of two channels: it sees 96 steps and forecasts 24."""
    out = tmp_path_factory.mktemp("runs") / "ttm"
    waves = hw.open("waves").tensors
    assert waves is not None
    hw.pretrain("ttm", waves["series"][..., :120], out=out, steps=20, batch_size=32, device="cpu")
    return out


def table(at: Path, length: int = 300, future: int = 0, day: bool = True) -> Path:
    """A seasonal channel and, with `day`, one that is given beforehand; the last `future` rows lack the first."""
    t = np.arange(length)
    demand = 50 + 10 * np.sin(2 * np.pi * t / 12)
    told = ["" if i >= length - future else f"{v:.4f}" for i, v in zip(t, demand, strict=True)]
    rows = [f"{i},{v},{i % 7}" if day else f"{i},{v}" for i, v in zip(t, told, strict=True)]
    at.write_text(("time,demand,day\n" if day else "time,demand\n") + "\n".join(rows))
    return at


def test_the_method_comes_back_whole_and_nothing_else_does(run: Path, tmp_path: Path) -> None:
    found = learned.load(run)
    assert found.name == "ttm" and not found.method.training and found.provenance["steps"] == 20
    x = torch.randn(3, 2, 96)
    said = found.method.predict(Batch({"series": x}), Step(Rng(0)))
    np.testing.assert_array_equal(hw.predict(run, x.numpy()).values, said.detach().double().numpy())
    weights = run / "method" / "weights.safetensors"
    copy = tmp_path / "method"
    copy.mkdir()
    for path in (run / "method").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    (copy / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(RequestError, match=r"weights\.safetensors is damaged"):
        learned.load(copy)


ABLE = [n for n in catalogue.methods() if hasattr(catalogue.method_class(catalogue.load(n)), "predicts")]


@pytest.mark.parametrize("name", ABLE)
def test_the_settings_of_all_that_predict_survive_as_json(name: str) -> None:
    module = catalogue.load(name)
    for config in (module.Config(), module.SMALL, module.TINY):
        text = json.loads(json.dumps(to_json(config)))
        assert from_json(text, learned.kinds(module)) == config


def test_forecasts_are_of_what_follows_in_the_units_of_the_data(run: Path, tmp_path: Path) -> None:
    made = hw.predict(run, table(tmp_path / "demand.csv"), out=tmp_path / "f.parquet", back=24)
    assert isinstance(made, Forecasts) and made.channels == ("demand", "day") and made.ids == ("demand.csv",)
    assert made.values.shape == (1, 2, 24) and made.past.shape == (1, 2, 96)
    t = np.arange(300)
    np.testing.assert_allclose(made.truth[0, 0], 50 + 10 * np.sin(2 * np.pi * t[276:] / 12), atol=1e-3)
    np.testing.assert_allclose(made.past[0, 0], 50 + 10 * np.sin(2 * np.pi * t[180:276] / 12), atol=1e-3)
    assert made.seasons.tolist() == [[12, 7]]
    np.testing.assert_allclose(made.seasonal, made.truth, atol=1e-3)
    errors = made.errors()
    assert errors is not None and errors["seasonal_naive"] < 1e-3 < errors["forecast"] < 2
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert len(rows) == 48 and rows[0]["step"] == 1 and rows[47] == {
        "id": "demand.csv", "step": 24, "channel": "day", "value": made.values[0, 1, 23], "truth": made.truth[0, 1, 23],
        "seasonal_naive": made.seasonal[0, 1, 23],
    }  # fmt: skip
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.size[0] > 500


def test_the_future_has_no_truth_and_fewer_steps_may_be_asked(run: Path, tmp_path: Path) -> None:
    made = hw.predict(run, table(tmp_path / "demand.csv", future=10, day=False), out=tmp_path / "f.csv", steps=5)
    whole = hw.predict(run, table(tmp_path / "again.csv", 290, day=False))
    assert isinstance(made, Forecasts) and isinstance(whole, Forecasts)
    assert np.isnan(made.truth).all()
    np.testing.assert_array_equal(made.past, whole.past)
    np.testing.assert_array_equal(made.values, whole.values[..., :5])
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert len(lines) == 6 and lines[1].split(",")[4] == ""
    assert whole.errors() is None


@pytest.fixture(scope="module")
def tuned(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, gone on with heads alone, and with the second channel known beforehand."""
    folder = tmp_path_factory.mktemp("tuned")
    data = hw.open(table(folder / "demand.csv", 400), modality="series", reading={"window": 120, "stride": 8})
    changes = ["method.frozen=true", "method.known=(1,)"]
    hw.pretrain("ttm", data, out=folder / "run", go_on=run, steps=10, batch_size=16, set=changes, device="cpu")
    return folder / "run"


def test_a_run_goes_on_with_its_heads(run: Path, tuned: Path) -> None:
    before, after = learned.load(run).method, learned.load(tuned).method
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(new[k], v) for k, v in old.items() if k.startswith("encoder.") and "normalise" not in k)
    assert not torch.equal(new["encoder.normalise.mean"], old["encoder.normalise.mean"])
    moved = (new["forecaster.head.linear.weight"] - old["forecaster.head.linear.weight"]).abs().max()
    assert 0 < moved < 0.1
    assert json.loads((tuned / "run.json").read_text())["go_on"] == learned.load(run).digest


def test_known_channels_need_their_future(tuned: Path, tmp_path: Path) -> None:
    made = hw.predict(tuned, table(tmp_path / "demand.csv", future=24))
    assert isinstance(made, Forecasts) and made.channels == ("demand",) and not np.isnan(made.values).any()
    with pytest.raises(RequestError, match="14 of the 24 steps to forecast lack its value"):
        hw.predict(tuned, table(tmp_path / "demand.csv", future=10))


def test_classes_are_told_by_name(tmp_path: Path) -> None:
    hw.pretrain("classify", "digits", out=tmp_path / "run", steps=60, batch_size=64, device="cpu")
    made = hw.predict(tmp_path / "run", "digits", out=tmp_path / "classes.parquet")
    assert isinstance(made, Classes) and made.values.shape == (1797, 10)
    np.testing.assert_allclose(made.values.sum(1), 1, rtol=1e-5)
    found = pq.read_table(tmp_path / "classes.parquet").to_pydict()
    digits = hw.open("digits")
    assert digits.labels is not None
    right = np.mean([digits.classes[k] == said for k, said in zip(digits.labels, found["class"], strict=True)])
    assert right > 0.6 and found["p(3)"][0] == made.values[0, 3]


def test_a_season_is_found_where_there_is_one() -> None:
    draw, t = np.random.default_rng(0), np.arange(96)
    wave = np.sin(2 * np.pi * t / 12)
    assert period(wave) == 12 and period(wave + 0.05 * t) == 12 and period(wave + draw.normal(0, 0.4, 96)) == 12
    assert period(draw.normal(size=96)) == 1 and period(np.zeros(96)) == 1 and period(np.full(96, np.nan)) == 1
    holed = np.where(draw.random(96) < 0.1, np.nan, wave)
    assert period(holed) == 12
    assert repeat(np.array([1.0, 2, 3, 4]), 3, 5).tolist() == [2, 3, 4, 2, 3]
    assert filled(np.array([np.nan, 1, np.nan, 3])).tolist() == [1, 1, 2, 3]


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tsmixer"
    hw.pretrain("tsmixer", "waves", out=out, steps=2, batch_size=8, device="cpu")
    return out


def test_what_cannot_be_predicted_is_refused_in_a_sentence(
    run: Path, filling: Path, tmp_path: Path, capsys: Capture
) -> None:
    def refused(*words: object) -> str:
        said = headwater(capsys, "predict", *words)
        assert said.code == 2 and len(said.err.splitlines()) == 1, said.err
        return said.err

    out = ("--out", tmp_path / "f.csv")
    hw.pretrain("mae", "waves", out=tmp_path / "mae", steps=2, batch_size=8, device="cpu")
    assert "mae predicts nothing" in refused("-e", tmp_path / "mae", "-d", "waves", *out)
    assert "learned to fill in" in refused("-e", filling, "-d", "waves", *out)
    assert "no run.json" in refused("-e", tmp_path, "-d", "waves", *out)
    assert "expected .parquet or .csv" in refused("-e", run, "-d", "waves", "-o", tmp_path / "f.xlsx")
    assert "there is no folder" in refused("-e", run, "-d", "waves", "-o", tmp_path / "a" / "f.csv")
    assert "made from 96 steps; the series has 80" in refused("-e", run, "-d", table(tmp_path / "d.csv", 80), *out)
    assert "100 known ones, 10 of them held back" in refused(
        "-e", run, "-d", table(tmp_path / "d.csv", 100), "--back", 10, *out
    )
    assert "forecasts 24 steps; 30 are asked" in refused("-e", run, "-d", "waves", "--steps", 30, *out)
    assert "trained on series; digits holds image" in refused("-e", run, "-d", "digits", *out)
    with pytest.raises(RequestError, match="a run of ttm, and tsmixer cannot go on"):
        hw.pretrain("tsmixer", "waves", out=tmp_path / "x", go_on=run)
    with pytest.raises(RequestError, match="one too many"):
        hw.pretrain("ttm", "waves", out=tmp_path / "x", go_on=run, encoder="ttm-micro")
    with pytest.raises(RequestError, match="keeps its sizes"):
        hw.pretrain("ttm", "waves", out=tmp_path / "x", go_on=run, set=["method.horizon=12"], steps=1)


def test_the_command_says_what_it_did(run: Path, tmp_path: Path, capsys: Capture) -> None:
    said = headwater(
        capsys, "predict", "-e", run, "-d", table(tmp_path / "d.csv"), "-o", tmp_path / "f.csv", "--back", 24
    )
    assert said.code == 0 and "1 series, 2 channels, 24 steps" in said.out and "is nearer" in said.out
    words = ("predict", "-e", run, "-d", "waves", "-o", tmp_path / "w.csv", "--steps", 3, "--json")
    found = headwater(capsys, *words).json
    assert found["series"] == 1200 and found["errors"] is None and found["steps"] == 3
