"""The .ts format of aeon and sktime: a header of @lines, then a series per line, channels apart by colons, the class last."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from headwater.core.errors import RequestError, Unreadable
from headwater.data.labels import Labels, encode
from headwater.data.pieces import Pieces
from headwater.data.series import Recording
from headwater.data.source import Source
from headwater.data.stores import Disk, Remote


def open_ts(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """One or more channels, of equal length or not; "?" is missing, and so is what a channel lacks that is shorter than
    another of its series. A line that cannot be read is an `Unreadable` item."""
    if labels is not None:
        raise RequestError(f"labels={labels!r} names a column; the file {name} says its own labels, in its header.")
    lines = [(i, line.strip()) for i, line in enumerate(place.read(at).decode(errors="replace").splitlines(), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    start = next((k for k, (_, line) in enumerate(lines) if line.lower() == "@data"), None)
    if start is None:
        raise RequestError(f"The file {at} has no line @data; it is no series in the .ts format.")
    header = dict(_field(line) for _, line in lines[:start])
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise RequestError(f"The file {at} has time stamps at every value (@timeStamps true), which are not read.")
    classes = tuple(header["classlabel"][1:]) if _true(header, "classlabel") else ()
    labelled = _true(header, "classlabel") or _true(header, "targetlabel")
    series: list[Recording | Unreadable] = []
    marks: list[str | None] = []
    for i, line in lines[start + 1 :]:
        *channels, mark = line.split(":") if labelled else (*line.split(":"), None)
        marks.append(mark.strip() if mark else None)
        try:
            series.append(_series(channels, header))
            if classes and marks[-1] not in classes:
                raise ValueError(f"its class is {marks[-1]!r}; the header names {', '.join(classes)}")
        except ValueError as error:
            if len(series) == len(marks):
                series.pop()
            series.append(Unreadable(f"line {i}", str(error)))
    if not series:
        raise RequestError(f"The file {at} holds no series: nothing follows @data.")
    made = _labels(marks, classes, f"The file {name}") if labelled else None
    return Pieces(name, series, [str(k) for k in range(len(series))], made, at=place.url(at))


def _field(line: str) -> tuple[str, list[str]]:
    name, *values = line.removeprefix("@").split()
    return name.lower(), values or [""]


def _true(header: Mapping[str, list[str]], name: str) -> bool:
    return header.get(name, [""])[0].lower() == "true"


def _series(channels: list[str], header: Mapping[str, list[str]]) -> Recording:
    rows = [np.array([np.nan if v.strip() == "?" else float(v) for v in c.split(",")]) for c in channels]
    wanted = header.get("dimensions", [""])[0]
    if not rows or (wanted.isdigit() and len(rows) != int(wanted)):
        raise ValueError(f"it has {len(rows)} channels; the header says {wanted or 'at least 1'}")
    longest = max(map(len, rows))
    values = np.stack([np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in rows])
    return Recording(tuple(f"channel {j}" for j in range(len(rows))), values)


def _labels(marks: list[str | None], classes: tuple[str, ...], what: str) -> Labels:
    if classes:
        return Labels(np.array([classes.index(m) if m in classes else -1 for m in marks]), classes)
    try:
        return encode(pa.array([None if m is None else float(m) for m in marks]), what)
    except ValueError:
        return encode(pa.array(marks), what)
