"""Items of two or more modalities: files with a common stem, rows of a table, keys of an archive.

An item may lack a modality: its picture was never taken, its report never written. Such items are left out unless the
user wants them; then each says what it has.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Sample
from headwater.data.files import FileSource
from headwater.data.labels import Labels
from headwater.data.source import Source, digest
from headwater.parts.modalities import MODALITIES

SHARE = 0.5  # of the files of the modality that has fewer: that many must find a partner


class Pairs(Source):
    """Item i is item `at[m][i]` of the part of each modality m; -1: it has none.

    Labels are those given, one per item. A part that does not decode makes the item unreadable. `mark` is what else
    tells these data from others made of the same parts, such as the columns they come from.
    """

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Source],
        at: Mapping[str, np.ndarray],
        labels: Labels | None = None,
        notes: tuple[str, ...] = (),
        mark: str = "",
    ) -> None:
        self.name, self.parts, self.at, self.mark = name, dict(parts), dict(at), mark
        self.modalities = tuple(parts)
        self.extra = {m: part.extra.get(m, {}) for m, part in parts.items()}
        held = {m: some >= 0 for m, some in self.at.items()}
        self.present = None if all(h.all() for h in held.values()) else held
        self._given, self._notes = labels, notes
        self.notes = notes + tuple(note for part in parts.values() for note in part.notes)
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, self.notes + labels.notes

    def _held(self, i: int) -> dict[str, int]:
        return {m: k for m, some in self.at.items() if (k := int(some[i])) >= 0}

    def _first(self, i: int) -> tuple[Source, int]:
        modality, k = next(iter(self._held(i).items()))
        return self.parts[modality], k

    def __len__(self) -> int:
        return len(next(iter(self.at.values())))

    def read(self, i: int) -> dict[str, Sample]:
        return {m: self.parts[m].read(k)[m] for m, k in self._held(i).items()}

    def id(self, i: int) -> str:
        part, k = self._first(i)
        return part.id(k)

    def path(self, i: int) -> str:
        part, k = self._first(i)
        return part.path(k)

    def group(self, i: int) -> str:
        part, k = self._first(i)
        return part.group(k)

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor] | None:  # type: ignore[override]
        found = {m: part.tensors[m] for m, part in self.parts.items() if part.tensors is not None}
        if self.present is not None or len(found) < len(self.parts):
            return None
        return {m: x[torch.from_numpy(self.at[m])] for m, x in found.items()}

    def _of(self, rows: np.ndarray, modalities: Sequence[str], notes: tuple[str, ...]) -> "Pairs":
        labels = self._given
        if labels is not None:
            labels = Labels(labels.values[rows], labels.classes, labels.notes)
        parts = {m: self.parts[m] for m in modalities}
        return Pairs(self.name, parts, {m: self.at[m][rows] for m in modalities}, labels, notes, self.mark)

    def only(self, modality: str) -> Source:
        """The items that have this modality."""
        return self._of(np.flatnonzero(self.at[modality] >= 0), [modality], ())

    def without_empty(self) -> "Pairs":
        """The items that have any modality."""
        some = np.logical_or.reduce([rows >= 0 for rows in self.at.values()])
        if some.all():
            return self
        left = f"{np.sum(~some):,} of {len(self):,} items are empty and left out."
        return self._of(np.flatnonzero(some), self.modalities, (*self._notes, left))

    def complete(self) -> "Pairs":
        """The items that have every modality. Raises RequestError where there are none."""
        if self.present is None:
            return self
        whole = np.logical_and.reduce([*self.present.values()])
        if not whole.any():
            raise RequestError(
                f"No item of {self.name} has all of {', '.join(self.modalities)}; missing=True keeps what has some."
            )
        left = f"{np.sum(~whole):,} of {len(self):,} items lack a partner and are left out; missing=True keeps them."
        return self._of(np.flatnonzero(whole), self.modalities, (*self._notes, left))

    def reading(self, modality: str) -> dict[str, Any]:
        return self.parts[modality].reading(modality)

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        parts = {m: part.conform(m, wanted) if m == modality else part for m, part in self.parts.items()}
        return Pairs(self.name, parts, self.at, self._given, self._notes, self.mark)

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        return {m: part.spec[m] for m, part in self.parts.items()}

    @functools.cached_property
    def fingerprint(self) -> str:
        rows = (some.astype(np.int64).tobytes() for some in self.at.values())
        return digest(self.mark, *(part.fingerprint for part in self.parts.values()), *rows)


def settled(source: Source, missing: bool) -> Source:
    """What a user gets of data just opened: of pairs the complete ones, or all. Raises RequestError where files are cut
    into pieces, which have no partners, and where `missing` is asked of data of one modality."""
    if not isinstance(source, Pairs):
        if missing:
            raise RequestError(
                f"missing=True keeps items of pairs that lack a modality, where they are opened; {source.name} is no such data."
            )
        return source
    for modality, part in source.parts.items():
        if isinstance(part, FileSource) and len(part) != len(part.store):
            asked = " and ".join(f"{k!r}" for k in part.reading(modality) if k in ("seconds", "window"))
            raise RequestError(
                f"Some {MODALITIES[modality].plural} of {source.name} are so long that they are cut into pieces, and a "
                f"piece has no partner; read them whole with a larger {asked or 'length'} in reading=."
            )
    source = source.without_empty()
    if not missing:
        return source.complete()
    for modality, held in (source.present or {}).items():
        if not held.all():
            source.notes += (f"{np.sum(~held):,} of {len(source):,} items have no {modality}.",)
    return source


@dataclass(frozen=True)
class Match:
    """Items by key, in order; `at[m]` numbers the file of modality m of each, -1 where there is none. `doubles` counts
    files whose key and modality another file has too."""

    keys: list[str]
    at: dict[str, np.ndarray]
    doubles: int


def matched(groups: Mapping[str, Sequence[str]]) -> Match | None:
    """Partners among the names of the files of each modality; None where fewer than half of the files of the modality
    that has fewest find one of every other.

    Files are partners where their paths differ in the ending alone, or in the ending and the first folder (images/1.jpg
    and texts/1.txt).
    """
    for shorten in (lambda stem: stem, lambda stem: stem.partition("/")[2] or stem):
        numbers: dict[str, dict[str, int]] = {}
        for m, names in groups.items():
            numbers[m] = {}
            for i, name in enumerate(names):
                numbers[m].setdefault(shorten(name.rpartition(".")[0]), i)
        both = set.intersection(*(set(n) for n in numbers.values()))
        if enough(len(both), map(len, groups.values())):
            keys = sorted(set().union(*numbers.values()))
            at = {m: np.array([n.get(key, -1) for key in keys], np.int64) for m, n in numbers.items()}
            return Match(keys, at, sum(map(len, groups.values())) - sum(map(len, numbers.values())))
    return None


def enough(complete: int, files: Iterable[int]) -> bool:
    """Whether so many items are complete, of so many files of each modality, that the files are pairs."""
    return complete >= SHARE * min(files) > 0


def said(modalities: Sequence[str], by: str, doubles: int) -> tuple[str, ...]:
    """What a user should know of how pairs were found."""
    kinds = " and ".join(MODALITIES[m].plural for m in modalities)
    notes = (f"Read as pairs of {kinds} with common {by}.",)
    if doubles:
        notes += (f"{doubles:,} files share name and kind with another and are left out.",)
    return notes
