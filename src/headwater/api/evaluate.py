"""`hw.evaluate`: did pre-training help on this data? The same test items, the same label draws, honest rivals.

Rivals: the raw values, their principal components, the same network untrained, the same network trained from scratch on
just those labels, and encoders that are at hand already. Every one meets the same draws, so differences are paired.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headwater.api import contenders, run
from headwater.api.contenders import BASELINES, Array, Task
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, conformed, load, suited
from headwater.api.verdict import OURS, Budget, Row, verdict
from headwater.core.errors import RequestError, unknown
from headwater.core.rng import mix
from headwater.data import open as open_data
from headwater.data.source import Source, Subset, duplicates, split
from headwater.engine.log import Progress
from headwater.methods.assess.knn import KNN
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.report.page import render

TENS = 10  # labels that are numbers for each label per class that is asked for


def evaluate(
    encoder: Any,
    data: Any,
    *,
    labels: str | None = None,
    labels_per_class: Sequence[Budget] = (1, 5, 10, "all"),
    baselines: Sequence[str] = BASELINES,
    against: Sequence[Any] = (),
    draws: int = 5,
    test: float = 0.28,
    seed: int | None = None,
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure an encoder on labelled data at several label budgets, against `baselines` (raw, pca, random, scratch).

    encoder   a Pretrained, or the path of a run or encoder folder
    against   other encoders, such as public ones (hf:CHECKPOINT), each of which prepares samples as it learned to
    labels_per_class  of a label that is a number, ten times as many in all
    test      the share of items tested on; split by `seed`, which is the run's own unless given, so that items a run
              held out are the ones tested on

    Returns what `evaluation.json` holds: rows of mean accuracy (R2 for numeric targets) with 95 % intervals, and a
    verdict in words. An encoder loaded from a run folder has it written there, and the report drawn anew.
    """
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    public = _named(against)
    for name in baselines:
        if name not in BASELINES:
            raise unknown("baseline", name, BASELINES)
    provenance = pretrained.card.provenance
    seed = int(provenance.get("seed", 0)) if seed is None else seed
    held = float(provenance.get("holdout", 0.0))
    opened = open_data(data, labels=labels)
    source = labelled(opened, pretrained)
    where = pick_device(device)
    # pairs are split as pairs, as pre-training splits them
    parts = [part.only(pretrained.modality) for part in split(source, held or test, seed)]
    (pool, pool_said), (tested, test_said) = (contenders.readable(s, pretrained, where, workers) for s in parts)
    task = _task(pool, tested, labels_per_class, draws, seed)
    task.device, task.workers = where, workers
    made_by = {"raw": contenders.raw, "pca": contenders.pca, "random": contenders.random}
    for name in baselines:
        if name in made_by:
            title, made = made_by[name](task, pretrained, seed)
            task.features[title] = made
    for title, other in public.items():
        task.features[title] = contenders.public(task, other, suited(opened, other), title)
    task.features[OURS] = pool_said, test_said
    rows = list(_probe_all(task, seed, progress))
    if "scratch" in baselines:
        rows += contenders.scratch(task, pretrained, seed, progress)
    same = source.fingerprint == provenance.get("fingerprint")
    result = {
        "data": {
            "name": source.name,
            "n_pool": len(pool),
            "n_test": len(tested),
            "unreadable": sum(map(len, parts)) - len(pool) - len(tested),
            "classes": list(source.classes),
            "fingerprint": source.fingerprint,
            "duplicates_across": len(duplicates(pool, tested)),
            "seen_unlabelled": same and not held,
        },
        "metric": "r2" if task.regression else "accuracy",
        "budgets": list(task.draws),
        "draws": draws,
        "rows": rows,
        "verdict": verdict(rows, list(task.draws), list(public), task.regression),
    }
    if progress is not None:
        progress.end()
    _record(pretrained, result)
    return result


def _named(encoders: Sequence[Any]) -> dict[str, Pretrained]:
    """Encoders by what the user calls them. Raises RequestError where two are called the same."""
    named = {str(e.path if isinstance(e, Pretrained) else e): e for e in encoders}
    if len(named) < len(encoders):
        raise RequestError(f"Encoders to measure against are each given once; got {', '.join(map(str, encoders))}.")
    return {name: e if isinstance(e, Pretrained) else load(e) for name, e in named.items()}


def labelled(source: Source, pretrained: Pretrained) -> Source:
    """The part of the data that has labels, once it is clear that the encoder can read it."""
    source = conformed(source, pretrained)
    if source.labels is None:
        raise RequestError(
            f"{source.name} has no labels to evaluate with; name them with --labels (a CSV file, or a column of a table)."
        )
    known = np.isfinite(source.labels) if source.labels.dtype.kind == "f" else source.labels >= 0
    return source if known.all() else Subset(source, np.flatnonzero(known))


def _task(pool: Source, test: Source, budgets: Sequence[Budget], draws: int, seed: int) -> Task:
    assert pool.labels is not None
    regression = not pool.classes
    if not regression and len(present := np.unique(pool.labels)) < 2:
        raise RequestError(f"{pool.name} holds one class, {pool.classes[present[0]]}; there is nothing to tell apart.")
    rng = np.random.default_rng(mix(seed, "draws"))
    chosen: dict[Budget, list[Array]] = {}
    for budget in budgets:
        if budget == "all":
            chosen[budget] = [np.arange(len(pool))]
        elif regression:
            if (n := TENS * int(budget)) > len(pool):
                raise RequestError(f"{n} labels were asked for, and the training part has {len(pool)} items.")
            chosen[n] = [rng.permutation(len(pool))[:n] for _ in range(draws)]
        else:
            chosen[budget] = [balanced(pool.labels, int(budget), rng, pool.classes) for _ in range(draws)]
    return Task(pool, test, chosen, regression=regression)


def balanced(labels: Array, per_class: int, rng: np.random.Generator, names: Sequence[str]) -> Array:
    """`per_class` items of every class at random. Raises RequestError, naming it, when a class has fewer."""
    picks = []
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        if len(members) < per_class:
            raise RequestError(
                f"{per_class} labels per class were asked for, and class {names[c]} has {len(members)} in the training part; "
                "ask for fewer (--labels-per-class)."
            )
        picks.append(rng.permutation(members)[:per_class])
    return np.sort(np.concatenate(picks))


def _probe_all(task: Task, seed: int, progress: Progress | None) -> Iterator[Row]:
    probes: dict[str, Any] = {"linear": LinearProbe(random_state=seed), "knn": KNN()}
    if task.regression:
        probes = {
            "linear": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
            "knn": make_pipeline(StandardScaler(), KNeighborsRegressor(10)),
        }
    y_pool, _ = task.labels()
    done = 0
    if progress is not None:
        progress.begin("probe", len(task.features) * len(probes) * len(task.draws))
    for title, (pool, test) in task.features.items():
        for name, probe in probes.items():
            for budget, draws in task.draws.items():
                started = time.monotonic()
                guesses = [clone(probe).fit(pool[d], y_pool[d]).predict(test) for d in draws]
                done += 1
                if progress is not None:
                    progress.show(done, {"": f"{title}, {name}, {budget} labels"})
                yield task.row(title, name, budget, guesses, time.monotonic() - started)


def _record(pretrained: Pretrained, result: dict[str, Any]) -> None:
    folder = pretrained.path.parent
    if (folder / run.RUN).is_file():
        run.write_json(folder / "evaluation.json", result)
        render(folder)
