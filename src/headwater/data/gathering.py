"""Many files in one place become a source: the reader of most of them, or pairs by common names."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError
from headwater.data import index, labels
from headwater.data.files import FileSource
from headwater.data.labels import Labels
from headwater.data.pairs import SHARE, Pairs, matched, said
from headwater.data.reader import Reader
from headwater.data.readers import ENDINGS, OWN, READERS, reader_for
from headwater.data.source import Source
from headwater.data.stores import Disk, Files, Folders, Remote, Stems, Store
from headwater.parts.modalities import MODALITIES


def files(
    place: Disk | Remote,
    root: str,
    names: pa.Array | pa.ChunkedArray,
    others: dict[str, int],
    asked: str | None,
    name: str,
    shown: str,
    modality: str | None,
) -> Source:
    """The files that the reader of most of them knows; those of other readers are left out, and said so."""
    if not len(names) and not others:
        raise RequestError(f"There are no files in {shown}.")
    ends = endings(names)
    counts = {e["values"]: e["counts"] for e in pc.value_counts(ends).to_pylist()}
    reader = reader_for(counts, modality)
    if reader is None:
        seen = Counter(counts | dict(others)).most_common(8)
        told = ", ".join(f"{n} .{e}" if e else f"{n} without ending" for e, n in seen)
        wanted = [r for r in READERS if modality in (None, r.modality) and (r.endings or modality)]
        listed = "; ".join(
            f"{MODALITIES[r.modality].plural} {_few(r.endings | (r.named if modality else set()))}" for r in wanted
        )
        raise RequestError(f"No file in {shown} can be read{_as(modality)}: there are {told}; expected {listed}.")
    sliced = sum(counts.get(e, 0) for e in reader.slices) > sum(counts.get(e, 0) for e in reader.endings)
    known = reader.slices if sliced else reader.endings | (reader.named if modality else frozenset())
    mine = pc.is_in(ends, value_set=pa.array(sorted(known), pa.large_string()))
    left = Counter({e: n for e, n in counts.items() if e in OWN - known})
    notes: tuple[str, ...] = ()
    if left:
        told = ", ".join(f"{n:,} .{e}" for e, n in left.most_common(8))
        notes = (f"Read as {MODALITIES[reader.modality].plural}; other files are left out: {told}.",)
    if modality is None and left and (paired := _pairs(place, root, names, counts, asked, name)) is not None:
        return paired
    files: Store = Files(place, root, names.filter(mine))
    if sliced:
        files = Folders(Files(place, root, names.filter(mine)))
    elif reader.beside:
        files = Stems(Files(place, root, names), reader.endings, reader.beside)
    return read(files, reader, asked, name, root, notes=notes)


def _pairs(
    place: Disk | Remote,
    root: str,
    names: pa.Array | pa.ChunkedArray,
    counts: Mapping[str, int],
    asked: str | None,
    name: str,
) -> Source | None:
    """Files of several modalities with common stems, each with its partners; None where there are none to speak of."""
    votes = {r: sum(counts.get(e, 0) for e in r.endings) for r in READERS}
    most = max(votes.values())
    several = [r for r, n in votes.items() if n >= SHARE * most]
    if len({r.modality for r in several}) != len(several) or len(several) < 2:
        return None
    listed = names.to_pylist()
    groups = {r.modality: [n for n in listed if index.ending(n) in r.endings] for r in several}
    found = matched(groups)
    if found is None:
        return None
    stores = {m: Files(place, root, pa.array(some, pa.large_string())) for m, some in groups.items()}
    parts = {r.modality: FileSource(stores[r.modality], r, name) for r in several}
    pairs = Pairs(name, parts, found.at)
    if asked is None:
        made = labels.from_folders(pa.array(found.keys, pa.large_string()))
    else:
        made = labels.from_file(asked, root, pa.array([pairs.id(i) for i in range(len(pairs))], pa.large_string()))
    return Pairs(name, parts, found.at, made, said(pairs.modalities, "names", found.doubles))


def chosen(names: Iterator[str], others: Counter[str]) -> pa.Array:
    """The names of files that a reader knows, sorted; the endings of the rest are counted in `others`."""

    def known() -> Iterator[str]:
        for name in names:
            if index.ending(name) in ENDINGS:
                yield name
            else:
                others[index.ending(name)] += 1

    found = index.names_of(index.chunks(known()))
    return found.take(pc.sort_indices(found))


def endings(names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """What follows the last dot of each name, in small letters."""
    return pc.utf8_lower(pc.replace_substring_regex(names, r"^.*?\.([^./]*)$|^.*$", r"\1"))


def _few(known: frozenset[str]) -> str:
    some = " ".join(f".{e}" for e in sorted(known)[:12])
    return f"({some}{' ...' if len(known) > 12 else ''})"


def _as(modality: str | None) -> str:
    return "" if modality is None else f" as {modality}"


def read(
    store: Store,
    reader: Reader,
    asked: str | None,
    name: str,
    root: str,
    given: Labels | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """The source of these files, with labels as asked, as given, or from the names of folders."""
    if asked is not None:
        given = labels.from_file(asked, root, store.names)
    elif given is None:
        given = labels.from_folders(store.names)
    return FileSource(store, reader, name, given, notes)
