"""Tables that name files, or hold them: each row is an item of the modalities that its columns hold.

A column of paths, relative to the table, gives the modality that the endings of the files say; a column of captions
gives texts, and numbers and categories beside files, where there are no captions, give table rows. `columns` says it
outright. An empty cell is a modality that the item lacks; a file that does not exist makes the item unreadable.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError, unknown
from headwater.data import table, text
from headwater.data.files import FileSource
from headwater.data.image import ImageReader
from headwater.data.index import ending
from headwater.data.labels import FILE_COLUMNS, LABEL_COLUMNS
from headwater.data.pairs import SHARE, Pairs
from headwater.data.reader import Reader
from headwater.data.readers import READERS, reader_for
from headwater.data.source import Source, spread
from headwater.data.stores import Column, Disk, Files, Remote
from headwater.parts.modalities import MODALITIES

ENDINGS = table.ENDINGS | table.LINES
CAPTIONS = ("caption", "text", "description", "sentence", "title", "report", "prompt")
NUMBERING = (
    "",
    "index",
    "unnamed: 0",
    "split",
    "fold",
    "set",
)  # columns that count or sort rows and say nothing of them
LOOKED_AT = 100  # cells that say what a column holds
WORDY = 2.0  # spaces in a cell, on average, from which a column of words is one of texts
HEAD = 1 << 16  # bytes of a file of JSON lines that say whether it names files

Columns = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class _Sheet:
    """A table and where it lies."""

    rows: pa.Table
    place: Disk | Remote
    at: str
    name: str

    @property
    def root(self) -> str:
        return os.path.dirname(self.at) if isinstance(self.place, Disk) else self.at.rpartition("/")[0]

    def blobs(self, column: str) -> pa.ChunkedArray | None:
        """The column as files in it; None if it holds none."""
        cells = self.rows[column]
        if not table.encoded(cells.type):
            return None
        cells = pc.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells
        return cells if cells.null_count < len(cells) else None

    def words(self, column: str) -> pa.ChunkedArray | None:
        """The column as strings, blank ones as none, or the names of files in it; None if it holds something else."""
        cells = self.rows[column]
        if table.encoded(cells.type) and pa.types.is_struct(cells.type) and cells.type.get_field_index("path") >= 0:
            cells = pc.struct_field(cells, "path")
        if pa.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
            return None
        cells = cells.cast(pa.large_string())
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), pa.scalar(None, pa.large_string()), cells)

    def some(self, column: str) -> list[str]:
        """A few of the strings of a column."""
        cells = self.words(column)
        kept = [] if cells is None else cells.drop_null()
        return [kept[i].as_py() for i in spread(len(kept), LOOKED_AT)]

    def held(self, column: str) -> Reader | None:
        """The reader of the files that a column holds or names; None where it does neither."""
        some = self.some(column)
        reader = reader_for(_endings(some))
        if self.blobs(column) is not None:
            return reader or ImageReader()
        if reader is None:
            return None
        fitting = sum(ending(v) in reader.endings for v in some)
        if column.lower() in FILE_COLUMNS and fitting == len(some):
            return reader
        there = (self.place.stamp(os.path.join(self.root, v)) != "missing" for v in some)
        return reader if fitting >= SHARE * len(some) and any(there) else None

    def caption(self, columns: Iterable[str]) -> str | None:
        """The column of texts: the one called so, else that with the longest cells of several words."""
        found: dict[str, float] = {}
        for column in columns:
            some = self.some(column)
            if some and column.lower() in CAPTIONS:
                return column
            if some and np.mean([v.strip().count(" ") for v in some]) >= WORDY:
                found[column] = float(np.mean([len(v) for v in some]))
        return max(found, key=lambda c: found[c], default=None)

    def source(self, modality: str, columns: list[str]) -> tuple[Source, np.ndarray]:
        """What these columns hold, and the number therein of each row, -1 where its cell is empty."""
        every = np.arange(self.rows.num_rows)
        url = self.place.url(self.at)
        if modality == "table":
            return table.from_table(self.rows.select(columns), None, self.name, url), every
        (column,) = columns
        some, cells, paths = self.some(column), self.blobs(column), self.words(column)
        reader = reader_for(_endings(some), modality)
        if cells is not None:
            reader = reader or next(r for r in READERS if r.modality == modality)
            source = FileSource(Column(cells, url, self.place.stamp(self.at)), reader, self.name)
            return source, np.where(pc.is_valid(cells).to_numpy(), every, -1)
        if paths is None:
            kind = self.rows.schema.field(column).type
            raise RequestError(f"The column {column} of {self.at} holds {kind}, not {MODALITIES[modality].plural}.")
        given = pc.is_valid(paths).to_numpy()
        if modality == "text" and ((held := self.held(column)) is None or held.modality != "text"):
            return text.Texts(self.name, text.Cells(paths), at=url), np.where(given, every, -1)
        if reader is None:
            told = f"it holds such as {some[0]!r}" if some else "it is empty"
            raise RequestError(f"The column {column} of {self.at} names no {MODALITIES[modality].plural}; {told}.")
        store = Files(self.place, self.root, paths.drop_null().combine_chunks())
        return FileSource(store, reader, self.name), np.where(given, np.cumsum(given) - 1, -1)


def _endings(names: Iterable[str]) -> Counter[str]:
    return Counter(ending(name) for name in names)


def open_table(
    place: Disk | Remote,
    at: str,
    labels: str | None,
    name: str,
    modality: str | None = None,
    columns: Columns | None = None,
) -> Source:
    """A table file as what its columns hold, or those named; as rows of numbers where none names files."""
    sheet = _Sheet(table.loaded(place, at), place, at, name)
    names = sheet.rows.column_names
    if len(set(names)) < len(names) or modality == "table":
        return table.from_table(sheet.rows, labels, name, place.url(at))
    label = labels or next((c for c in names if c.lower() in LABEL_COLUMNS and c not in _flat(columns)), None)
    notes: tuple[str, ...] = ()
    if columns is not None:
        roles = _named(sheet, columns)
    else:
        roles, left = _seen(sheet, label)
        if not roles and modality is None:
            return table.from_table(sheet.rows, labels, name, place.url(at))
        if modality is not None and modality not in roles:
            raise RequestError(f"No column of {at} names {MODALITIES[modality].plural}; it has {', '.join(names)}.")
        if modality is not None:
            roles = {modality: roles[modality]}
        elif left:
            notes = (f"Columns left out: {', '.join(left)}; columns= says what to read.",)
    if label is not None and labels is None:
        notes = (f"Labels come from the column {label}.", *notes)
    if len(roles) > 1:
        told = " and ".join(f"{MODALITIES[m].plural} ({', '.join(c)})" for m, c in roles.items())
        notes = (f"Each row is read as {told}.", *notes)
    made = None if label is None else table.label_column(sheet.rows, label, at)
    found = {m: sheet.source(m, c) for m, c in roles.items()}
    if len(found) == 1:
        ((source, rows),) = found.values()
        if isinstance(source, FileSource) and len(source.store) == len(rows):
            return FileSource(source.store, source.reader, name, made, notes)
    mark = f"{label} {roles}"
    return Pairs(name, {m: s for m, (s, _) in found.items()}, {m: r for m, (_, r) in found.items()}, made, notes, mark)


def _flat(columns: Columns | None) -> list[str]:
    return [c for some in (columns or {}).values() for c in ([some] if isinstance(some, str) else some)]


def _named(sheet: _Sheet, columns: Columns) -> dict[str, list[str]]:
    for modality, asked in columns.items():
        if modality not in MODALITIES:
            raise unknown("modality", modality, MODALITIES)
        if modality != "table" and len(_flat({modality: asked})) != 1:
            raise RequestError(f"columns: {modality} is read from one column; got {asked!r}.")
    for column in _flat(columns):
        if column not in sheet.rows.column_names:
            raise unknown(f"column of {sheet.at}", column, sheet.rows.column_names)
    if not columns:
        raise RequestError("columns names at least one modality and its column; got none.")
    return {modality: _flat({modality: asked}) for modality, asked in columns.items()}


def _seen(sheet: _Sheet, label: str | None) -> tuple[dict[str, list[str]], list[str]]:
    """The columns of each modality, and those left out; nothing where no column names files."""
    names = [c for c in sheet.rows.column_names if c != label]
    roles: dict[str, list[str]] = {}
    for column in names:
        reader = sheet.held(column)
        if reader is not None:
            roles.setdefault(reader.modality, [column])
    if not roles:
        return {}, []
    rest = [c for c in names if c not in _flat(roles) and sheet.held(c) is None]
    if "text" not in roles and (caption := sheet.caption(rest)) is not None:
        roles["text"] = [caption]
    if "text" not in roles:
        cells = [c for c in rest if c.lower() not in (*NUMBERING, *FILE_COLUMNS)]
        cells = [c for c in cells if table.columns_of(c, sheet.rows[c])[0]]
        roles |= {"table": cells} if cells else {}
    return roles, [c for c in names if c not in _flat(roles)]


def open_named(what: object, labels: str | None, name: str | None, columns: Columns) -> Source:
    """The table at a path or URL, with its columns named by modality."""
    if not isinstance(what, str | os.PathLike) or ending(os.fspath(what)) not in ENDINGS:
        raise RequestError(f"columns= names columns of a table ({' '.join(sorted(ENDINGS))}); got {what!r}.")
    path = os.fspath(what)
    if "://" in path and not path.startswith("file://"):
        import fsspec

        fs, at = fsspec.core.url_to_fs(path)
        return open_table(Remote(fs), at, labels, name or at.rpartition("/")[2], columns=columns)
    at = os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    if not os.path.isfile(at):
        raise RequestError(f"There is no file {path!r}.")
    return open_table(Disk(), at, labels, name or os.path.basename(at), columns=columns)


def open_lines(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """JSON lines: those that name files, as what their fields hold; else texts."""
    head = place.read(at, 0, HEAD)
    whole = head if len(head) < HEAD else head.rpartition(b"\n")[0]
    try:
        rows = pa.Table.from_pylist([json.loads(line) for line in whole.splitlines()[:LOOKED_AT] if line.strip()])
    except (ValueError, TypeError, AttributeError, pa.ArrowException):
        return text.open_lines(place, at, labels, name)
    if any(_Sheet(rows, place, at, name).held(c) is not None for c in rows.column_names if c != labels):
        return open_table(place, at, labels, name)
    return text.open_lines(place, at, labels, name)
