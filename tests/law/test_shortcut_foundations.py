"""Cues predict as they are told to, availability takes nothing away, and the bias is what its formula says."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import headwater as hw
from headwater.api.bench import Bench
from headwater.api.study import discs, linear
from headwater.core.errors import RequestError
from headwater.methods.study.shortcut_foundations import Cues, Shortcuts, grid, reliance, shortcut_bias
from tests.story.commands import headwater


def test_cues_predict_as_often_as_they_should() -> None:
    cues = Cues(predictivity=(0.7, 0.9))
    z, y = cues.draw(40_000, 0)
    for i, p in enumerate(cues.predictivity):
        found = np.mean(np.sign(z[:, i]) == y)
        assert abs(found - p) < 3 * np.sqrt(p * (1 - p) / len(y))
        assert norm.cdf(cues.means[i]) == pytest.approx(p)
    np.testing.assert_allclose(np.cov((z - y[:, None] * cues.means).T), np.eye(2), atol=0.02)


def test_equal_predictivity_leaves_the_best_decision_without_a_side() -> None:
    z = grid()
    s, c = reliance(Cues(predictivity=(0.85, 0.85)).best(z), z)
    assert s == pytest.approx(c, abs=1 / 64)  # the sign of rounding decides on the diagonal
    assert shortcut_bias(Cues().best(z), z, Cues().best(z)) == 0
    s, c = reliance(Cues(predictivity=(0.6, 0.9)).best(z), z)
    assert c > s


def test_a_decision_by_one_cue_relies_on_it_alone() -> None:
    z = grid()
    np.testing.assert_allclose(reliance(np.sign(z[:, 0]), z), [1, 0], atol=1e-12)
    np.testing.assert_allclose(reliance(-np.sign(z[:, 1]), z), [0, -1], atol=1e-12)
    assert np.abs(z).max() < 3 and len(z) == 64**2 and (z != 0).all()


def test_the_bayes_decision_errs_least() -> None:
    cues = Cues()
    z, y = cues.draw(100_000, 0)
    best = np.mean(cues.best(z) == y)
    assert best == pytest.approx(norm.cdf(np.linalg.norm(cues.means)), abs=0.004)
    for turn in (-0.3, 0.3):
        way = np.array([np.cos(turn), np.sin(turn)])
        turned = np.array([cues.means @ [way[0], -way[1]], cues.means @ [way[1], way[0]]])
        assert np.mean(np.where(z @ turned >= 0, 1, -1) == y) < best


def test_swapping_the_roles_turns_the_sign() -> None:
    z, rng = grid(), np.random.default_rng(0)
    decided = np.where(z @ [2.0, 1.0] + rng.normal(size=len(z)) >= 0, 1, -1)
    there, back = Cues(predictivity=(0.7, 0.9)), Cues(predictivity=(0.9, 0.7))
    ours = shortcut_bias(decided, z, there.best(z))
    assert shortcut_bias(decided, z[:, ::-1], back.best(z[:, ::-1])) == pytest.approx(-ours) and ours > 0


@pytest.mark.parametrize("nesting", [(0, 0), (0, 3)])
def test_both_cues_stay_recoverable(nesting: tuple[int, int]) -> None:
    cues = Cues(nesting=nesting, amplitude=(5.0, 1.0))
    z, _ = cues.draw(3000, 0)
    x = np.column_stack([cues.embed(z), np.ones(len(z))]).astype(np.float64)
    for i in range(2):
        w, *_ = np.linalg.lstsq(x[:2000], z[:2000, i], rcond=None)
        left = np.var(z[2000:, i] - x[2000:] @ w) / np.var(z[2000:, i])
        assert left < (1e-6 if nesting == (0, 0) else 0.2), (i, left)


def test_the_embedding_is_the_same_for_any_amplitude() -> None:
    z, _ = Cues().draw(50, 0)
    a, b = Cues(amplitude=(1.0, 1.0)).embed(z), Cues(amplitude=(3.0, 1.0)).embed(z)
    only = z * [1, 0]
    np.testing.assert_allclose(b - a, 2 * Cues().embed(only), atol=1e-5)
    assert not np.allclose(Cues(seed=1).embed(z), Cues(seed=0).embed(z))
    one = Cues().embed(np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)


def test_logistic_regression_decides_alike_at_every_ratio() -> None:
    made = Shortcuts(ratios=(1.0, 8.0, 64.0), seeds=(0, 1)).run(Bench(), {"linear": linear})
    first, *others = (row["by_seed"] for row in made.rows)
    for other in others:
        np.testing.assert_allclose(other, first, atol=0.02)
    assert abs(made.extra["rise"]["linear"]) < 0.02


def test_pictures_show_both_cues_and_size_is_availability() -> None:
    z = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]])
    for ratio in (1.0, 13.0):
        x = discs(z, ratio, Cues())
        left, right = x[..., :16].mean((1, 2, 3)), x[..., 16:].mean((1, 2, 3))
        assert left[0] > left[1] + 0.001 and right[2] > right[0] + 0.001
    small, large = (np.ptp(discs(z, r, Cues())[..., :16].mean((1, 2, 3))) for r in (1.0, 13.0))
    assert large > 8 * small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "simclr"
    hw.pretrain("simclr", "shapes", out=out, steps=4, batch_size=32, device="cpu")
    return out


def test_an_encoder_is_asked_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "study",
        "shortcut-foundations",
        "-e",
        run,
        "--seeds",
        "0",
        "--set",
        "samples=200",
        "--set",
        "ratios=(1.0,9.0)",
    )
    said = headwater(capsys, *words, "-o", tmp_path / "s", "--json")
    assert said.code == 0, said.err
    assert said.json == json.loads((tmp_path / "s" / "study.json").read_text())
    assert [r["ratio"] for r in said.json["rows"]] == [1.0, 9.0] and (
        tmp_path / "s" / "study.png"
    ).stat().st_size > 5000
    assert all(0.5 < r["accuracy"] <= 1 and -2 <= r["bias"] <= 2 for r in said.json["rows"])
    again = headwater(capsys, *words, "-o", tmp_path / "s")
    assert again.code == 2 and "is not empty" in again.err


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object, told: str) -> None:
        said = headwater(capsys, "study", *words)
        assert said.code == 2 and told in said.err, said

    refused("shortcut", told="Did you mean shortcut-foundations")
    refused("knn", told="no study of this command; there is shortcut-foundations")
    refused("shortcut-foundations", "--set", "cues.predictivity=(0.2,0.9)", told="predictivity lies in [0.5, 1)")
    refused("bob", told="bob is `headwater compare`")
    refused("shortcut-foundations", "--set", "cues.dim=1", told="dim is 2 or more")
    refused("shortcut-foundations", "--seeds", "a", told="expected whole numbers")
    hw.pretrain("mae", "wine", out=tmp_path / "wine", steps=2, batch_size=32, device="cpu")
    refused("shortcut-foundations", "-e", tmp_path / "wine", told="reads table")
    with pytest.raises(RequestError, match="one seed at least"):
        hw.study("shortcut-foundations", seeds=[])
