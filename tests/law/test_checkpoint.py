"""Checkpoints are whole or absent, and say which."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import RequestError, WorkError
from headwater.engine import checkpoint
from headwater.engine.checkpoint import Checkpoint


def content(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"weight": torch.full((3,), value)}, {"weight/exp_avg": torch.zeros(3)}, {"step": int(value)})


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, content(3.0))
    step, found, complaints = checkpoint.latest(tmp_path)
    assert step == 7 and not complaints
    assert torch.equal(found.method["weight"], torch.full((3,), 3.0)) and found.state == {"step": 3}


@pytest.mark.parametrize("name", ["method.safetensors", "optimiser.safetensors", "state.json"])
def test_a_flipped_byte_is_found_and_the_checkpoint_before_is_taken(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path, 1, content(1.0))
    checkpoint.save(tmp_path, 2, content(2.0))
    flip_a_byte(checkpoint.folder(tmp_path, 2) / name)
    step, found, complaints = checkpoint.latest(tmp_path)
    assert step == 1 and found.state["step"] == 1
    assert len(complaints) == 1 and name in complaints[0] and "SHA-256" in complaints[0]


def test_when_all_are_damaged_the_error_names_them(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, content())
    flip_a_byte(checkpoint.folder(tmp_path, 1) / "method.safetensors")
    with pytest.raises(RequestError, match=r"no whole checkpoint.*method\.safetensors is damaged"):
        checkpoint.latest(tmp_path)


def test_a_write_cut_short_leaves_the_older_ones_and_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, content())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(WorkError, match="the disk is full"):
        checkpoint.save(tmp_path, 2, content())
    assert checkpoint.steps(tmp_path) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_folder_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, content())
    checkpoint.save(tmp_path, 2, content())
    (checkpoint.folder(tmp_path, 2) / "manifest.json").unlink()
    assert checkpoint.steps(tmp_path) == [1]


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, content())
    checkpoint.prune(tmp_path, keep_last=2, spare=1)
    assert checkpoint.steps(tmp_path) == [1, 4, 5]


def test_the_manifest_names_every_file_and_nothing_is_pickled(tmp_path: Path) -> None:
    at = checkpoint.save(tmp_path, 1, content())
    manifest = json.loads((at / "manifest.json").read_text())
    assert set(manifest) == {p.name for p in at.iterdir()} - {"manifest.json"}
    assert {p.suffix for p in at.iterdir()} == {".safetensors", ".json"}
