"""Any data with a text beside each item."""

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.errors import RequestError
from headwater.core.types import Sample
from headwater.data.encoding import BYTES, encode
from headwater.data.labels import Labels
from headwater.data.source import Source, digest


class Captioned(Source):
    """The items of `source`, each with a text of its own length; its labels too, unless others are given."""

    def __init__(
        self,
        source: Source,
        captions: Sequence[str],
        name: str | None = None,
        labels: Labels | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.source, self.captions, self.name = source, captions, name or source.name
        self.modalities = (*source.modalities, "text")
        self.labels, self.classes = source.labels, source.classes
        if labels is not None:
            self.labels, self.classes = labels.values, labels.classes
        self.notes = source.notes + notes
        self.extra = {
            **source.extra,
            "text": {**BYTES.facts(), "longest": max(len(encode(words)) for words in set(captions))},
        }

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int) -> dict[str, Sample]:
        return {**self.source.read(i), "text": encode(self.captions[i])}

    def id(self, i: int) -> str:
        return self.source.id(i)

    def path(self, i: int) -> str:
        return self.source.path(i)

    def only(self, modality: str) -> Source:
        if modality == "text":
            return self
        alone = self.source.only(modality)
        if (alone.labels is None) != (self.labels is None) or alone.classes != self.classes:
            return self  # its labels are not those of the captions
        return alone

    def reading(self, modality: str) -> dict[str, Any]:
        return BYTES.reading() if modality == "text" else self.source.reading(modality)

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        if modality == "text":
            if wanted not in ({}, BYTES.reading()):
                raise RequestError(
                    f"The captions of {self.name} are read as bytes; the encoder reads a vocabulary of its own."
                )
            return self
        labels = None if self.labels is None else Labels(self.labels, self.classes)
        return Captioned(self.source.conform(modality, wanted), self.captions, self.name, labels)

    @property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, "\n".join(self.captions))
