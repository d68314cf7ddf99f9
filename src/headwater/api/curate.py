"""`hw.curate`: which data to learn from. What is kept is written as a manifest that `hw.open` and pre-training read."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.api import catalogue, run
from headwater.api.distilled import distilled
from headwater.api.override import flat, override
from headwater.api.pool import RECORD, VECTORS, Curated, Pool, budget_of, claimed, draw, pool_of
from headwater.api.trials import part, trial_of
from headwater.core.errors import RequestError
from headwater.core.rng import Rng, mix
from headwater.core.verbs import Choice, Known, Selector
from headwater.data.curated import write_manifest
from headwater.engine.artefact import versions
from headwater.engine.log import Progress
from headwater.methods.curate import krr_st
from headwater.report.curation import PICTURE, Story, render

Array = NDArray[Any]
SHOWN, ACROSS = 8, 4  # rows of pictures, and columns of those kept and of those dropped


def curate(
    method: str,
    data: Any,
    *,
    keep: int | float | None = None,
    out: str | Path | None = None,
    encoder: Any = None,
    labels: str | None = None,
    target: Any = None,
    proxy: str = "mae",
    steps: int = 100,
    seed: int = 0,
    device: str = "auto",
    workers: int = 2,
    set: Sequence[str] = (),
    progress: Progress | None = None,
) -> Curated:
    """Chooses items of `data` by the method of that name (such as near-duplicates or balanced); krr-st makes new ones.

    data      a folder of Parquet files that `embed` wrote, or one such file; or raw data as `hw.open` takes them
    keep      how many items, or, below 1, which share of them; None leaves it to the method
    out       a folder for the manifest, which `hw.open` and `pretrain` take as data, the report, and the features
    encoder   whose features of raw data are compared; without one the values themselves are. For krr-st the teacher
    labels    classes, or numbers that say how good each item is, for the methods that read them
    target    for climb: the data that count; each trial pre-trains a small model by `proxy` for `steps`, and is measured
              by its loss on them
    set       settings of the method, each `name=value`

    Raises RequestError for a method that does not choose data, a budget above what there is, and features that are not
    finite.
    """
    if catalogue.load(method) is krr_st:
        if target is not None:
            raise RequestError("krr-st makes no trials, so a target says nothing to it.")
        return distilled(data, keep, out, encoder, labels, seed, device, workers, set, progress)
    selector: Selector = override(_selector(method)(), set)
    if selector.tries != (target is not None):
        raise RequestError(
            f"{method} needs a target, the data that trials are measured on." if selector.tries else
            f"{method} makes no trials, so a target says nothing to it."
        )  # fmt: skip
    folder = None if out is None else Path(out)
    with tempfile.TemporaryDirectory() as aside:
        if folder is not None:
            claimed(folder)
        started = time.monotonic()
        pool = pool_of(data, (folder or Path(aside)) / VECTORS, encoder, labels, device, workers, progress)
        budget = budget_of(keep, len(pool.vectors))
        known = pool.known()
        if selector.tries:
            known = known or Known(torch.full((len(pool.vectors),), -1))
            known = replace(known, trial=trial_of(pool, target, proxy, steps, seed, device, workers))
        choice = selector.select(pool.vectors, budget, Rng(mix(seed, "curate")), known)
        told = {
            "method": catalogue.slug(type(selector).__module__),
            "settings": flat(selector),
            "seed": seed,
            "name": pool.name,
            "pool": len(pool.vectors),
            "kept": len(choice.kept),
            "unreadable": pool.vectors.unreadable,
            "seconds": round(time.monotonic() - started, 2),
            **choice.facts,
            "versions": versions(),
        }
        if choice.mixture:
            told["mixture"] = {str(g): share for g, share in choice.mixture.items()}
            told["draws"] = choice.draws
        if folder is not None:
            _write(folder, pool, choice, told)
        kept = choice.kept.numpy()
        return Curated(kept, None if pool.source is None else part(pool.source, pool, choice), told, folder)


def _selector(method: str) -> type[Selector]:
    def found(name: str) -> type[Selector] | None:
        module = catalogue.load(name)
        own = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
        return next((v for v in own if issubclass(v, Selector)), None)

    if (kind := found(method)) is None:
        able = [catalogue.slug(n) for n in catalogue.names() if n.startswith("curate.")]
        raise RequestError(f"{method!r} does not choose data; these do: {', '.join(able)}.")
    return kind


def _write(folder: Path, pool: Pool, choice: Choice, told: dict[str, Any]) -> None:
    rows = choice.kept.numpy()
    table = pool.vectors.take(rows)
    for name, values in choice.columns.items():
        table = table.append_column(name, pa.array(values[choice.kept].numpy()))
    table = table.add_column(0, "position", pa.array(pool.places(rows)))
    size = len(pool.vectors) if pool.source is None else len(pool.source)
    write_manifest(folder, {**told, "data": pool.address, "pool": size}, table)
    run.write_json(folder / RECORD, told)
    render(folder, _story(folder, pool, choice, told))


def _story(folder: Path, pool: Pool, choice: Choice, told: Mapping[str, Any]) -> Story:
    """What the report shows: the groups before and after, and some of what was kept and dropped."""
    rows, gone = choice.kept.numpy(), np.setdiff1d(np.arange(len(pool.vectors)), choice.kept.numpy())
    known, group = pool.known(), choice.columns.get("group")
    classes = known.names if known is not None else ()
    tables, mixture, words = [], [], ""
    if choice.mixture and group is not None:
        names, sizes = _named(pool, group), group[choice.kept].bincount() / len(rows)
        mixture = [(names(g), float(sizes[g]), share) for g, share in choice.mixture.items()]
        words = _searched(choice, told)
    elif group is not None and told["method"] == "active-outliers":
        free = int((choice.columns["score"] >= 0).sum())
        words = f"{len(rows):,} of the {free:,} items without a label are to be labelled next."
        tables.append(("Labels and guesses", _before_and_after(group.numpy(), rows, _classed(classes))))
    elif group is not None:
        tables.append(("Groups", _before_and_after(group.numpy(), rows, _named(pool, group))))
    if known is not None and classes:
        tables.append(("Labels", _before_and_after(known.classes.numpy(), rows, _classed(classes))))
    if "twin" in choice.columns:
        similar, twin = (choice.columns[name].numpy() for name in ("similarity", "twin"))
        gone = gone[np.argsort(-similar[gone], kind="stable")]
        some = gone[np.unique(np.linspace(0, len(gone) - 1, min(SHOWN, len(gone))).astype(int))]
        names = pool.told(np.concatenate([twin[some], some]))
        pairs = [(a, b, float(v)) for a, b, v in zip(names, names[len(some) :], similar[some], strict=False)]
        columns = [("an item", twin[some]), ("its twin, dropped", some)]
        return Story(told, tables, (), pairs, draw(pool, columns, folder / PICTURE))
    generator = np.random.default_rng(0)
    columns = []
    for title, these in (("kept", rows), ("dropped", gone)):
        lots = np.array_split(generator.permutation(these)[: ACROSS * SHOWN], ACROSS)
        columns += [(title if i == 0 else "", lot) for i, lot in enumerate(lots)]
    return Story(told, tables, mixture, (), draw(pool, columns, folder / PICTURE), words)


def _before_and_after(group: Array, rows: Array, name: Callable[[int], str]) -> list[tuple[str, int, int]]:
    """(name, in the pool, kept), the largest first."""
    before, after = Counter(group.tolist()), Counter(group[rows].tolist())
    return [(name(g), n, after[g]) for g, n in before.most_common()]


def _classed(names: Sequence[str]) -> Callable[[int], str]:
    return lambda g: str(names[g]) if g >= 0 else "no label"


def _named(pool: Pool, group: Tensor) -> Callable[[int], str]:
    """Groups by their number and one of their items."""
    numbers, first = np.unique(group.numpy(), return_index=True)
    such = dict(zip(numbers.tolist(), pool.told(first), strict=True))
    return lambda g: f"group {g}, such as {such[g]}" if g >= 0 else f"left out, such as {such[g]}"


def _searched(choice: Choice, told: Mapping[str, Any]) -> str:
    """How a mixture was found."""
    losses, ranked = told["losses"], ", ".join(f"{r:.2f}" for r in told["ranked"])
    foretold = f" Each later round was foretold, in rank correlation: {ranked}." if ranked else ""
    return (
        f"{choice.draws:,} draws from {len(choice.kept):,} of {told['pool']:,} items, mixed as {len(losses)} trials suggest, "
        f"which lost {min(losses):.4g} to {max(losses):.4g} on the data that count.{foretold}"
    )
