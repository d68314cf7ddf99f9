"""What every data set looks like from the outside, how it is split, and how two are compared."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.rng import mix
from headwater.core.types import Annotations, Sample
from headwater.data.facts import describe

LOOK = 16  # how many items `spec` looks at


class Source(ABC):
    """A finite, random-access set of samples. `read(i)` decodes one; it may be called from many threads.

    name         for messages and reports, such as "photos/" or "digits"
    modalities   what one sample holds: ("image",), or ("image", "text") for pairs
    labels       class indices, int64 [n], -1 where there is none; or targets to regress, float64 [n], NaN where there
                 is none; or None
    classes      the names of the classes; empty without labels and for regression
    targets      vectors to learn from, float32 [n d], where the data come with some; else None
    tensors      all samples stacked, by modality, when they lie in memory anyway; else None
    notes        what opening the data found and a user should know, one sentence each
    extra        facts that join those of `spec`, by modality: the names of columns, say
    marked       what is marked on the pictures, "boxes" or "masks", and the names of the classes of each
    present      which items hold each modality, bool [n], where some lack one; None: all hold all
    address      what `hw.open` finds these very items by again, as JSON can hold it; None for what lies in memory alone
    """

    name: str
    modalities: tuple[str, ...]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    targets: np.ndarray | None = None
    tensors: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    extra: Mapping[str, dict[str, Any]] = MappingProxyType({})
    marked: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    present: Mapping[str, np.ndarray] | None = None
    address: Mapping[str, Any] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> dict[str, Sample]:
        """Sample i by modality, without those that it lacks. Raises `Unreadable` with the item's id and what is wrong.

        image   uint8 or float32 [c h w]         video   uint8 or float32 [c t h w]
        series  float32 [c t]                    audio   float32 [c t]
        table   float32 [columns], NaN: missing  text    int64 [n]
        volume  uint8 or float32 [c d h w]       points  float32 [c n], the first three of c being x, y, z
        graph   a Graph of one
        """

    @abstractmethod
    def id(self, i: int) -> str:
        """The stable name of an item: a relative path, an archive member, a row number."""

    def annotations(self, i: int, sample: Mapping[str, Sample]) -> Annotations | None:
        """What is marked on item i, which reads as `sample`, as a batch of one; None where nothing ever is. Raises
        `Unreadable` where that cannot be read or does not fit the picture."""
        return None

    def path(self, i: int) -> str:
        """The full path or URL of an item; "" for data in memory."""
        return ""

    def group(self, i: int) -> str:
        """What item i was cut from, such as a recording: a split keeps what belongs together on one side."""
        return self.id(i)

    def only(self, modality: str) -> "Source":
        """The items that hold this modality, with it alone, so that what nobody asks for is not decoded."""
        return self

    def reading(self, modality: str) -> dict[str, Any]:
        """How samples of this modality are read, as JSON can hold it: a sampling rate, the names of columns."""
        return {}

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> "Source":
        """These data read as `wanted` says, which is what `reading` of other data said: so an encoder meets new data
        as it met the data it learned from. Raises RequestError where that cannot be."""
        return self

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when the data change."""

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """What an encoder needs to know, by modality, from the first readable of items spread over the set.

        any     targets, the width of the vectors, where there are some
        image   channels and size (h, w) (None if mixed), dtype, promoted; bands and own_unit where the first have names
                or the values leave [0, 1]; boxes, the names of their classes; video and volume with three axes
        series  channels and length (None if mixed), dtype; audio with rate, in Hz; points with the number of them
        table   columns, names
        text    vocabulary, end, pad, longest caption seen
        graph   channels (features of a node), nodes (of the largest)
        """
        found: list[dict[str, Sample]] = []
        for i in spread(len(self), 4 * LOOK):
            if len(found) == LOOK:
                break
            try:
                found.append(self.read(i))
            except Unreadable:
                continue
        if not found:
            raise RequestError(f"No readable item was found in {self.name}; the doctor lists what is wrong with each.")
        return {m: describe(m, [f[m] for f in found]) | self.extra.get(m, {}) for m in self.modalities}


class Subset(Source):
    """The items of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: np.ndarray | Sequence[int]) -> None:
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(source)):
            raise RequestError(
                f"A subset of {source.name} asks for items {chosen.min()} to {chosen.max()}; "
                f"there are {len(source)}, counted from 0."
            )
        if isinstance(source, Subset):
            chosen, source = source.indices[chosen], source.source
        self.source: Source = source
        self.indices: np.ndarray = chosen
        self.name, self.modalities, self.classes = source.name, source.modalities, source.classes
        self.notes, self.extra, self.marked = source.notes, source.extra, source.marked

    @functools.cached_property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        labels = self.source.labels
        return None if labels is None else labels[self.indices]

    @functools.cached_property
    def targets(self) -> np.ndarray | None:  # type: ignore[override]
        targets = self.source.targets
        return None if targets is None else targets[self.indices]

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor] | None:  # type: ignore[override]
        whole = self.source.tensors
        return None if whole is None else {m: x[torch.from_numpy(self.indices)] for m, x in whole.items()}

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, i: int) -> dict[str, Sample]:
        return self.source.read(int(self.indices[i]))

    def annotations(self, i: int, sample: Mapping[str, Sample]) -> Annotations | None:
        return self.source.annotations(int(self.indices[i]), sample)

    def id(self, i: int) -> str:
        return self.source.id(int(self.indices[i]))

    def path(self, i: int) -> str:
        return self.source.path(int(self.indices[i]))

    def group(self, i: int) -> str:
        return self.source.group(int(self.indices[i]))

    @functools.cached_property
    def present(self) -> Mapping[str, np.ndarray] | None:  # type: ignore[override]
        whole = self.source.present
        return None if whole is None else {m: held[self.indices] for m, held in whole.items()}

    def only(self, modality: str) -> Source:
        alone, held = self.source.only(modality), self.source.present
        if held is None:
            return Subset(alone, self.indices)
        number = np.cumsum(held[modality]) - 1  # of each item among those that hold it
        return Subset(alone, number[self.indices[held[modality][self.indices]]])

    def reading(self, modality: str) -> dict[str, Any]:
        return self.source.reading(modality)

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        return Subset(self.source.conform(modality, wanted), self.indices)

    @property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, self.indices.tobytes())

    @property
    def spec(self) -> dict[str, Any]:
        return self.source.spec  # a part of a set keeps the facts of the whole, so that encoders fit both


def spread(n: int, k: int) -> list[int]:
    """At most k of n positions, evenly spread, in an order that reaches across the set early."""
    at = np.unique(np.linspace(0, n - 1, min(n, k)).astype(np.int64)) if n else np.zeros(0, np.int64)
    return [int(i) for start in range(4) for i in at[start::4]]


def digest(*parts: str | bytes) -> str:
    """Sixteen hexadecimal digits of what is given."""
    made = blake2b(digest_size=8)
    for part in parts:
        made.update(part.encode() if isinstance(part, str) else part)
        made.update(b"\0")
    return made.hexdigest()


def split(source: Source, test: float | int, seed: int) -> tuple[Subset, Subset]:
    """(train, test), each in the order of `source`; `test` is a share in (0, 1) or a number of items, kept exactly.

    Labelled data are stratified: every class gives its share, the remainders going to the largest fractions (items
    without a label are a class of their own). Which items of a class are taken depends on the seed and their ids alone,
    not on their order. Pieces of one recording stay together, but for at most one recording per class, which fills the
    count.
    """
    n = len(source)
    count = round(n * test) if isinstance(test, float) else test
    if not 0 < count < n:
        raise RequestError(
            f"A split of {source.name} with test={test} leaves {count} of {n} items for testing; both sides need some."
        )
    rank = np.fromiter((mix(seed, source.group(i)) for i in range(n)), dtype=np.int64, count=n)
    strata = source.labels if source.labels is not None and source.labels.dtype.kind == "i" else np.zeros(n, np.int64)
    kinds, sizes = np.unique(strata, return_counts=True)
    ideal = sizes * (count / n)
    take = np.floor(ideal).astype(np.int64)
    order = np.lexsort((kinds, take - ideal))  # largest fraction first, then the smaller label
    take[order[: count - take.sum()]] += 1
    chosen = np.zeros(n, dtype=bool)
    for kind, some in zip(kinds, take, strict=True):
        members = np.flatnonzero(strata == kind)
        chosen[members[np.argsort(rank[members], kind="stable")[:some]]] = True
    return Subset(source, np.flatnonzero(~chosen)), Subset(source, np.flatnonzero(chosen))


def content(sample: dict[str, Sample]) -> bytes:
    """A hash of decoded values, shapes and dtypes: equal for a PNG and a BMP of the same picture."""
    made = blake2b(digest_size=16)
    for modality in sorted(sample):
        x = sample[modality]
        for part in (x,) if isinstance(x, Tensor) else (x.values, x.edges):
            made.update(f"{modality}{tuple(part.shape)}{part.dtype}".encode())
            made.update(part.contiguous().numpy().tobytes())
    return made.digest()


def hashes(source: Source, workers: int = 2) -> Iterator[tuple[int, bytes]]:
    """(position, content hash) of every readable item, in order; decoded by threads, a slice at a time."""

    def one(i: int) -> bytes | None:
        try:
            return content(source.read(i))
        except Unreadable:
            return None

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), 1024):
            part = range(start, min(start + 1024, len(source)))
            for i, made in zip(part, pool.map(one, part), strict=True):
                if made is not None:
                    yield i, made


def duplicates(a: Source, b: Source) -> list[tuple[str, str]]:
    """(id in a, id in b) of every item of b whose decoded content also stands in a. Reads both sets once."""
    first: dict[bytes, int] = {}
    for i, made in hashes(a):
        first.setdefault(made, i)
    return [(a.id(first[made]), b.id(i)) for i, made in hashes(b) if made in first]
