"""`hw.verify_resume`: prove exact resumption by killing a run for real and comparing bits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from headwater.core.errors import WorkError
from headwater.core.rng import mix
from headwater.engine import checkpoint
from headwater.engine.log import read


@dataclass(frozen=True)
class Proof:
    """`same` when every tensor of method and optimiser agrees bit for bit; `differing` names those that do not."""

    same: bool
    killed_at: list[int]
    tensors: int
    differing: list[str]


def verify_resume(
    method: str, data: str, *, steps: int = 40, kills: int = 2, seed: int = 0, set: Sequence[str] = ()
) -> Proof:
    """Train once undisturbed, and once killed (SIGKILL) at `kills` random moments and resumed; compare the ends.

    Each run is a process of its own, as a user's would be. Raises WorkError when a run fails for another reason.
    """
    with TemporaryDirectory(prefix="headwater-verify-") as scratch:
        whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
        save_every = max(2, steps // 8)
        changes = [*set, "fit.log_every=1", f"fit.save_every={save_every}"]
        command = [sys.executable, "-m", "headwater.cli.main", "pretrain", method, "--data", data, "--seed", str(seed)]
        command += ["--steps", str(steps), "--device", "cpu", *(f"--set={c}" for c in changes)]
        _finish([*command, "--out", str(whole)])
        killed = []
        for i in range(kills):
            at = 1 + mix(seed, "kill", i) % (steps - 2)
            resume = ["--resume"] if (broken / "run.json").exists() else []
            killed.append(_kill([*command, "--out", str(broken), *resume], broken, at))
        _finish([*command, "--out", str(broken), "--resume"])
        a, b = (checkpoint.load(run / "checkpoints", steps) for run in (whole, broken))
    ours, theirs = {**a.method, **a.optimiser}, {**b.method, **b.optimiser}
    differing = sorted(
        n
        for n in ours.keys() | theirs.keys()
        if n not in ours or n not in theirs or not torch.equal(ours[n], theirs[n])
    )
    return Proof(not differing, killed, len(ours), differing)


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise WorkError(
            f"A run to compare with failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}"
        )


def _kill(command: list[str], out: Path, at: int) -> int:
    """Start the run and kill it as soon as its journal has reached step `at`; returns the step it had reached."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
    try:
        while process.poll() is None:
            reached = _reached(out)
            if reached >= at:
                break
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    return _reached(out)


def _reached(out: Path) -> int:
    journal = out / "metrics.jsonl"
    lines = read(journal) if journal.exists() else []
    return int(lines[-1]["step"]) if lines else 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
