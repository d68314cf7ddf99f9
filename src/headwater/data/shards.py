"""One archive, or several that are the shards of one set: items of one modality, or of several by WebDataset key.

Members of a shard that share their path up to the first dot of the file name are one item: 0001.jpg with 0001.txt, or
with a caption in 0001.json, and its label in 0001.cls. Names and offsets stay in the memory-mapped index of each shard.
"""

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError, Unreadable
from headwater.data import archive, labels
from headwater.data.files import FileSource
from headwater.data.gathering import endings, files, read
from headwater.data.index import ending
from headwater.data.pairs import SHARE, Pairs, enough, said
from headwater.data.paths import CAPTIONS
from headwater.data.readers import READERS, reader_for
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Members, Remote, Store
from headwater.data.text import TextReader

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


class Shards(Store):
    """The members of several archives, one after the other; named `shard/member`."""

    def __init__(self, members: Sequence[Members]) -> None:
        self.members = list(members)
        self._first = np.cumsum([0, *map(len, self.members)])
        chunks = [c for m in self.members for c in pa.chunked_array(m.names).chunks]
        self.names = pa.chunked_array(chunks, pa.large_string())

    def _of(self, i: int) -> tuple[Members, int]:
        shard = int(np.searchsorted(self._first, i, side="right")) - 1
        return self.members[shard], i - int(self._first[shard])

    def name(self, i: int) -> str:
        members, k = self._of(i)
        return f"{os.path.basename(members.at)}/{members.name(k)}"

    def path(self, i: int) -> str:
        members, k = self._of(i)
        return members.path(k)

    def load(self, i: int) -> bytes:
        members, k = self._of(i)
        try:
            return members.load(k)
        except Unreadable as error:
            raise Unreadable(self.name(i), error.why) from error

    def fingerprint(self) -> str:
        return digest(*(m.fingerprint() for m in self.members))


class Field(Store):
    """One field of each of some JSON objects."""

    def __init__(self, store: Store, field: str) -> None:
        self.store, self.field, self.names = store, field, store.names

    def name(self, i: int) -> str:
        return self.store.name(i)

    def path(self, i: int) -> str:
        return self.store.path(i)

    def load(self, i: int) -> bytes:
        try:
            found = json.loads(self.store.load(i))
        except ValueError as error:
            raise Unreadable(self.name(i), "it is not JSON") from error
        if not isinstance(found, dict) or not isinstance(found.get(self.field), str):
            raise Unreadable(self.name(i), f"it has no words in the field {self.field!r}")
        return str(found[self.field]).encode()

    def fingerprint(self) -> str:
        return digest(self.field, self.store.fingerprint())


def expanded(pattern: str) -> list[str]:
    """What braces stand for: "a-{000..002}.tar" and "{train,more}.tar" name several; without any, the pattern itself."""
    found = RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last, words = found.groups()
    if words is not None:
        each = words.split(",")
    else:
        each = [f"{k:0{len(first)}}" for k in range(int(first), int(last) + 1)]
    return [f"{pattern[: found.start()]}{e}{rest}" for e in each for rest in expanded(pattern[found.end() :])]


def named(what: str | Sequence[str]) -> tuple[Disk | Remote, list[str]] | None:
    """Where the archives are that a list, braces or wildcards name; None for what is no such thing. Raises RequestError
    where one of them is none, or does not exist."""
    listed = [os.path.expanduser(each.removeprefix("file://")) for each in ([what] if isinstance(what, str) else what)]
    if isinstance(what, str):
        several = expanded(what) != [what] or glob.has_magic(what)
        if not several or ending(expanded(what)[0]) not in archive.ENDINGS or os.path.exists(listed[0]):
            return None
    place: Disk | Remote = Disk()
    if "://" in listed[0]:
        import fsspec

        try:
            place = Remote(fsspec.core.url_to_fs(listed[0])[0])
            listed = [fsspec.core.url_to_fs(each)[1] for each in listed]
        except (ImportError, ValueError) as error:
            raise RequestError(f"The address {listed[0]} cannot be opened: {error}.") from error
    find = place.fs.glob if isinstance(place, Remote) else partial(glob.glob, recursive=True)
    each = [e for pattern in listed for e in expanded(pattern)]
    ats = [at for e in each for at in (sorted(find(e)) if glob.has_magic(e) else [e])]
    for at in ats:
        if ending(at) not in archive.ENDINGS:
            raise RequestError(f"Several paths are the shards of one set, which end in .tar or .zip; {at} does not.")
        if place.stamp(at) == "missing":
            raise RequestError(f"There is no archive {at}, one of the {len(ats)} that {what!r} names.")
    if not ats:
        raise RequestError(f"No archive matches {what!r}.")
    return place, [os.path.abspath(at) for at in ats] if isinstance(place, Disk) else ats


def open_shards(
    place: Disk | Remote, ats: Sequence[str], asked: str | None, name: str, modality: str | None = None
) -> Source:
    """Archives as one source: by key where they hold several modalities, else the files of most of them."""
    tables = [archive.members(place, at) for at in ats]
    ends = [endings(t["name"]) for t in tables]
    counts: Counter[str] = Counter()
    for some in ends:
        counts.update({e["values"]: e["counts"] for e in pc.value_counts(some).to_pylist()})
    if modality is None and (paired := _pairs(place, ats, tables, ends, counts, asked, name)) is not None:
        return paired
    reader = reader_for(counts, modality)
    if reader is None:
        return files(place, "", tables[0]["name"].slice(0, 0), dict(counts), asked, name, ", ".join(ats), modality)
    known = reader.endings | (reader.named if modality else frozenset())
    chosen = [_rows(e, known) for e in ends]
    store = _store(place, ats, tables, chosen)
    marks: list[int | str | None] = []
    for at, t, rows in zip(ats, tables, chosen, strict=True):
        marks += archive.marks(place, at, t, archive.keys(t["name"].take(pa.array(rows))))
    return read(store, reader, asked, name, os.path.dirname(ats[0]), archive.classes(marks))


def _rows(ends: pa.ChunkedArray, known: frozenset[str]) -> np.ndarray:
    found = pc.is_in(ends, value_set=pa.array(sorted(known), pa.large_string()))
    return np.flatnonzero(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy())


def _store(place: Disk | Remote, ats: Sequence[str], tables: list[pa.Table], chosen: list[np.ndarray]) -> Store:
    made = [Members(place, at, t.take(pa.array(rows))) for at, t, rows in zip(ats, tables, chosen, strict=True)]
    return made[0] if len(made) == 1 else Shards(made)


def _pairs(
    place: Disk | Remote,
    ats: Sequence[str],
    tables: list[pa.Table],
    ends: list[pa.ChunkedArray],
    counts: Counter[str],
    asked: str | None,
    name: str,
) -> Source | None:
    """Members of several modalities by key; None where there are none to speak of."""
    votes = {r: sum(counts[e] for e in r.endings) for r in READERS}
    most = max(votes.values())
    several = {r.modality: (r, r.endings) for r, n in votes.items() if n and n >= SHARE * most}
    field = None
    if "text" not in several and counts["json"] >= SHARE * most:
        field = _caption(_store(place, ats, tables, [_rows(e, frozenset({"json"})) for e in ends]))
        if field is not None:
            several["text"] = TextReader(), frozenset({"json"})
    if len(several) < 2:
        return None
    chosen: dict[str, list[np.ndarray]] = {m: [_rows(e, known) for e in ends] for m, (_, known) in several.items()}
    at, keys, doubles = _by_key(tables, chosen)
    whole = int(np.logical_and.reduce([a >= 0 for a in at.values()]).sum())
    if not enough(whole, (sum(map(len, rows)) for rows in chosen.values())):
        return None
    parts: dict[str, Source] = {}
    for m, (reader, _) in several.items():
        store = _store(place, ats, tables, chosen[m])
        parts[m] = FileSource(Field(store, field) if m == "text" and field else store, reader, name)
    pairs = Pairs(name, parts, at)
    if asked is not None:
        names = pa.array([pairs.id(i) for i in range(len(pairs))], pa.large_string())
        made: labels.Labels | None = labels.from_file(asked, os.path.dirname(ats[0]), names)
    else:
        marks = [archive.marks(place, p, t, k) for p, t, k in zip(ats, tables, keys, strict=True)]
        made = archive.classes([mark for some in marks for mark in some])
        made = made or labels.from_folders(pa.chunked_array(keys))
    return Pairs(name, parts, at, made, said(pairs.modalities, "keys", doubles))


def _by_key(
    tables: list[pa.Table], chosen: dict[str, list[np.ndarray]]
) -> tuple[dict[str, np.ndarray], list[pa.Array], int]:
    """The number of the member of each modality of every item, the keys of each shard, and how many members share key
    and modality with another."""
    at: dict[str, list[np.ndarray]] = {m: [] for m in chosen}
    keys, doubles = [], 0
    before = dict.fromkeys(chosen, 0)
    for shard, t in enumerate(tables):
        mine = {m: archive.keys(t["name"].take(pa.array(rows[shard]))) for m, rows in chosen.items()}
        every = pc.unique(pa.chunked_array([k for some in mine.values() for k in some.chunks], pa.large_string()))
        every = every.take(pc.sort_indices(every))
        for m, some in mine.items():
            found = pc.index_in(every, value_set=some.combine_chunks())
            rows = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            doubles += len(some) - int((rows >= 0).sum())
            at[m].append(np.where(rows >= 0, rows + before[m], -1))
            before[m] += len(some)
        keys.append(every)
    return {m: np.concatenate(some) for m, some in at.items()}, keys, doubles


def _caption(store: Store) -> str | None:
    """The field of the first JSON members that holds a caption."""
    for i in range(min(16, len(store))):
        try:
            found = json.loads(store.load(i))
        except (ValueError, Unreadable):
            continue
        field = next((f for f in CAPTIONS if isinstance(found, dict) and isinstance(found.get(f), str)), None)
        if field is not None:
            return field
    return None
