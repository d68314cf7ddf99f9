"""A source whose items are encoded files: a store gives the bytes, a reader of one modality makes tensors of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data import image
from headwater.data.labels import Labels
from headwater.data.source import LOOK, Source, spread
from headwater.data.stores import Store

HEADERS = 64  # how many headers are looked at for the number of channels


@dataclass(frozen=True)
class Reader:
    """One modality's file formats: the endings they go by, bytes to tensor, and what a header says of channels."""

    modality: str
    endings: frozenset[str]
    decode: Callable[[bytes, str], Tensor]
    channels: Callable[[bytes], int | None]


IMAGE = Reader("image", image.ENDINGS, image.decode, image.channels)


class FileSource(Source):
    """Decodes item by item. Where samples of one and three channels are mixed, grey is repeated to three, and said so.

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
        kinds = self._look()
        self._channels = 3 if kinds == {1, 3} else next(iter(kinds)) if len(kinds) == 1 else None
        if kinds == {1, 3}:
            notes += ("Grey and colour images are mixed; grey is repeated to three channels.",)
        elif len(kinds) > 1:
            notes += (
                f"The {reader.modality}s differ in channels ({', '.join(map(str, sorted(kinds)))}) and are left so.",
            )
        self.notes = notes
        self.extra = {reader.modality: {"promoted": kinds == {1, 3}, "channels": self._channels}}

    def _look(self) -> set[int]:
        kinds: set[int] = set()
        reasons: list[str] = []
        decoded = 0
        for i in spread(len(self), HEADERS):
            try:
                data = self.store.load(i)
                if decoded < LOOK:
                    kinds.add(self.reader.decode(data, self.id(i)).shape[0])
                    decoded += 1
                elif (count := self.reader.channels(data)) is not None:
                    kinds.add(count)
            except Unreadable as error:
                reasons.append(str(error))
        if not decoded:
            tried = f"None of the {len(reasons)} {self.reader.modality} files tried in {self.name} can be read"
            raise RequestError(f"{tried}, such as {reasons[0]}.")
        return kinds

    def __len__(self) -> int:
        return len(self.store)

    def id(self, i: int) -> str:
        return self.store.name(i)

    def path(self, i: int) -> str:
        return self.store.path(i)

    def read(self, i: int) -> dict[str, Tensor]:
        x = self.reader.decode(self.store.load(i), self.id(i))
        if self._channels is not None and x.shape[0] != self._channels:
            if (x.shape[0], self._channels) != (1, 3):
                raise Unreadable(self.id(i), f"it has {x.shape[0]} channels where the others have {self._channels}")
            x = x.expand(3, *x.shape[1:]).contiguous()
        return {self.reader.modality: x}

    @functools.cached_property
    def fingerprint(self) -> str:
        return self.store.fingerprint()
