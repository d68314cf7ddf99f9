"""Zip and tar archives: where each member lies is found once and kept, so that threads can then read at random.

WebDataset naming is understood: members that share their path up to the first dot of the file name are one sample, so
"0001.cls" or "0001.json" holds the label of "0001.jpg".
"""

import json
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError
from headwater.data.index import CHUNK, Index, kept
from headwater.data.labels import LABEL_COLUMNS, Labels, encode
from headwater.data.stores import Disk, Members, Remote

ENDINGS = frozenset({"zip", "tar"})
PACKED = ("gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst")
SCHEMA = pa.schema(
    [
        ("name", pa.large_string()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("method", pa.int16()),
        ("checksum", pa.int64()),
    ]
)


def members(place: Disk | Remote, at: str) -> pa.Table:
    """One row per file in the archive, in its order. Raises `RequestError` if it is damaged or cut short."""
    stamp = place.stamp(at)

    def build() -> tuple[Index, bool]:
        with open(at, "rb") if isinstance(place, Disk) else place.fs.open(at, "rb") as file:
            rows = _zip(file, at) if zipfile.is_zipfile(file) else _tar(file, at)
            return Index(pa.Table.from_batches(_batches(rows), SCHEMA), {"stamp": stamp}), True

    return kept(f"archive:{place.url(at)}", lambda facts: facts["stamp"] == stamp, build).table


Row = tuple[str, int, int, int, int]


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == CHUNK:
            yield _batch(part)
            part = []
    yield _batch(part)


def _batch(part: list[Row]) -> pa.RecordBatch:
    columns = list(zip(*part, strict=True)) or [()] * len(SCHEMA)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _hidden(name: str) -> bool:
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in name.split("/"))


def _zip(file: Any, at: str) -> Iterator[Row]:
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir() or _hidden(info.filename):
                    continue
                if info.flag_bits & 1:
                    raise RequestError(f"The archive {at} is encrypted; unpack it first.")
                yield info.filename, info.header_offset, info.compress_size, info.compress_type, info.CRC
    except zipfile.BadZipFile as error:
        raise RequestError(f"The archive {at} is damaged or cut short ({error}).") from error


def _tar(file: Any, at: str) -> Iterator[Row]:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep an object per member
                if info.isreg() and not info.issparse() and not _hidden(info.name):
                    yield info.name.removeprefix("./"), info.offset_data, info.size, -1, -1
    except tarfile.ReadError as error:
        raise RequestError(f"The archive {at} is damaged, cut short, or neither zip nor tar ({error}).") from error


def keys(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each name up to the first dot of its last part: what the members of one sample share."""
    found = pc.replace_substring_regex(names, r"^((?:.*/)?[^/.]+)\.[^/]*$", r"\1")
    return pa.chunked_array(found, pa.large_string()) if isinstance(found, pa.Array) else found


def marks(place: Disk | Remote, at: str, table: pa.Table, wanted: pa.Array | pa.ChunkedArray) -> list[int | str | None]:
    """The label of each key from its .cls or .json member; None where there is none."""
    names = table["name"]
    for end in ("cls", "json"):
        rows = np.flatnonzero(pc.ends_with(names, f".{end}").to_numpy())
        if not len(rows):
            continue
        found = pc.index_in(wanted, value_set=keys(names.take(pa.array(rows))).combine_chunks()).to_pylist()
        store = Members(place, at, table.take(pa.array(rows)))
        made = [None if i is None else _label(store.load(i), end) for i in found]
        if any(mark is not None for mark in made):
            return made
    return [None] * len(wanted)


def classes(marks: list[int | str | None]) -> Labels | None:
    """Labels of what `marks` found; None where that is nothing."""
    if all(mark is None for mark in marks):
        return None
    try:
        typed = pa.array(marks)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers and words mixed
        typed = pa.array([None if mark is None else str(mark) for mark in marks])
    return encode(typed, "the .cls or .json members", targets=False)


def _label(data: bytes, end: str) -> int | str | None:
    try:
        if end == "cls":
            words = data.decode().strip()
            return int(words) if words.lstrip("-").isdigit() else (words or None)
        facts = json.loads(data)
    except (UnicodeDecodeError, ValueError):
        return None
    values = [facts[c] for c in (*LABEL_COLUMNS, "cls") if c in facts] if isinstance(facts, dict) else [facts]
    return values[0] if values and isinstance(values[0], int | str) else None
