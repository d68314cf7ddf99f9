"""Items of two or more modalities: files with a common stem, such as 0001.jpg and 0001.txt."""

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.types import Sample
from headwater.data.labels import Labels
from headwater.data.source import Source, digest

SHARE = 0.5  # of the files of the modality that has fewer: that many must find a partner


class Pairs(Source):
    """Item i is item i of every part. Labels are those given; a part that does not decode makes the item unreadable."""

    def __init__(
        self, name: str, parts: Mapping[str, Source], labels: Labels | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.name, self.parts, self.modalities = name, dict(parts), tuple(parts)
        self.notes = notes + tuple(note for part in parts.values() for note in part.notes)
        self.extra = {m: part.extra.get(m, {}) for m, part in parts.items()}
        self._given = labels
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, self.notes + labels.notes

    @property
    def _first(self) -> Source:
        return next(iter(self.parts.values()))

    def __len__(self) -> int:
        return len(self._first)

    def read(self, i: int) -> dict[str, Sample]:
        return {m: part.read(i)[m] for m, part in self.parts.items()}

    def id(self, i: int) -> str:
        return self._first.id(i)

    def path(self, i: int) -> str:
        return self._first.path(i)

    def only(self, modality: str) -> Source:
        part = self.parts[modality]
        if self._given is not None:
            part.labels, part.classes = self._given.values, self._given.classes
        return part

    def reading(self, modality: str) -> dict[str, Any]:
        return self.parts[modality].reading(modality)

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        parts = {m: part.conform(m, wanted) if m == modality else part for m, part in self.parts.items()}
        return Pairs(self.name, parts, self._given)

    @property
    def fingerprint(self) -> str:
        return digest(*(part.fingerprint for part in self.parts.values()))


def stems(names: Sequence[str]) -> dict[str, str]:
    """Each name by its path without the ending."""
    return {name.rpartition(".")[0]: name for name in names}


def matched(groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], int] | None:
    """The names of each modality in one order, partner beside partner, and how many files found none; None where fewer
    than half of the files of any two modalities go together.

    Files are partners where their paths differ in the ending alone, or in the ending and the first folder (images/1.jpg
    and texts/1.txt).
    """
    for shorten in (lambda stem: stem, lambda stem: stem.partition("/")[2] or stem):
        keyed = {m: {shorten(stem): name for stem, name in stems(names).items()} for m, names in groups.items()}
        both = sorted(set.intersection(*(set(k) for k in keyed.values())))
        if len(both) >= SHARE * min(len(names) for names in groups.values()) > 0:
            lost = sum(len(names) for names in groups.values()) - len(both) * len(groups)
            return {m: [keyed[m][key] for key in both] for m in groups}, lost
    return None
