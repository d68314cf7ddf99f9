"""Classes that arrive in sessions: measured rightly, killed and resumed to the same bits, added to without old data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import headwater as hw
from headwater.core.errors import RequestError
from headwater.data.source import split
from headwater.methods.continual.fetril import FeTrIL
from tests.story.commands import headwater


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mae"
    hw.pretrain("mae", "digits", out=out, steps=10, batch_size=64, device="cpu")
    return out


def test_what_is_measured(run: Path, tmp_path: Path) -> None:
    made = hw.continual.sessions("nmc", run, "digits", out=tmp_path / "c", groups=[4, 3, 3], seed=1)
    source = hw.open("digits")
    pool, test = split(source, 0.28, 1)
    assert pool.labels is not None and test.labels is not None
    x, z = hw.embed(run, pool), hw.embed(run, test)
    model, names = hw.assess.NMC(), np.array(source.classes)
    for t, group in enumerate(made["groups"]):
        rows = np.isin(names[pool.labels], group)
        model.partial_fit(x[rows], names[pool.labels][rows])
        right = [
            float(model.score(z[at], names[test.labels][at]))
            for g in made["groups"][: t + 1]
            if len(at := np.flatnonzero(np.isin(names[test.labels], g)))
        ]
        assert made["matrix"][t] == pytest.approx(right)
        met = np.isin(names[test.labels], np.concatenate(made["groups"][: t + 1]))
        assert made["seen"][t] == pytest.approx(model.score(z[met], names[test.labels][met]))
    matrix = made["matrix"]
    lost = [
        max(matrix[0][0], matrix[1][0], matrix[2][0]) - matrix[2][0],
        max(matrix[1][1], matrix[2][1]) - matrix[2][1],
    ]
    assert made["forgetting"] == pytest.approx(np.mean(lost)) and made["forgetting"] > 0
    assert made["average"] == pytest.approx(np.mean(made["seen"])) and made["last"] == made["seen"][-1]
    assert sorted(np.concatenate(made["groups"])) == list("0123456789")


@pytest.mark.parametrize("method", ["nmc", "dis-vs-gen", "teen", "fetril", "slca"])
def test_killed_between_sessions_it_resumes_to_the_same_bits(
    method: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"set": ["steps=8"]} if method == "slca" else {}
    whole = hw.continual.sessions(method, run, "digits", out=tmp_path / "whole", **few)  # type: ignore[arg-type]
    from headwater.api import sessions

    kept, count = sessions._keep, 0

    def dies(*given: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        kept(*given)

    monkeypatch.setattr(sessions, "_keep", dies)
    with pytest.raises(KeyboardInterrupt):
        hw.continual.sessions(method, run, "digits", out=tmp_path / "cut", **few)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert len(json.loads((tmp_path / "cut/state/state.json").read_text())["done"]["seen"]) == 2
    (tmp_path / "cut/state").rename(tmp_path / "cut/.old-state")  # as where it is killed while the state is replaced
    again = hw.continual.sessions(method, run, "digits", out=tmp_path / "cut", resume=True, **few)  # type: ignore[arg-type]
    assert again == whole
    for path in (tmp_path / "whole/state").iterdir():
        assert (tmp_path / "cut/state" / path.name).read_bytes() == path.read_bytes()


def test_killed_inside_a_session_a_slow_encoder_resumes_to_the_same_bits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"groups": 3, "set": ["steps=12", "slow=0.5"], "device": "cpu"}
    whole = hw.continual.sessions("slca", run, "digits", out=tmp_path / "whole", **more)  # type: ignore[arg-type]
    from headwater.engine import fit

    step, count = fit._Run.step, 0

    def dies(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 12 + 11:  # of the second session, after its checkpoint at step 10
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(fit._Run, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        hw.continual.sessions("slca", run, "digits", out=tmp_path / "cut", **more)  # type: ignore[arg-type]
    again = hw.continual.sessions("slca", run, "digits", out=tmp_path / "cut", resume=True, **more)  # type: ignore[arg-type]
    assert again == whole and not list((tmp_path / "cut").glob("session-*"))
    assert count == 12 + 11 + 2 + 12
    for path in [*(tmp_path / "whole/state").iterdir(), *(tmp_path / "whole/encoder").iterdir()]:
        assert (tmp_path / "cut" / path.parent.name / path.name).read_bytes() == path.read_bytes()


def test_a_session_of_other_data_is_added(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = load_digits(return_X_y=True)
    for name, these in (("first", y < 7), ("more", y >= 7)):
        np.savez(tmp_path / f"{name}.npz", x=x[these].reshape(-1, 1, 8, 8).astype(np.float32), y=y[these].astype(str))
    out = tmp_path / "c"
    base = ("continual", "fetril", "-e", run, "--out", out)
    assert headwater(capsys, *base, "--data", tmp_path / "first.npz", "--sessions", "5,2").code == 0
    said = headwater(capsys, *base, "--data", tmp_path / "more.npz", "--add", "--json")
    assert said.code == 0, said.err
    assert said.json["groups"][2] == ["7", "8", "9"] and said.json["matrix"][2][:2] == [None, None]
    assert said.json["matrix"][2][2] > 0.3 and said.json["state_bytes"] < 30_000
    said = headwater(capsys, *base, "--data", tmp_path / "more.npz", "--add")
    assert said.code == 2 and "knows 7, 8, 9" in said.err
    said = headwater(capsys, *base, "--data", tmp_path / "first.npz", "--sessions", "5,2", "--resume")
    assert said.code == 0  # done already; what was added stays
    assert len(said.out.splitlines()) == 5


def test_bad_requests_are_refused(run: Path, tmp_path: Path) -> None:
    def refused(told: str, method: str = "fetril", **more: object) -> None:
        with pytest.raises(RequestError, match=told):
            hw.continual.sessions(method, run, "digits", out=tmp_path / "x", **more)  # type: ignore[arg-type]

    refused(r"Sessions of \[3, 3\] classes were asked for, and there are 10", groups=[3, 3])
    refused("Sessions of 0 classes", groups=0)
    refused("'knn' does not learn in sessions; these do: .*fetril", method="knn")
    refused("named 'alpha'", set=["alpha=1"])
    refused("no run at", resume=True)
    refused("slow of 0 or more; got 0.01 and -1", method="slca", set=["slow=-1"])
    refused("steps must be at least 1; got 0", method="slca", set=["steps=0"])
    assert not (tmp_path / "x").exists()
    hw.continual.sessions("fetril", run, "digits", out=tmp_path / "y", groups=2)
    with pytest.raises(RequestError, match="another settings"):
        hw.continual.sessions("fetril", run, "digits", out=tmp_path / "y", groups=2, set=["C=2.0"], resume=True)
    damaged = tmp_path / "y/state/learned.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(RequestError, match=r"learned\.safetensors"):
        hw.continual.sessions("fetril", run, "digits", out=tmp_path / "y", groups=2, resume=True)
    assert isinstance(FeTrIL(), hw.continual.FeTrIL)
