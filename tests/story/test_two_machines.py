"""`torchrun ... headwater pretrain` is the same run as one process: same batches, same views, same losses.

By MAE, which is smooth: where there are ReLUs, rounding that differs between the two grows within some steps.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.engine.log import read

RUN = ["-m", "headwater.cli.main", "pretrain", "mae", "-d", "digits", "--steps", "12", "--batch-size", "64"]
SETS = ["--set", "fit.log_every=1", "--device", "cpu"]


def losses(launcher: list[str], out: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, *launcher, *RUN, *SETS, "--out", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [line["loss"] for line in read(out / "metrics.jsonl")]


def test_two_processes_are_one_run(tmp_path: Path) -> None:
    alone = losses([], tmp_path / "one")
    together = losses(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], tmp_path / "two")
    assert len(alone) == len(together) == 12
    assert together == pytest.approx(alone, rel=1e-4)
