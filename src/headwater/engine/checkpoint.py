"""Checkpoints that are either whole or absent: safetensors and JSON, a manifest with SHA-256, written aside and renamed.

A checkpoint is a folder `step-00001000/`. Its manifest is written last and the folder is renamed into place after
everything has reached the disk, so a run killed at any moment leaves only whole ones. Nothing is ever unpickled.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headwater.core.errors import RequestError, WorkError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    method: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    state: dict[str, Any]


def folder(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """The steps of the checkpoints in place, oldest first."""
    found = root.glob("step-*") if root.is_dir() else []
    return sorted(int(p.name.removeprefix("step-")) for p in found if (p / MANIFEST).is_file())


def save(root: Path, step: int, checkpoint: Checkpoint) -> Path:
    files = {"method.safetensors": checkpoint.method, "optimiser.safetensors": checkpoint.optimiser}
    return write_folder(folder(root, step), files, {"state.json": checkpoint.state})


def load(root: Path, step: int) -> Checkpoint:
    at = folder(root, step)
    verify(at)
    state = json.loads((at / "state.json").read_text())
    return Checkpoint(load_file(at / "method.safetensors"), load_file(at / "optimiser.safetensors"), state)


def latest(root: Path) -> tuple[int, Checkpoint, list[str]]:
    """The newest whole checkpoint, and a line about each damaged one passed over on the way to it.

    An exact run resumed from an earlier checkpoint ends with the same bits, so falling back loses only time.
    """
    complaints: list[str] = []
    for step in reversed(steps(root)):
        try:
            return step, load(root, step), complaints
        except RequestError as error:
            complaints.append(str(error))
    detail = " ".join(complaints) or f"{root} holds none."
    raise RequestError(f"There is no whole checkpoint to resume from: {detail}")


def prune(root: Path, keep_last: int, spare: int | None = None) -> None:
    """Remove all but the newest `keep_last`, sparing the step `spare` (the best so far)."""
    for step in steps(root)[:-keep_last]:
        if step != spare:
            shutil.rmtree(folder(root, step))


def write_folder(at: Path, tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, Any]) -> Path:
    """Write a folder of safetensors and JSON files with its manifest, whole or not at all; replaces an older one."""
    aside = at.with_name(f".writing-{at.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, content in tensors.items():
            save_file({k: v.detach().contiguous().cpu().clone() for k, v in content.items()}, aside / name)
        for name, text in texts.items():
            (aside / name).write_text(json.dumps(text, indent=1))
        sums = {p.name: {"sha256": _sha256(p), "bytes": p.stat().st_size} for p in sorted(aside.iterdir())}
        (aside / MANIFEST).write_text(json.dumps(sums, indent=1))
        for path in [*aside.iterdir(), aside]:
            _to_disk(path)
        if at.exists():
            old = at.with_name(f".old-{at.name}")
            shutil.rmtree(old, ignore_errors=True)
            at.rename(old)
            aside.rename(at)
            shutil.rmtree(old)
        else:
            aside.rename(at)
        _to_disk(at.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise WorkError(f"Writing {at} failed: {_reason(error)}. What was saved before is untouched.") from error
    return at


def verify(at: Path) -> None:
    """Raises RequestError when a file of the folder is not what its manifest says."""
    if not (at / MANIFEST).is_file():
        raise RequestError(f"{at} has no {MANIFEST}: it is not a folder that headwater wrote, or it is not whole.")
    try:
        manifest = json.loads((at / MANIFEST).read_text())
    except ValueError as error:
        raise RequestError(f"{at / MANIFEST} is damaged: it is not JSON.") from error
    for name, want in manifest.items():
        if not (at / name).is_file():
            raise RequestError(f"{at / name} is missing.")
        if _sha256(at / name) != want["sha256"]:
            raise RequestError(f"{at / name} is damaged: its SHA-256 differs from the one in {MANIFEST}.")


def recovered(at: Path) -> bool:
    """Whether `write_folder` has left something at `at`. What it was killed while replacing comes back."""
    old = at.with_name(f".old-{at.name}")
    if not at.exists() and (old / MANIFEST).is_file():
        old.rename(at)
    return at.is_dir()


def optimiser_tensors(method: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under the names of the parameters: `encoder.blocks.0.weight/exp_avg`."""
    names: dict[Tensor, str] = {p: n for n, p in method.named_parameters()}
    return {
        f"{names[p]}/{key}": torch.as_tensor(value)
        for p, state in optimiser.state.items()
        for key, value in state.items()
    }


def restore_optimiser(method: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`; what has no state yet stays without."""
    optimiser.state.clear()
    trained = dict(method.named_parameters())
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        parameter = trained[name]
        # moments must lie in memory as their weight does (channels last, say): the fused kernel walks them side by side
        alike = (
            torch.empty_like(parameter)
            if value.shape == parameter.shape
            else torch.empty_like(value, device=parameter.device)
        )
        optimiser.state[parameter][key] = alike.detach().copy_(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
    return "the disk is full" if full else str(error)
