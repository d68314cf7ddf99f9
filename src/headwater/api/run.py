"""The run folder: the whole truth of a run, which can be moved."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import RequestError, WorkError

RUN = "run.json"


def claim(out: Path, identity: Mapping[str, Any], resume: bool, asked: str = "--resume") -> None:
    """Take a folder for a run, or recognise in it the very run to go on with.

    `identity` is what must not change between the two: method, recipe, seed, fingerprint of the data. `asked` is the option by
    which the user wants to go on.
    """
    path = out / RUN
    if not path.exists():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise RequestError(f"--out {out} exists and is not a run folder; name a new folder.")
        if resume:
            raise RequestError(f"{asked}: there is no run at {out} (no {RUN}).")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(f"--out {out} cannot be made: {error.strerror}.") from error
        write_json(path, dict(identity))
        return
    if not resume:
        raise RequestError(f"--out {out} holds another run; add --resume to go on with it, or name another folder.")
    if wrong := _mismatch(read(out), identity):
        raise RequestError(f"{asked}: the run at {out} has {wrong}.")


def claim_afresh(out: Path, identity: Mapping[str, Any], end: str) -> None:
    """Take a folder for work that begins anew where it was stopped: a new folder, or one in which the same request came to
    no end, which is the file `end`."""
    if not (out / RUN).exists():
        return claim(out, identity, resume=False)
    if (out / end).exists():
        raise RequestError(f"--out {out} holds another run, which is finished; name another folder.")
    if wrong := _mismatch(read(out), identity):
        raise RequestError(f"--out {out} holds another run, which was stopped and has {wrong}; name another folder.")


def fresh(out: str | Path) -> Path:
    """A new folder, made, or an empty one; what stands anywhere is never written over."""
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RequestError(f"--out {folder} exists and is not empty; name a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"--out {folder} cannot be made: {error.strerror}.") from error
    return folder


def read(out: Path, name: str = RUN) -> dict[str, Any]:
    """run.json of a run folder. Raises RequestError when the folder is not one."""
    path = out / name
    if not path.is_file():
        raise RequestError(f"{out} is not a run folder (no {name}).")
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise RequestError(f"{path} is damaged: it is not JSON.") from error
    return found


def add(out: Path, name: str = RUN, **facts: Any) -> None:
    """Add facts to run.json, or to another file of that kind."""
    write_json(out / name, {**read(out, name), **facts})


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    aside = path.with_name(f".writing-{path.name}")
    try:
        aside.write_text(json.dumps(content, indent=1))
        os.replace(aside, path)
    except OSError as error:
        raise WorkError(f"Writing {path} failed: {error.strerror}.") from error


def _mismatch(held: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """The first thing in which a run that is held differs from what is asked; nothing where it does not."""
    wrong = (_difference(k, held.get(k), v) for k, v in identity.items() if held.get(k) != v)
    return next(wrong, "")


def _difference(key: str, held: Any, asked: Any) -> str:
    if isinstance(held, list) and isinstance(asked, list):
        lines = [f"{a!s} and not {b!s}" for a, b in zip(held, asked, strict=False) if a != b]
        return f"another {key}: {lines[0] if lines else 'of another length'}"
    if isinstance(held, str) and isinstance(asked, str) and len(held) == len(asked) == 64:  # digests of encoders
        return f"another {key}, {held[:12]}... and not {asked[:12]}..."
    return f"{key} {held!r}, and not {asked!r}"
