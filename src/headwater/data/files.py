"""A source whose items are encoded files: a store gives the bytes, a reader of one modality makes samples of them."""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Sample
from headwater.data.labels import Labels
from headwater.data.reader import Reader
from headwater.data.source import LOOK, Source, digest, spread
from headwater.data.stores import Store

HEADERS = 64  # how many headers are looked at for the number of channels


class FileSource(Source):
    """Decodes item by item. Where pictures of one and three channels are mixed, grey is repeated to three, and said so.

    Opening looks at some items spread over the set. An item whose channels later turn out to fit neither way is
    `Unreadable`; if the looked-at items are mixed in another way, all are returned as they are.
    """

    def __init__(
        self, store: Store, reader: Reader, name: str, labels: Labels | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.store, self.reader, self.name = store, reader, name
        self.modalities = (reader.modality,)
        if labels is not None:
            self.labels, self.classes = labels.values, labels.classes
            notes += labels.notes
        kinds, more = self._look()
        promoted = reader.modality == "image" and kinds == {1, 3}
        self._channels = 3 if promoted else next(iter(kinds)) if len(kinds) == 1 else None
        if promoted:
            notes += ("Grey and colour images are mixed; grey is repeated to three channels.",)
        elif len(kinds) > 1:
            counts = ", ".join(map(str, sorted(kinds)))
            notes += (f"The {reader.modality} files differ in channels ({counts}) and are left so.",)
        self.notes = notes + more
        facts = {"promoted": promoted, "channels": self._channels} if kinds else {}
        self.extra = {reader.modality: facts | self.reader.facts()}

    def _look(self) -> tuple[set[int], tuple[str, ...]]:
        """The numbers of channels seen in some items, once the reader has settled how to read them."""
        files: list[tuple[int, bytes]] = []
        reasons: list[str] = []
        for i in spread(len(self), HEADERS):
            try:
                files.append((i, self.store.load(i)))
            except Unreadable as error:
                reasons.append(str(error))
        self.reader, notes = self.reader.settled([data for _, data in files])
        kinds: set[int] = set()
        decoded = 0
        for i, data in files:
            try:
                if decoded < LOOK:
                    sample = self.reader.decode(data, self.id(i))
                    decoded += 1
                    if isinstance(sample, Tensor) and sample.ndim > 1:
                        kinds.add(sample.shape[0])
                elif (count := self.reader.channels(data)) is not None:
                    kinds.add(count)
            except Unreadable as error:
                reasons.append(str(error))
        if not decoded:
            tried = f"None of the {len(reasons)} {self.reader.modality} files tried in {self.name} can be read"
            raise RequestError(f"{tried}, such as {reasons[0]}.")
        return kinds, notes

    def __len__(self) -> int:
        return len(self.store)

    def id(self, i: int) -> str:
        return self.store.name(i)

    def path(self, i: int) -> str:
        return self.store.path(i)

    def read(self, i: int) -> dict[str, Sample]:
        x = self.reader.decode(self.store.load(i), self.id(i))
        if self._channels is not None and isinstance(x, Tensor) and x.shape[0] != self._channels:
            if (x.shape[0], self._channels) != (1, 3) or self.reader.modality != "image":
                raise Unreadable(self.id(i), f"it has {x.shape[0]} channels where the others have {self._channels}")
            x = x.expand(3, *x.shape[1:]).contiguous()
        return {self.reader.modality: x}

    def reading(self, modality: str) -> dict[str, Any]:
        return self.reader.reading()

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        reader = self.reader.conform(wanted)
        if reader == self.reader:
            return self
        labels = None if self.labels is None else Labels(self.labels, self.classes)
        return FileSource(self.store, reader, self.name, labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        return digest(self.store.fingerprint(), repr(self.reader))
