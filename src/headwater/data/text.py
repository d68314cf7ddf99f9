"""Texts: one per line of a file, one per cell of a column, or one per file of a folder.

`read` never pads, and cuts what is longer than the `longest` of the encoding.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Sample
from headwater.data.encoding import BYTES, Encoding, trained
from headwater.data.labels import Labels
from headwater.data.reader import Reader
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Remote

SCAN = 1 << 22  # bytes looked through at a time for line ends
TRAINED_ON = 100_000  # texts that a vocabulary is learned from, evenly spread


@runtime_checkable
class Words(Protocol):
    """Strings by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> str | None: ...


class Lines:
    """The lines of a file, found by their offsets, so that only what is asked for is read. `field` takes one field of
    lines that are JSON."""

    def __init__(self, at: str, field: str = "") -> None:
        self.at, self.field = at, field
        starts = [np.zeros(1, np.int64)]
        with open(at, "rb") as file:
            position = 0
            while data := file.read(SCAN):
                starts.append(np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + position + 1)
                position += len(data)
        ends = np.concatenate(starts)
        self._ends = ends if ends[-1] == position else np.append(ends, position)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str | None:
        with open(self.at, "rb") as file:
            file.seek(int(self._ends[i]))
            line = file.read(int(self._ends[i + 1] - self._ends[i])).decode(errors="replace").strip("\r\n")
        if not self.field:
            return line
        try:
            found = json.loads(line)
            return None if found.get(self.field) is None else str(found[self.field])
        except (ValueError, AttributeError):
            return None


class Cells:
    """The strings of an Arrow column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, i: int) -> str | None:
        found: str | None = self.column[i].as_py()
        return found


class Texts(Source):
    """Strings, read as numbers. An empty one is `Unreadable`."""

    modalities = ("text",)

    def __init__(
        self,
        name: str,
        words: Words,
        labels: Labels | None = None,
        encoding: Encoding = BYTES,
        at: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.words, self.encoding, self._at, self.notes = name, words, encoding, at, notes
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, notes + labels.notes
        self.extra = {"text": encoding.facts()}

    def __len__(self) -> int:
        return len(self.words)

    def read(self, i: int) -> dict[str, Sample]:
        words = self.words[i]
        if words is None or not words.strip():
            raise Unreadable(self.id(i), "the text is empty")
        return {"text": self.encoding.encode(words)}

    def id(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self._at

    def reading(self, modality: str) -> dict[str, Any]:
        return self.encoding.reading()

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        return self.encoded(self.encoding.conform(wanted))

    def encoded(self, encoding: Encoding) -> "Texts":
        labels = None if self.labels is None else Labels(self.labels, self.classes)
        return Texts(self.name, self.words, labels, encoding, self._at, self.notes)

    def with_vocabulary(self, vocabulary: int) -> "Texts":
        """These texts by a byte-pair encoding learned from them."""
        at = np.unique(np.linspace(0, len(self) - 1, min(len(self), TRAINED_ON)).astype(np.int64))
        return self.encoded(trained((w for i in at if (w := self.words[int(i)])), vocabulary))

    @functools.cached_property
    def fingerprint(self) -> str:
        stamp = Disk().stamp(self._at) if self._at else "\n".join(self.words[i] or "" for i in range(len(self)))
        labels = b"" if self.labels is None else self.labels.tobytes()
        return digest(self._at, stamp, repr(self.encoding), labels)


@dataclass(frozen=True)
class TextReader(Reader):
    """One text per file."""

    encoding: Encoding = BYTES
    modality = "text"
    endings = frozenset({"txt"})
    named = frozenset({"md", "rst"})

    def decode(self, data: bytes, item: str) -> Int64[Tensor, " n"]:
        words = data.decode(errors="replace")
        if not words.strip():
            raise Unreadable(item, "the text is empty")
        return self.encoding.encode(words)

    def facts(self) -> dict[str, Any]:
        return self.encoding.facts()

    def reading(self) -> dict[str, Any]:
        return self.encoding.reading()

    def conform(self, wanted: Mapping[str, Any]) -> "TextReader":
        return replace(self, encoding=self.encoding.conform(wanted))


def open_lines(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """One text per line of a .txt; of a .jsonl, the field "text", with the labels in the field that is named."""
    if isinstance(place, Remote):
        raise RequestError(f"Texts are read line by line from this machine only; copy {place.url(at)} here first.")
    if not at.endswith(("jsonl", "ndjson")):
        if labels is not None:
            raise RequestError(
                f"labels={labels!r}: the lines of {name} have no labels; a table or .jsonl can have them."
            )
        return Texts(name, Lines(at), at=at)
    words = Lines(at, "text")
    if not len(words) or all(words[i] is None for i in range(min(100, len(words)))):
        raise RequestError(
            f'The lines of {at} hold no field named text; each is to be an object such as {{"text": ...}}.'
        )
    made = None
    if labels is not None:
        from headwater.data.labels import encode as classes

        values = Lines(at, labels)
        found: Sequence[str | None] = [values[i] for i in range(len(values))]
        if all(v is None for v in found):
            raise RequestError(f"labels={labels!r}: the lines of {at} hold no such field.")
        made = classes(pa.array(found, pa.string()), f"The field {labels}")
    return Texts(name, words, made, at=at)


def open_column(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """The column "text" of a table, else its column with the longest words."""
    from headwater.data.table import arrow_table, label_column

    table = arrow_table(at, place)
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    texts = [c for c in texts if c != labels]
    if not texts:
        raise RequestError(f"The table {at} has no column of words; it has {', '.join(table.column_names)}.")
    lengths = {c: sum(len(v or "") for v in table[c].slice(0, 100).to_pylist()) for c in texts}
    column = "text" if "text" in texts else max(texts, key=lambda c: lengths[c])
    made = None if labels is None else label_column(table, labels, at)
    notes = () if column == "text" else (f"The texts come from the column {column}.",)
    return Texts(name, Cells(table[column]), made, at=place.url(at), notes=notes)


def with_vocabulary(source: Source, vocabulary: int) -> Texts:
    """Texts by a byte-pair encoding learned from them. Raises RequestError for other data."""
    if not isinstance(source, Texts):
        raise RequestError(f"vocabulary={vocabulary} is for texts; {source.name} holds {', '.join(source.modalities)}.")
    return source.with_vocabulary(vocabulary)
