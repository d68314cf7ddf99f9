"""Series as float32 [c t]: CSV files of one series each, long tables, aeon's .ts files and WFDB records.

A value that is missing is NaN, and stays so: the tokenizer passes over it.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Sample
from headwater.data.labels import Labels, encode
from headwater.data.reader import Reader
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Remote, unpack

TIME = ("time", "timestamp", "date", "datetime", "t")
UNEVEN = 0.01  # steps that differ by more than this share are resampled
WINDOW = 256  # samples of a piece of a long series


def columns(table: pa.Table, item: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(values [c t], times in seconds or steps). Raises `Unreadable` for a column that is no numbers, and for times that
    run backwards."""
    time = next((c for c in table.column_names if c.lower() in TIME), None)
    values = []
    for name in table.column_names:
        if name == time:
            continue
        kind = table.schema.field(name).type
        if not (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_null(kind)
            or pa.types.is_boolean(kind)
        ):
            raise Unreadable(item, f"the column {name} holds {kind}; a series is made of numbers")
        values.append(table[name].cast(pa.float64(), safe=False).to_numpy())
    if not values or not table.num_rows:
        raise Unreadable(item, "it has no column of numbers" if not values else "it has no rows")
    if time is None:
        return np.stack(values), None
    stamps = table[time]
    if pa.types.is_temporal(stamps.type):
        stamps = pc.divide(stamps.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    elif not (pa.types.is_integer(stamps.type) or pa.types.is_floating(stamps.type)):
        raise Unreadable(item, f"the times in the column {time} are {stamps.type}, neither numbers nor dates")
    at = stamps.cast(pa.float64(), safe=False).to_numpy()
    if (np.diff(at) <= 0).any():
        raise Unreadable(item, f"the times in the column {time} run backwards or stand still")
    return np.stack(values), at


def evenly(values: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """The series at its usual step: between uneven times by linear interpolation; NaN within gaps of three steps and more."""
    if times is None or len(times) < 3:
        return values
    steps = np.diff(times)
    step = float(np.median(steps))
    if np.abs(steps - step).max() <= UNEVEN * step:
        return values
    at = times[0] + step * np.arange(round((times[-1] - times[0]) / step) + 1)
    known = [
        np.interp(at, times[~np.isnan(row)], row[~np.isnan(row)]) if (~np.isnan(row)).any() else at * np.nan
        for row in values
    ]
    after = np.searchsorted(times, at, side="left").clip(0, len(times) - 1)
    before = (np.searchsorted(times, at, side="right") - 1).clip(0)
    gap = (times[after] - times[before]) > 3 * step
    return np.where(gap, np.nan, np.stack(known))


@dataclass(frozen=True)
class SeriesReader(Reader):
    """One series per file: the columns of a CSV are its channels, but for a column of times; or a WFDB record."""

    modality = "series"
    endings = frozenset[str]()
    named = frozenset({"csv", "tsv", "parquet"})

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c t"]:
        from headwater.data.table import parsed

        try:
            table = parsed(data)
        except RequestError as error:
            raise Unreadable(item, str(error)) from error
        values = evenly(*columns(table, item))
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))


class Pieces(Source):
    """Series in memory, of their own lengths."""

    modalities = ("series",)

    def __init__(
        self,
        name: str,
        values: list[np.ndarray],
        labels: Labels | None = None,
        ids: list[str] | None = None,
        at: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.values, self._ids, self._at, self.notes = name, values, ids, at, notes
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, notes + labels.notes

    def __len__(self) -> int:
        return len(self.values)

    def read(self, i: int) -> dict[str, Sample]:
        return {"series": torch.from_numpy(np.ascontiguousarray(self.values[i], np.float32))}

    def id(self, i: int) -> str:
        return str(i) if self._ids is None else self._ids[i]

    def path(self, i: int) -> str:
        return self._at

    @property
    def fingerprint(self) -> str:
        return digest(*(np.ascontiguousarray(v).tobytes() for v in self.values))


def open_table(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """A table with a column named id or series: one series per value of it. Otherwise one long series, cut into pieces of
    256 samples, half over the next."""
    from headwater.data.table import arrow_table

    table = arrow_table(at, place)
    key = next((c for c in table.column_names if c.lower() in ("id", "series", "unique_id")), None)
    try:
        if key is None:
            values = evenly(*columns(table if labels is None else table.drop_columns([labels]), name))
            starts = range(0, max(1, values.shape[1] - WINDOW + 1), WINDOW // 2)
            note = f"One series of {values.shape[1]} samples, read as pieces of {WINDOW}, each half over the next."
            pieces = [values[:, s : s + WINDOW] for s in starts]
            ids = [f"{s}-{s + p.shape[1]}" for s, p in zip(starts, pieces, strict=True)]
            return Pieces(name, pieces, ids=ids, at=place.url(at), notes=(note,))
        codes = table[key].combine_chunks().dictionary_encode()
        names = [str(v) for v in codes.dictionary.to_pylist()]
        order = codes.indices.to_numpy()
        found, marks = [], []
        rest = table.drop_columns([key])
        for k in range(len(names)):
            rows = rest.take(np.flatnonzero(order == k))
            if labels is not None:
                marks.append(rows[labels][0].as_py())
                rows = rows.drop_columns([labels])
            found.append(evenly(*columns(rows, names[k])))
    except Unreadable as error:
        raise RequestError(f"The series in {at} cannot be read: {error.item}: {error.why}.") from error
    made = None if labels is None else encode(pa.array(marks), f"The column {labels}")
    return Pieces(name, found, made, names, place.url(at))


def open_ts(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """aeon's and sktime's format: a header of @lines, then a series per line, channels apart by colons, the class last."""
    text = place.read(at).decode(errors="replace")
    header, _, body = text.partition("@data")
    if not body:
        raise RequestError(f"The file {at} has no line @data; it is no series in aeon's format.")
    has_class = any(line.lower().startswith("@classlabel true") for line in header.splitlines())
    has_target = any(line.lower().startswith("@targetlabel true") for line in header.splitlines())
    values, marks = [], []
    for number, line in enumerate(body.strip().splitlines()):
        parts = line.strip().split(":")
        if has_class or has_target:
            marks.append(parts.pop())
        try:
            rows = [np.array([np.nan if v.strip() == "?" else float(v) for v in p.split(",")]) for p in parts]
        except ValueError as error:
            raise RequestError(f"Series {number} of {at} is not made of numbers ({error}).") from error
        longest = max(map(len, rows))
        values.append(np.stack([np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in rows]))
    if not values:
        raise RequestError(f"The file {at} holds no series.")
    made = None
    if marks:
        made = encode(pa.array([float(m) for m in marks] if has_target else marks), f"The labels of {name}")
    return Pieces(name, values, made, at=place.url(at))


@dataclass(frozen=True)
class WfdbReader(Reader):
    """Records of PhysioNet's format: a header and its signals, at the rate that is settled by the first."""

    modality = "series"
    endings = frozenset({"hea"})
    beside = frozenset({"dat", "atr"})

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c t"]:
        files = unpack(data)
        if files is None:
            raise Unreadable(item, "a record is a header and its signals; the header alone was given")
        wfdb = _wfdb()
        stem = Path(item).stem
        with TemporaryDirectory() as aside:
            for file, content in files:
                (Path(aside) / Path(file).name).write_bytes(content)
            try:
                values = wfdb.rdrecord(str(Path(aside) / stem)).p_signal
            except Exception as error:  # wfdb raises many kinds on damaged files
                raise Unreadable(item, f"the record cannot be read ({type(error).__name__}: {error})") from error
        return torch.from_numpy(np.ascontiguousarray(values.T, np.float32))


def _wfdb() -> Any:
    try:
        import wfdb
    except ImportError as error:
        raise RequestError("WFDB records need wfdb: pip install 'headwater[medical]'") from error
    return wfdb
