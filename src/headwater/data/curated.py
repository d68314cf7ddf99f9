"""Manifests: which items of other data to learn from, and how often. `headwater curate` writes them, `open` reads them.

A folder with `manifest.json`, which says where the data are, and `kept.parquet`, a row per item kept: its position, its
name, and what was found out of it. With a mixture in `manifest.json`, the share of each group, an item counts as often as
its group's share of `draws` asks for; the mixture may be edited by hand.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headwater.core.errors import RequestError, spelled
from headwater.core.rng import mix
from headwater.data.builtin import BUILTINS
from headwater.data.source import Source, Subset

MANIFEST, KEPT = "manifest.json", "kept.parquet"
KIND = "headwater manifest"
Facts = Mapping[str, Any]


def found(at: str) -> Path | None:
    """The folder of the manifest that a path means, if it means one."""
    folder = Path(at) if os.path.isdir(at) else Path(at).parent
    meant = os.path.isdir(at) or os.path.basename(at) == MANIFEST
    if not meant or not (folder / MANIFEST).is_file():
        return None
    with (folder / MANIFEST).open("rb") as file:
        return folder if KIND.encode() in file.read(100) else None


def write_manifest(folder: Path, facts: Facts, kept: pa.Table) -> None:
    """`kept` has the columns position, id and path, and group where `facts` has a mixture; `facts` has data, the address
    of all items, the number of them in pool, and draws where there is a mixture."""
    pq.write_table(kept, folder / KEPT)
    (folder / MANIFEST).write_text(json.dumps({"kind": KIND, **facts}, indent=1))


def open_manifest(folder: Path, opened: Callable[..., Source], labels: str | None, name: str | None) -> Source:
    """The items kept, as a part of the data that the manifest was made of.

    Raises RequestError where those are not found or no longer hold the items, and for a mixture that cannot be.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        kept = pq.read_table(folder / KEPT)
        address, pool = facts["data"], facts["pool"]
        position, ids = kept["position"].to_numpy().copy(), kept["id"].to_pylist()
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RequestError(f"The manifest in {folder} is damaged ({error}).") from error
    if address is None:
        if not all(paths := kept["path"].to_pylist()):
            raise RequestError(f"The manifest in {folder} was made of data in memory, which cannot be opened again.")
        whole, position = opened(paths, labels=labels), np.arange(len(paths))
    else:
        whole = opened(**{**address, "labels": labels or address.get("labels")})
        position = _placed(whole, position, ids, pool, folder)
    times = _mixed(facts, kept, folder) if "mixture" in facts else None
    made = Subset(whole, position if times is None else np.repeat(position, times))
    made.name = name or f"{whole.name}, curated"
    return made


def _placed(whole: Source, position: NDArray[Any], ids: list[str], pool: int, folder: Path) -> NDArray[Any]:
    """Where the items kept stand; if the data have changed since, by their names."""
    if len(whole) >= pool and all(whole.id(int(i)) == name for i, name in zip(position, ids, strict=True)):
        return position
    there = {whole.id(i): i for i in range(len(whole))}
    if lost := [name for name in ids if name not in there]:
        raise RequestError(
            f"{whole.name} lacks {len(lost):,} of the {len(ids):,} items that the manifest in {folder} keeps, such as {lost[0]}."
        )
    return np.array([there[name] for name in ids])


def _mixed(facts: Facts, kept: pa.Table, folder: Path) -> NDArray[np.int64]:
    """How often each item counts by the mixture of a manifest, which may have been written by hand."""
    mixture, draws = facts["mixture"], facts.get("draws")
    if "group" not in kept.column_names:
        raise RequestError(f"The mixture of {folder} has nothing to mix: its items belong to no groups.")
    if not isinstance(draws, int) or draws < 1:
        raise RequestError(f"The mixture of {folder} needs draws, a whole number of 1 or more; got {draws!r}.")
    if not isinstance(mixture, Mapping):
        raise RequestError(f"The mixture of {folder} needs a weight for each group by its name; got {mixture!r}.")
    return counts(kept["group"].to_numpy(), mixture, draws, folder)


def counts(group: NDArray[Any], mixture: Facts, draws: int, who: object) -> NDArray[np.int64]:
    """How often each item counts, so that the groups stand to each other as the mixture says, `draws` in all.

    Within a group the counts differ by one at most; which items count once more follows from the group's name.
    """
    shares = shares_of(mixture, who)
    there = {g: np.flatnonzero(group.astype(str) == g) for g in shares}
    if empty := [g for g, share in shares.items() if share and not len(there[g])]:
        raise RequestError(f"The mixture of {who} asks for group {empty[0]}, of which no item is kept.")
    exact = np.array([*shares.values()]) * draws
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: draws - whole.sum()]] += 1
    out = np.zeros(len(group), dtype=np.int64)
    for (g, at), n in zip(there.items(), whole, strict=True):
        if n:
            out[at] = n // len(at)
            out[np.random.default_rng(mix("mixture", g)).permutation(at)[: n % len(at)]] += 1
    return out


def shares_of(mixture: Facts, who: object) -> dict[str, float]:
    """The weights as shares that sum to 1. Raises RequestError for weights below 0 or not finite, and for none above."""
    plain = all(isinstance(weight, int | float) for weight in mixture.values())
    weights = np.array([*mixture.values()] if plain else [np.nan], dtype=float)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise RequestError(f"The mixture of {who} needs finite weights of 0 or more; got {dict(mixture)}.")
    if not weights.sum() > 0:
        raise RequestError(f"The mixture of {who} sums to nothing; at least one group needs a weight above 0.")
    return dict(zip(map(str, mixture), (weights / weights.sum()).tolist(), strict=True))


def address(what: Any, asked: Facts) -> dict[str, Any] | None:
    """What `open` was told, with paths that hold from every folder; None for what lies in memory."""

    def lasting(path: str) -> str:
        if spelled(path) in BUILTINS:
            return path
        kind, colon, rest = path.partition(":")
        if "://" not in path and colon and not os.path.exists(path) and os.path.exists(rest):
            return f"{kind}:{os.path.abspath(rest)}"
        bare = os.path.expanduser(path)
        there = os.path.exists(bare) or os.path.exists(os.path.dirname(bare) or "\0")
        return os.path.abspath(bare) if there and "://" not in path else path

    several = isinstance(what, list) and all(isinstance(each, str | os.PathLike) for each in what)
    if not several and not isinstance(what, str | os.PathLike):
        return None
    told = {k: v for k, v in asked.items() if v is not None and v is not False}
    for name in ("annotations", "masks"):
        told |= {name: lasting(told[name])} if name in told else {}
    if "labels" in told and os.path.exists(told["labels"].rpartition(":")[0] or told["labels"]):
        at, colon, column = told["labels"].rpartition(":")
        told["labels"] = f"{os.path.abspath(at)}:{column}" if colon else os.path.abspath(column)
    path = [lasting(os.fspath(each)) for each in what] if several else lasting(os.fspath(what))
    return {"what": path, **told}
