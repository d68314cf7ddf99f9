"""A source whose items are encoded files: a store gives the bytes, a reader of one modality makes samples of them."""

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BufferedIOBase
from typing import Any

import numpy as np
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Sample
from headwater.data.labels import Labels
from headwater.data.reader import Reader
from headwater.data.source import LOOK, Source, digest, spread
from headwater.data.stores import Store

HEADERS = 64  # how many headers are looked at for the number of channels
THREADS = 8  # that read headers where files are cut into pieces


class FileSource(Source):
    """Decodes item by item. Where pictures of one and three channels are mixed, grey is repeated to three, and said so.

    A file is one item, but where the reader cuts those looked at into pieces: then each piece is one, `name#k`, with the
    label of its file.

    Opening looks at some items spread over the set. An item whose channels later turn out to fit neither way is
    `Unreadable`; if the looked-at items are mixed in another way, all are returned as they are.
    """

    def __init__(
        self, store: Store, reader: Reader, name: str, labels: Labels | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.store, self.reader, self.name = store, reader, name
        self.modalities = (reader.modality,)
        kinds, cut, more = self._look()
        self._first = self._count() if cut else None
        self._given = labels
        if labels is not None:
            counts = 1 if self._first is None else np.diff(self._first)
            self.labels, self.classes = np.repeat(labels.values, counts), labels.classes
            notes += labels.notes
        promoted = reader.modality == "image" and kinds == {1, 3}
        self._channels = 3 if promoted else next(iter(kinds)) if len(kinds) == 1 else None
        if promoted:
            notes += ("Grey and colour images are mixed; grey is repeated to three channels.",)
        elif len(kinds) > 1:
            told = ", ".join(map(str, sorted(kinds)))
            notes += (f"The {reader.modality} files differ in channels ({told}) and are left so.",)
        self.notes = notes + more
        facts = {"promoted": promoted, "channels": self._channels} if kinds else {}
        self.extra = {reader.modality: facts | self.reader.facts()}

    def _look(self) -> tuple[set[int], bool, tuple[str, ...]]:
        """The numbers of channels seen in some items, once the reader has settled how to read them, and whether it cuts
        any into pieces."""
        files: list[tuple[int, BufferedIOBase]] = []
        reasons: list[str] = []
        with ExitStack() as opened:
            for i in spread(len(self.store), HEADERS):
                try:
                    files.append((i, opened.enter_context(self.store.open(i))))
                except Unreadable as error:
                    reasons.append(str(error))
            self.reader, notes = self.reader.settled([file for _, file in files])
            kinds: set[int] = set()
            decoded, cut = 0, False
            for i, file in files:
                try:
                    file.seek(0)
                    cut = cut or self.reader.pieces(file) > 1
                    file.seek(0)
                    if decoded < LOOK:
                        sample = self.reader.piece(file, self.store.name(i), 0)
                        decoded += 1
                        if isinstance(sample, Tensor) and sample.ndim > 1:
                            kinds.add(sample.shape[0])
                    elif (count := self.reader.channels(file.read())) is not None:
                        kinds.add(count)
                except Unreadable as error:
                    reasons.append(str(error))
        if not decoded:
            tried = f"None of the {len(reasons)} {self.reader.modality} files tried in {self.name} can be read"
            raise RequestError(f"{tried}, such as {reasons[0]}.")
        return kinds, cut, notes

    def _count(self) -> np.ndarray:
        """The number of the first item of each file, and of all."""

        def one(i: int) -> int:
            try:
                with self.store.open(i) as file:
                    return self.reader.pieces(file)
            except Unreadable:
                return 1  # reading it will say why

        with ThreadPoolExecutor(THREADS) as pool:
            return np.cumsum([0, *pool.map(one, range(len(self.store)))])

    def _at(self, i: int) -> tuple[int, int, int]:
        """The file of item i, which piece of it this is, and of how many."""
        if self._first is None:
            return i, 0, 1
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        j = int(np.searchsorted(self._first, i, side="right")) - 1
        return j, i - int(self._first[j]), int(self._first[j + 1] - self._first[j])

    def __len__(self) -> int:
        return len(self.store) if self._first is None else int(self._first[-1])

    def id(self, i: int) -> str:
        j, k, n = self._at(i)
        return self.store.name(j) if n == 1 else f"{self.store.name(j)}#{k}"

    def path(self, i: int) -> str:
        return self.store.path(self._at(i)[0])

    def group(self, i: int) -> str:
        return self.store.name(self._at(i)[0])

    def read(self, i: int) -> dict[str, Sample]:
        j, k, _ = self._at(i)
        if self._first is None and self.reader.streams:
            with self.store.open(j) as file:
                x = self.reader.stream(file, self.id(i))
        elif self._first is None:
            x = self.reader.decode(self.store.load(j), self.id(i))
        else:
            with self.store.open(j) as file:
                x = self.reader.piece(file, self.id(i), k)
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
        return FileSource(self.store, reader, self.name, self._given)

    @functools.cached_property
    def fingerprint(self) -> str:
        return digest(self.store.fingerprint(), repr(self.reader))
