"""Series in memory: one table that holds many of them, or a long one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headwater.core.errors import RequestError, Unreadable, unknown
from headwater.core.types import Sample
from headwater.data.labels import Labels, encode
from headwater.data.series import Recording, even, evenly, recorded, windows
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Remote

KEYS = ("id", "series", "unique_id", "series_id")
WINDOW = 256  # samples of a piece of a long series


class Pieces(Source):
    """Series [c t] of their own lengths, each whole or cut into windows (see `data.series.SeriesFiles`). One that cannot be
    read stands there as the `Unreadable` that says why. Labels are one per series or, as `rows`, one per sample of the only
    one: then the most common of a window's counts."""

    modalities = ("series",)

    def __init__(
        self,
        name: str,
        series: list[Recording | Unreadable],
        ids: list[str],
        labels: Labels | None = None,
        *,
        rows: Labels | None = None,
        at: str = "",
        notes: tuple[str, ...] = (),
        window: int = 0,
        stride: int = 0,
        step: float = 0.0,
    ) -> None:
        self.name, self.series, self._ids, self._at, self._opened = name, series, ids, at, notes
        self._given, self._rows = labels, rows
        good = [s for s in series if isinstance(s, Recording)]
        if not good:
            bad = [s for s in series if isinstance(s, Unreadable)]
            raise RequestError(f"None of the {len(series)} series of {name} can be read, such as {bad[0]}.")
        steps = Counter(float(f"{s.step():.6g}") for s in good if s.step())
        self.window, self.stride = window, stride
        self.step = step or (steps.most_common(1)[0][0] if steps else 0.0)
        self._values = [s if isinstance(s, Unreadable) else self._even(s, i) for s, i in zip(series, ids, strict=True)]
        lengths = [1 if isinstance(v, Unreadable) else v.shape[1] for v in self._values]
        cut = [(k, span) for k, n in enumerate(lengths) for span in windows(n, window, stride)]
        self._which, self._spans = np.array([k for k, _ in cut]), np.array([span for _, span in cut])
        if labels is not None:
            self.labels, self.classes, notes = labels.values[self._which], labels.classes, notes + labels.notes
        if rows is not None:
            self.labels, self.classes, notes = self._usual(rows), rows.classes, notes + rows.notes
        if changed := sum(s.times is not None and not even(s.times, self.step) for s in good):
            notes += (f"{changed} of {len(series)} series are resampled to a step of {self.step:g}.",)
        if len(cut) > len(series):
            every = stride or window
            left = sum(
                n - int(self._spans[self._which == k][-1][1]) for k, n in enumerate(lengths) if (self._which == k).any()
            )
            notes += (
                f"{len(series)} series of up to {max(lengths)} samples are cut into {len(cut)} pieces of {window}, one every "
                f"{every}; {left} samples at the end are left out (reading={{'window': ..., 'stride': ...}} cuts otherwise).",
            )
        self.notes = notes
        self.extra = {"series": {"gaps": any(isinstance(v, np.ndarray) and np.isnan(v).any() for v in self._values)}}

    def _even(self, one: Recording, item: str) -> np.ndarray | Unreadable:
        try:
            return evenly(one.values, one.times, item, self.step).astype(np.float32)
        except Unreadable as error:
            return error

    def _usual(self, rows: Labels) -> np.ndarray:
        one = self.series[0]
        assert isinstance(one, Recording)
        at = self._spans
        if one.times is not None:  # samples may lie elsewhere than the rows do
            at = np.searchsorted(one.times, one.times[0] + self.step * (self._spans - 0.5))
        found = [rows.values[start : max(end, start + 1)] for start, end in at]
        if not rows.classes:
            return np.array([v.mean() for v in found])
        return np.array([np.bincount(v + 1, minlength=len(rows.classes) + 1).argmax() - 1 for v in found])

    def __len__(self) -> int:
        return len(self._which)

    def read(self, i: int) -> dict[str, Sample]:
        found = self._values[self._which[i]]
        if isinstance(found, Unreadable):
            raise Unreadable(self.id(i), found.why)
        start, end = self._spans[i]
        return {"series": torch.from_numpy(found[:, start:end].copy())}

    def id(self, i: int) -> str:
        start, end = self._spans[i]
        whole = self._values[self._which[i]]
        known = self.group(i)
        return known if isinstance(whole, Unreadable) or end - start == whole.shape[1] else f"{known}#{start}"

    def path(self, i: int) -> str:
        return self._at

    def group(self, i: int) -> str:
        return self._ids[self._which[i]]

    def reading(self, modality: str) -> dict[str, Any]:
        first = next(s for s in self.series if isinstance(s, Recording))
        return {"columns": [*first.names], "step": self.step, "window": self.window, "stride": self.stride}

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        """The columns, step and windows wanted. Raises RequestError where a column is not there."""
        series = self.series
        names = tuple(wanted.get("columns", ()))
        first = next(s for s in series if isinstance(s, Recording)).names
        if names and names != first:
            if lost := [c for c in names if c not in first]:
                raise RequestError(
                    f"{self.name} has no column {', '.join(lost)}, which is wanted; it has {', '.join(first)}."
                )
            at = [first.index(c) for c in names]
            series = [s if isinstance(s, Unreadable) else replace(s, names=names, values=s.values[at]) for s in series]
        cuts = {k: wanted.get(k, getattr(self, k)) for k in ("window", "stride", "step")}
        return Pieces(
            self.name, series, self._ids, self._given, rows=self._rows, at=self._at, notes=self._opened, **cuts
        )

    @property
    def fingerprint(self) -> str:
        values = [b"" if isinstance(v, Unreadable) else np.ascontiguousarray(v).tobytes() for v in self._values]
        return digest(*values, self._spans.tobytes())


def open_table(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """A table with a column named id, series, series_id or unique_id: one series per value of it, in the order of its rows.
    Otherwise one long series, cut into windows of 256 samples one after the other, whose labels are the most common of
    their rows."""
    from headwater.data.table import arrow_table

    table = arrow_table(at, place)
    if labels is not None and labels not in table.column_names:
        raise unknown(f"column of {name}", labels, table.column_names)
    marks = None if labels is None else table[labels]
    rest = table if labels is None else table.drop_columns([labels])
    key = next((c for c in rest.column_names if c.lower() in KEYS), None)
    if key is None:
        return _long(rest, marks, name, place.url(at))
    codes = rest[key].combine_chunks().dictionary_encode()
    ids = [str(v) for v in codes.dictionary.to_pylist()]
    which = codes.indices.fill_null(len(ids)).to_numpy(zero_copy_only=False)
    rows = np.argsort(which, kind="stable")
    ends = np.searchsorted(which[rows], np.arange(len(ids) + 1))
    rest = rest.drop_columns([key]).take(rows)
    series: list[Recording | Unreadable] = []
    for k, one in enumerate(ids):
        try:
            series.append(recorded(rest.slice(ends[k], ends[k + 1] - ends[k]), one))
        except Unreadable as error:
            series.append(error)
    notes: tuple[str, ...] = ()
    if lost := int(len(rows) - ends[-1]):
        notes += (f"{lost} rows have no {key} and are left out.",)
    made = None
    if marks is not None:
        first = marks.take(rows[ends[:-1]])
        made = encode(first, f"The column {labels}")
        alike = encode(marks.take(rows), f"The column {labels}").values
        mixed = sum(len(np.unique(alike[ends[k] : ends[k + 1]])) > 1 for k in range(len(ids)))
        if mixed:
            notes += (f"{mixed} of {len(ids)} series have several values of {labels}; the first counts.",)
    return Pieces(name, series, ids, made, at=place.url(at), notes=notes)


def _long(table: pa.Table, marks: pa.ChunkedArray | None, name: str, at: str) -> Source:
    try:
        series = recorded(table, name)
    except Unreadable as error:
        raise RequestError(f"The series in {at} cannot be read: {error.why}.") from error
    rows = None if marks is None else encode(marks, "The column of labels")
    return Pieces(name, [series], [name], rows=rows, at=at, window=WINDOW)
