"""Series as float32 [c t] from files of one series each: the columns of a CSV or Parquet file are its channels.

A value that is missing is NaN, and stays so: the tokenizer passes over it.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data.reader import Reader

TIME = ("time", "timestamp", "date", "datetime", "t")
UNEVEN = 0.01  # steps that differ by more than this share are resampled
GAP = 3  # so many steps without a value are a gap, which is not bridged
SPARSE = 100  # at most so many samples are made of one
LOOK = 16  # files that are parsed to settle how to read all
LONG, PIECE = 4096, 1024  # samples: longer files are cut into pieces of so many


@dataclass(frozen=True)
class Recording:
    """names of the channels, values [c t], and times in seconds or in whatever unit they come; None: one step each."""

    names: tuple[str, ...]
    values: Float64[np.ndarray, "c t"]
    times: Float64[np.ndarray, " t"] | None = None

    def step(self) -> float:
        return 0.0 if self.times is None or len(self.times) < 2 else float(np.median(np.diff(self.times)))


@dataclass(frozen=True)
class SeriesFiles(Reader):
    """Files of one series each. Uneven times are resampled to their usual step.

    columns          the channels by name, in this order; none: whatever a file has, as it stands
    step             the time from sample to sample; 0: each file's own
    window, stride   a file longer than `window` samples is cut into pieces of that length, beginning every `stride`
                     samples (0: one after the other); what is left at the end is left out. 0: every file whole
    """

    columns: tuple[str, ...] = ()
    step: float = 0.0
    window: int = 0
    stride: int = 0
    modality = "series"

    @abstractmethod
    def recording(self, data: bytes, item: str) -> Recording:
        """What the file says. Raises `Unreadable`."""

    def length(self, data: bytes) -> int:
        """Samples at the wanted step. Raises `Unreadable`."""
        return self.decode(data, "").shape[1]

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c t"]:
        found = self.recording(data, item)
        if lost := [c for c in self.columns if c not in found.names]:
            raise Unreadable(item, f"it has no column {', '.join(lost)}; it has {', '.join(found.names)}")
        same = not self.columns or self.columns == found.names
        values = found.values if same else found.values[[found.names.index(c) for c in self.columns]]
        values = evenly(values, found.times, item, self.step)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def pieces(self, file: BufferedIOBase) -> int:
        if not self.window:
            return 1
        try:
            return len(windows(self.length(file.read()), self.window, self.stride))
        except Unreadable:
            return 1

    def piece(self, file: BufferedIOBase, item: str, k: int) -> Float32[Tensor, "c t"]:
        whole = self.decode(file.read(), item)
        start, end = windows(whole.shape[1], self.window, self.stride)[k]
        return whole[:, start:end].clone()

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["SeriesFiles", tuple[str, ...]]:
        found: list[Recording] = []
        for file in files[:LOOK]:
            try:
                found.append(self.recording(file.read(), ""))
            except Unreadable:
                continue
        if not found:
            return self, ()
        notes: list[str] = []
        reader = self
        sets = Counter(r.names for r in found)
        usual, count = sets.most_common(1)[0]
        if not self.columns and len(usual) > 1 and 2 * count > len(found):
            reader = replace(reader, columns=usual)
            if others := len(found) - count:
                notes.append(
                    f"{others} of {len(found)} series looked at have other columns than {', '.join(usual)}, which are read."
                )
        steps = Counter(float(f"{r.step():.6g}") for r in found if r.step())
        if steps and not self.step:
            reader = replace(reader, step=steps.most_common(1)[0][0])
        if changed := sum(r.times is not None and not even(r.times, reader.step) for r in found):
            notes.append(f"{changed} of {len(found)} series looked at are resampled to a step of {reader.step:g}.")
        if self.step and (silent := sum(r.times is None for r in found)):
            notes.append(
                f"{silent} of {len(found)} series looked at say no times; taken to be at a step of {self.step:g}."
            )
        longest = max(r.values.shape[1] for r in found)
        if longest > LONG and not self.window:
            reader = replace(reader, window=PIECE)
        if reader.window and longest > reader.window:
            every = reader.stride or reader.window
            notes.append(
                f"Series of up to {longest} samples are cut into pieces of {reader.window}, one every {every}; "
                "reading={'window': ..., 'stride': ...} cuts them otherwise."
            )
        return reader, tuple(notes)

    def facts(self) -> dict[str, Any]:
        return {"gaps": True}  # any of the files may have some

    def reading(self) -> dict[str, Any]:
        return {"columns": [*self.columns], "step": self.step, "window": self.window, "stride": self.stride}

    def conform(self, wanted: Mapping[str, Any]) -> "SeriesFiles":
        made = {**wanted, "columns": tuple(wanted["columns"])} if "columns" in wanted else wanted
        return replace(self, **made)


@dataclass(frozen=True)
class SeriesReader(SeriesFiles):
    """CSV and Parquet files: every column a channel, but for one named time, timestamp, date, datetime or t."""

    endings = frozenset[str]()
    named = frozenset({"csv", "tsv", "parquet"})

    def recording(self, data: bytes, item: str) -> Recording:
        from headwater.data.table import parsed

        try:
            return recorded(parsed(_with_header(data)), item, self.columns)
        except RequestError as error:
            raise Unreadable(item, str(error)) from error


def recorded(table: pa.Table, item: str, wanted: Sequence[str] = ()) -> Recording:
    """A table as a series. Raises `Unreadable` for a column that holds no numbers, for times that run backwards, and where
    there is nothing. Columns that are not among those `wanted` are not looked at."""
    at = next((j for j, c in enumerate(table.column_names) if c.lower() in TIME), None)
    names, values = [], []
    for j, name in enumerate(table.column_names):
        if j == at or (wanted and name not in wanted):
            continue
        kind = table.schema.field(j).type
        if not any(
            test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_null, pa.types.is_boolean)
        ):
            raise Unreadable(item, f"the column {name} holds {kind}; a series is made of numbers")
        names.append(name)
        column = table.column(j)
        values.append((column if kind == pa.float64() else column.cast(pa.float64(), safe=False)).to_numpy())
    if not values or not table.num_rows:
        raise Unreadable(item, "it has no column of numbers" if not values else "it has no rows")
    times = None if at is None else _times(table.column(at), table.column_names[at], item)
    return Recording(tuple(names), np.stack(values), times)


def _times(column: pa.ChunkedArray, name: str, item: str) -> Float64[np.ndarray, " t"]:
    if pa.types.is_temporal(column.type):
        column = pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise Unreadable(item, f"the times in the column {name} are {column.type}, neither numbers nor dates")
    times = column.cast(pa.float64(), safe=False).to_numpy()
    if np.isnan(times).any():
        raise Unreadable(item, f"{int(np.isnan(times).sum())} times in the column {name} are missing")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        row = int(back[0]) + 1
        raise Unreadable(
            item,
            f"the times in the column {name} run backwards or stand still at row {row} ({times[row - 1]:g}, {times[row]:g})",
        )
    return times


def _with_header(data: bytes) -> bytes:
    """A CSV file whose first line holds nothing but numbers has no header; it gets one."""
    line = data[: 1 << 16].split(b"\n", 1)[0]
    mark = max(b",;\t", key=line.count)
    cells = line.strip().split(bytes([mark]))
    try:
        [float(c) for c in cells]
    except ValueError:
        return data
    return bytes([mark]).join(b"column %d" % j for j in range(len(cells))) + b"\n" + data


def windows(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of each piece of a series; all of it where it is no longer than a window."""
    if not window or length <= window:
        return [(0, length)]
    return [(s, s + window) for s in range(0, length - window + 1, stride or window)]


def even(times: Float64[np.ndarray, " t"], step: float = 0.0) -> bool:
    """Whether all steps are alike and, if a step is given, are that one."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    wanted = step or usual
    return bool((np.abs(steps - wanted) <= UNEVEN * wanted).all())


def evenly(
    values: Float64[np.ndarray, "c t"], times: Float64[np.ndarray, " t"] | None, item: str = "", step: float = 0.0
) -> Float64[np.ndarray, "c s"]:
    """The series at `step`, or at its usual one: linear between known values, the mean of a step where they lie closer,
    NaN in gaps of three steps and more. What is even already stays as it is.

    Raises `Unreadable` where the times leave nearly everything out."""
    if times is None or len(times) < 2 or even(times, step):
        return values
    usual = float(np.median(np.diff(times)))
    wanted = step or usual
    count = int(np.floor((times[-1] - times[0]) / wanted + UNEVEN)) + 1
    if count > SPARSE * len(times):
        raise Unreadable(
            item, f"{len(times)} samples are spread over {count} steps of {wanted:g}; the times must be wrong"
        )
    at = times[0] + wanted * np.arange(count)
    out = np.full((len(values), count), np.nan)
    for row, made in zip(values, out, strict=True):
        known = ~np.isnan(row)
        if not known.any():
            continue
        when, what = times[known], row[known]
        made[:] = np.interp(at, when, what, left=np.nan, right=np.nan)
        after = np.searchsorted(when, at).clip(0, len(when) - 1)
        before = (np.searchsorted(when, at, side="right") - 1).clip(0)
        made[(when[after] - when[before]) > GAP * max(usual, wanted)] = np.nan
        if wanted > 1.5 * usual:
            bins = np.floor((when - times[0]) / wanted + 0.5).astype(np.int64)
            n, total = (np.bincount(bins, w, count + 1)[:count] for w in (None, what))
            made[n > 0] = (total / np.maximum(n, 1))[n > 0]
    return out
