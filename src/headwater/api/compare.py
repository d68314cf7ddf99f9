"""`hw.compare`: which encoder to begin with, asked by many tasks on one's own data."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api import run
from headwater.api.bench import Bench, readable
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load
from headwater.api.gauntlet import ERRORS, KINDS, Gauntlet, chosen
from headwater.core.errors import RequestError, WorkError
from headwater.data import open as open_data
from headwater.data.source import Source, Subset, split
from headwater.engine.artefact import versions
from headwater.engine.log import Progress
from headwater.methods.study.bob import BoB, Standing, Task
from headwater.parts.ranking import agreement
from headwater.report import comparison

PAGE, RECORD = "compare.html", "compare.json"


def compare(
    encoders: Sequence[Any],
    data: Sequence[Any],
    *,
    out: str | Path | None = None,
    labels: str | Sequence[str | None] | None = None,
    tasks: Sequence[str] = tuple(KINDS),
    draws: int = 5,
    steps: int = 100,
    test: float = 0.28,
    seed: int = 0,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run every encoder through every task on every labelled data set, and say who leads by how much.

    encoders  run or encoder folders, hf:CHECKPOINT, or what `hw.load` returns; each prepares samples as it learned to
    labels    of the data, where a path alone does not say it: one for all, or one for each
    tasks     of linear, knn, naive-bayes, few-shot, fine-tune, retrieval, ood, corruption, calibration
    draws     of labels, for few-shot
    steps     of fine-tuning
    test      the share tested on; split by `seed` alike for all encoders
    out       a new folder: `compare.html` to look at and `compare.json`, which holds what is returned

    Returns `encoders` (what each is, `rank`, `overall` and mean z by `families`; `why` where it could not be loaded),
    `tasks`, `rows` (a score and a z, or why there is none, per encoder and task), `agreement` (Spearman's correlation
    between the rankings of tasks), `verdict`. An encoder that fails stops no other.
    Raises RequestError for data without classes, names that are none, or where no encoder can be loaded.
    """
    encoders = [encoders] if isinstance(encoders, str | Path | Pretrained) else encoders
    data = [data] if isinstance(data, str | Path | Source) else data
    wanted, folder = chosen(tasks), None if out is None else run.fresh(out)
    if draws < 1 or steps < 1 or not 0 < test < 1:
        raise RequestError(
            f"compare needs draws and steps of 1 or more and a test share in (0, 1); got {draws}, {steps}, {test}."
        )
    loaded, failed = _loaded(encoders)
    given = list(labels) if isinstance(labels, list | tuple) else [labels] * len(data)
    if len(given) != len(data):
        raise RequestError(
            f"{len(given)} labels were given for {len(data)} data sets; give one for all or one for each."
        )
    started, where = time.monotonic(), pick_device(device)
    first = next(iter(loaded.values()))
    sets = list[Gauntlet]()
    for d, name in zip(data, given, strict=True):
        more = {"test": test, "draws": draws, "steps": steps, "seed": seed, "workers": workers}
        sets.append(_set(open_data(d, labels=name), first, [g.name for g in sets], **more))
    asked = [task for gauntlet in sets for task in gauntlet.tasks(wanted)]
    bench = Bench(where, workers, seed)
    report = BoB(_teller(bench, len(loaded) * len(asked), progress)).run(bench, loaded, asked)
    if progress is not None:
        progress.end()
    if all(row["score"] is None for row in report.rows):
        raise WorkError(f"No encoder could do any of the tasks; the first reason: {report.rows[0]['why']}")
    made: Standing = report.extra["standing"]
    result = {
        "data": [_facts_of(gauntlet) for gauntlet in sets],
        "tasks": [
            _task(task, next(g for g in sets if g.name == task.data), ok)
            for task, ok in zip(asked, made.counted, strict=True)
        ],
        "encoders": [
            *(_standing(name, encoder, made, i) for i, (name, encoder) in enumerate(loaded.items())),
            *({"name": name, "why": why} for name, why in failed.items()),
        ],
        "rows": list(report.rows),
        "agreement": _plain(agreement(report.extra["scores"], [t.error for t in asked])),
        "verdict": report.verdict,
        "settings": {"draws": draws, "steps": steps, "test": test, "seed": seed, "device": str(where)},
        "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
    }
    if folder is not None:
        run.write_json(folder / RECORD, result)
        _write(folder / PAGE, comparison.render(result))
    return result


def _loaded(encoders: Sequence[Any]) -> tuple[dict[str, Pretrained], dict[str, str]]:
    """The encoders by name, and why others cannot be had."""
    loaded, failed = dict[str, Pretrained](), dict[str, str]()
    for encoder in encoders:
        at = encoder.path if isinstance(encoder, Pretrained) else Path(str(encoder))
        name = str(encoder) if isinstance(encoder, str) else str(at.parent if at.name == "encoder" else at)
        name, count = name.rstrip("/"), 1
        while (told := name if count == 1 else f"{name} ({count})") in loaded or told in failed:
            count += 1
        try:
            loaded[told] = encoder if isinstance(encoder, Pretrained) else load(encoder)
        except Exception as error:  # told in the report; the others go on
            failed[told] = str(error)
    if not loaded:
        raise RequestError(" ".join(failed.values()) or "compare needs an encoder at least.")
    return loaded, failed


def _set(
    source: Source, first: Pretrained, taken: Sequence[str], *, test: float, workers: int, **more: Any
) -> Gauntlet:
    if source.labels is None or not source.classes:
        told = "no labels" if source.labels is None else "numbers for labels"
        raise RequestError(f"{source.name} has {told}, and the tasks are about classes; name them with --labels.")
    labelled = Subset(source, np.flatnonzero(source.labels >= 0))
    labelled = readable(labelled.only(first.modality) if first.modality in source.modalities else labelled, workers)
    assert labelled.labels is not None
    kinds, counts = np.unique(labelled.labels, return_counts=True)
    if len(kinds) < 2 or counts.min() < 4:
        lone = f"{source.classes[kinds[counts.argmin()]]} has {counts.min()}"
        raise RequestError(
            f"{source.name} holds {len(kinds)} class{'es' if len(kinds) != 1 else ''} with samples ({lone}); compare needs two, "
            "and four samples of each."
        )
    pool, tested = split(labelled, test, more["seed"])
    names = (source.name if k == 1 else f"{source.name} ({k})" for k in itertools.count(1))
    return Gauntlet(next(n for n in names if n not in taken), labelled, pool, tested, **more)


def _teller(bench: Bench, total: int, progress: Progress | None) -> Any:
    """What the procedure tells after each task goes on to the live line; a new encoder needs none of the old one's features."""
    last: list[str] = []
    if progress is not None:
        progress.begin("task", total)

    def tell(encoder: str, task: Task, done: int) -> None:
        if last != [encoder]:
            bench.forget()
            last[:] = [encoder]
        if progress is not None:
            progress.show(done, {"": f"{encoder}: {task.name} on {task.data}"})

    return tell


def _standing(name: str, encoder: Pretrained, made: Standing, i: int) -> dict[str, Any]:
    """What an encoder is, and where it stands."""
    facts = encoder.card.preprocessing
    kind = encoder.card.architecture
    return {
        "name": name,
        "rank": int(made.rank[i]),
        "overall": _plain(made.overall[i]),
        "families": {family: _plain(z[i]) for family, z in made.families.items()},
        "modality": encoder.modality,
        "architecture": type(kind).__name__.removesuffix("Config") if is_dataclass(kind) else str(kind),
        "method": encoder.card.provenance.get("method"),
        "parameters": sum(p.numel() for p in encoder.encoder.parameters()),
        "dim": encoder.dim,
        "pooled": getattr(kind, "pool", "mean"),
        "preprocessing": {k: v for k, v in facts.items() if k != "read"},
        "digest": encoder.digest[:16],
    }


def _task(task: Task, gauntlet: Gauntlet, counted: Any) -> dict[str, Any]:
    return {
        "name": task.name,
        "data": task.data,
        "family": task.family,
        "error": task.name in ERRORS,
        "what": gauntlet.said(task.name),
        "counted": bool(counted),
    }


def _facts_of(gauntlet: Gauntlet) -> dict[str, Any]:
    return {
        "name": gauntlet.name,
        "n_pool": len(gauntlet.pool),
        "n_test": len(gauntlet.test),
        "classes": len(gauntlet.source.classes),
        "fingerprint": gauntlet.source.fingerprint,
    }


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: what is not finite becomes null."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(v) for v in value]
    return float(value) if np.isfinite(value) else None


def _write(at: Path, text: str) -> None:
    try:
        at.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkError(f"Writing {at} failed: {error.strerror}.") from error
