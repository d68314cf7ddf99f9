"""Batches in an order that is a function of (seed, step) alone: no state to save, any step can be had at once.

Every epoch is a fresh pseudo-random permutation computed by a keyed bijection (a Feistel network), so the order of a
billion items costs no memory and resuming costs nothing. Workers only decide how fast items are decoded, never which.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable, WorkError
from headwater.core.rng import mix
from headwater.core.types import Annotations, Batch, Graph, Input, Ragged, Sample
from headwater.data.source import Source, spread
from headwater.parts.boxes import together

Item = tuple[dict[str, Sample], Annotations | None]
FEW_TRIED = 64  # items looked at for one that can be read
FEW_BAD = 3  # broken items that no share of a small set makes too many


class Loader:
    """Endless shuffled batches of `source` for training, or one ordered pass for embedding.

    shard, shards   this process's part of each batch: rows [shard * b, (shard + 1) * b) of the global batch
    parts           each batch is handed over in this many pieces (gradient accumulation)
    tolerate        the share of items that may fail to decode before the run stops with their list (three always may)

    An item that does not decode is remembered in `bad` and replaced by another, again as a function of (seed, step).
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 2,
        shard: int = 0,
        shards: int = 1,
        parts: int = 1,
        tolerate: float = 0.05,
    ) -> None:
        if not len(source):
            raise RequestError(f"{source.name} holds no items.")
        self.source, self.batch_size, self.seed, self.workers = source, batch_size, seed, max(1, workers)
        self.shard, self.shards, self.parts, self.tolerate = shard, shards, parts, tolerate
        self.bad: dict[str, str] = {}

    def __call__(self, start: int) -> Iterator[Batch]:
        """The pieces of the batches of steps start, start + 1, ..."""
        size = self.batch_size // self.parts
        pieces = (self._mine(step, part, size) for step in _count(start) for part in range(self.parts))
        return self._stream(pieces)

    def ordered(self, indices: NDArray[Any] | range) -> Iterator[tuple[list[int], Batch]]:
        """One pass over `indices` in order; yields the indices that were readable with their batch."""
        chunks = (
            [int(i) for i in indices[at : at + self.batch_size]] for at in range(0, len(indices), self.batch_size)
        )
        if self.source.tensors is not None:
            for chunk in chunks:
                yield chunk, self._gather(chunk)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            for chunk, futures in _ahead(((c, [pool.submit(self._try, i) for i in c]) for c in chunks), 2):
                read = [(i, item) for i, f in zip(chunk, futures, strict=True) if (item := f.result()) is not None]
                self._complain(len(indices))
                if read:
                    yield [i for i, _ in read], self._collate([i for i, _ in read], [item for _, item in read])

    def indices(self, step: int) -> NDArray[Any]:
        """The items of the whole batch of `step`, over all shards and parts."""
        return order(len(self.source), self.seed, step * self.batch_size, self.batch_size)

    def _mine(self, step: int, part: int, size: int) -> tuple[int, list[int]]:
        mine = size // self.shards
        at = part * size + self.shard * mine
        return step, [int(i) for i in self.indices(step)[at : at + mine]]

    def _stream(self, pieces: Iterator[tuple[int, list[int]]]) -> Iterator[Batch]:
        if self.source.tensors is not None:
            for _, chosen in pieces:
                yield self._gather(chosen)
            return
        pool = ThreadPoolExecutor(self.workers)
        try:
            submitted = ((p, [pool.submit(self._read, p[0], slot, i) for slot, i in enumerate(p[1])]) for p in pieces)
            for _, futures in _ahead(submitted, 1 + self.workers // 4):
                pairs = [f.result() for f in futures]
                self._complain(len(self.source))
                yield self._collate([i for i, _ in pairs], [item for _, item in pairs])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, step: int, slot: int, index: int) -> tuple[int, Item]:
        """Decode an item, or, if it cannot be, the substitute that (seed, step, slot) names."""
        for attempt in range(100):
            item = self._try(index)
            if item is not None:
                return index, item
            index = mix(self.seed, "instead", step, slot, attempt) % len(self.source)
        raise WorkError(f"{self.source.name}: 100 items in a row do not decode. {self._list()}")

    def _try(self, index: int) -> Item | None:
        try:
            sample = self.source.read(index)
            return sample, self.source.annotations(index, sample)
        except Unreadable as error:
            self.bad[error.item] = error.why
            return None

    def _complain(self, n: int) -> None:
        if len(self.bad) > max(self.tolerate * n, FEW_BAD):
            raise WorkError(
                f"{self.source.name}: {len(self.bad)} of {n} items do not decode, more than the "
                f"{self.tolerate:.0%} that are tolerated. {self._list()}"
            )

    def _list(self) -> str:
        shown = "; ".join(f"{item} ({why})" for item, why in sorted(self.bad.items())[:5])
        kinds = ", ".join(f"{why} x {n}" for why, n in Counter(self.bad.values()).most_common(3))
        return f"First: {shown}. Reasons: {kinds}."

    def _gather(self, chosen: list[int]) -> Batch:
        assert self.source.tensors is not None
        index = torch.tensor(chosen)
        x = {m: t[index] for m, t in self.source.tensors.items()}
        if not self.source.marked:
            return self._batch(x, chosen)
        marks = [self.source.annotations(i, {m: t[k] for m, t in x.items()}) for k, i in enumerate(chosen)]
        return self._batch(x, chosen, together(marks))

    def _collate(self, chosen: list[int], items: list[Item]) -> Batch:
        samples, marks = zip(*items, strict=True)
        if self.source.present is None:
            x = {m: stack([sample[m] for sample in samples]) for m in samples[0]}
            return self._batch(x, chosen, together(marks))
        there = {m: [m in sample for sample in samples] for m in self.source.modalities}
        x = {m: stack(self._filled(m, [sample.get(m) for sample in samples])) for m in there}
        present = {m: torch.tensor(has) for m, has in there.items()}
        return self._batch(x, chosen, together(marks), present)

    def _batch(
        self,
        x: dict[str, Input],
        chosen: list[int],
        marks: Annotations | None = None,
        present: dict[str, Tensor] | None = None,
    ) -> Batch:
        """With the labels and the target vectors of these items, where there are any."""
        given = (self.source.labels, self.source.targets)
        y, targets = (None if values is None else torch.as_tensor(values[chosen]) for values in given)
        return Batch(x, y, marks, present, targets)

    def _filled(self, modality: str, found: list[Sample | None]) -> list[Sample]:
        """Zeros for items that lack a modality, of the size of one that has it."""
        like = next((x for x in found if x is not None), None)
        like = self._example(modality) if like is None else like
        empty = replace(like, values=like.values * 0) if isinstance(like, Graph) else torch.zeros_like(like)
        return [empty if x is None else x for x in found]

    def _example(self, modality: str) -> Sample:
        alone = self.source.only(modality)
        for i in spread(len(alone), FEW_TRIED):
            try:
                return alone.read(i)[modality]
            except Unreadable:
                continue
        raise RequestError(f"No readable {modality} was found in {self.source.name}.")


def stack(items: list[Any]) -> Input:
    """One tensor when all sizes agree; otherwise a ragged one, padded with zeros up to the largest.

    The axes that may differ are all but the channels: the last two of an image, the last of a series or a text.
    Graphs are filled up with nodes that are none and edges of -1.
    """
    if isinstance(items[0], Graph):
        return _join(items)
    if all(x.shape == items[0].shape for x in items):
        return torch.stack(items)
    if len({(x.ndim, *(x.shape[:1] if x.ndim > 1 else ())) for x in items}) > 1:
        kinds = ", ".join(f"{tuple(s)} x {n}" for s, n in Counter(x.shape for x in items).most_common(4))
        raise RequestError(f"One batch holds items with different numbers of channels or axes: {kinds}.")
    first = 1 if items[0].ndim > 1 else 0
    extent = torch.tensor([list(x.shape[first:]) for x in items])
    most = extent.amax(0).tolist()
    out = items[0].new_zeros(len(items), *items[0].shape[:first], *most)
    for row, x in zip(out, items, strict=True):
        row[(slice(None),) * first + tuple(slice(s) for s in x.shape[first:])] = x
    return Ragged(out, extent)


def _join(graphs: list[Graph]) -> Graph:
    nodes, edges = max(g.values.shape[2] for g in graphs), max(g.edges.shape[1] for g in graphs)
    if len({g.values.shape[1] for g in graphs}) > 1:
        raise RequestError("One batch holds graphs whose nodes have different numbers of features.")
    values = graphs[0].values.new_zeros(len(graphs), graphs[0].values.shape[1], nodes)
    pairs = torch.full((len(graphs), edges, 2), -1, dtype=torch.int64)
    for i, g in enumerate(graphs):
        values[i, :, : g.values.shape[2]] = g.values[0]
        pairs[i, : g.edges.shape[1]] = g.edges[0]
    return Graph(values, torch.cat([g.extent for g in graphs]), pairs)


def order(n: int, seed: int, start: int, count: int) -> NDArray[Any]:
    """Entries start..start+count of the endless sequence of permuted epochs of range(n)."""
    places = np.arange(start, start + count, dtype=np.int64)
    out = np.empty(count, dtype=np.int64)
    for epoch in np.unique(places // n):
        here = places // n == epoch
        out[here] = _permute(places[here] % n, n, mix(seed, "order", int(epoch)))
    return out


def _permute(x: NDArray[Any], n: int, key: int) -> NDArray[Any]:
    """A keyed bijection of range(n): six Feistel rounds on the next even number of bits, walking cycles back into range."""
    half = max(1, math.ceil(max(1, (n - 1).bit_length()) / 2))
    keys = [np.uint64(mix(key, r)) for r in range(6)]
    out = x.astype(np.uint64)
    todo = np.ones(len(x), dtype=bool)
    while todo.any():
        out[todo] = _feistel(out[todo], np.uint64(half), keys)
        todo = out >= np.uint64(n)
    return out.astype(np.int64)


def _feistel(x: NDArray[Any], half: np.uint64, keys: list[np.uint64]) -> NDArray[Any]:
    low = np.uint64((1 << int(half)) - 1)
    a, b = x >> half, x & low
    for key in keys:
        h = (b ^ key) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        a, b = b, a ^ ((h >> np.uint64(32)) & low)
    return (a << half) | b


def _ahead(pairs: Iterator[tuple[Any, list[Future[Any]]]], depth: int) -> Iterator[tuple[Any, list[Future[Any]]]]:
    """Keep `depth` batches being decoded beyond the one handed over."""
    waiting: deque[tuple[Any, list[Future[Any]]]] = deque()
    for pair in pairs:
        waiting.append(pair)
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


def _count(start: int) -> Iterator[int]:
    step = start
    while True:
        yield step
        step += 1
