"""Vectors of every item: written as sharded Parquet while they are made, or held in memory when they are few.

A shard holds a fixed range of items. It is written aside and renamed, so a second run goes on after the whole ones, and
several processes share the work by taking every n-th shard.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Batch, Input
from headwater.core.verbs import Encoder
from headwater.engine.distributed import World
from headwater.engine.log import Progress

RECORD = "_embedding.json"
UNREADABLE = "_unreadable.json"


@runtime_checkable
class Pass(Protocol):
    """One ordered pass over some items: what a loader offers."""

    bad: dict[str, str]

    def ordered(self, indices: range) -> Iterator[tuple[list[int], Batch]]: ...


Prepare = Callable[[Input], Input]
Columns = Callable[[list[int]], Mapping[str, Any]]  # indices -> id, path, label


def vectors(
    encoder: Encoder, loader: Pass, n: int, prepare: Prepare, device: torch.device | str = "cpu"
) -> tuple[NDArray[Any], list[int]]:
    """The pooled features [m, dim] of items 0..n and which of them were readable. Raises WorkError for features that are not
    finite, as `write` does."""
    kept: list[int] = []
    parts = []
    for chosen, pooled in _pooled(encoder, loader, range(n), prepare, device):
        kept += chosen
        parts.append(pooled.float().cpu())
    return (torch.cat(parts).numpy() if parts else np.zeros((0, encoder.dim), np.float32)), kept


def write(
    encoder: Encoder,
    loader: Pass,
    n: int,
    prepare: Prepare,
    columns: Columns,
    out: Path,
    identity: Mapping[str, Any],
    *,
    dtype: Literal["float16", "float32"] = "float32",
    shard_size: int = 16_384,
    device: torch.device | str = "cpu",
    world: World = World(),
    progress: Progress | None = None,
) -> int:
    """Write a folder of Parquet shards with the columns of `columns` and `vector`; returns the rows written now.

    `identity` says what the vectors are (encoder, data): a folder that holds others is refused with RequestError.
    """
    record = {**identity, "n": n, "dtype": dtype, "shard_size": shard_size, "dim": encoder.dim}
    _claim(out, record, world)
    written = 0
    if progress is not None:
        progress.begin("item", n)
    waiting: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for shard, start in enumerate(range(0, n, shard_size)):
            path = out / f"part-{shard:05d}.parquet"
            if shard % world.size != world.rank or path.exists():
                continue
            kept, parts = list[int](), list[Tensor]()
            for chosen, pooled in _pooled(encoder, loader, range(start, min(n, start + shard_size)), prepare, device):
                kept += chosen
                parts.append(pooled.to(getattr(torch, dtype)).cpu())
                if progress is not None and world.main:
                    progress.show(min(n, start + len(kept)), {"unreadable": str(len(loader.bad))} if loader.bad else {})
            if waiting is not None:
                waiting.result()
            waiting = writer.submit(
                _write_shard, path, torch.cat(parts) if parts else None, columns(kept), encoder.dim, dtype
            )
            written += len(kept)
        if waiting is not None:
            waiting.result()
    if progress is not None:
        progress.end()
    if loader.bad:
        (out / UNREADABLE).write_text(json.dumps(sorted(loader.bad.items()), indent=1))
    return written


def read(out: Path) -> tuple[NDArray[Any], dict[str, list[Any]]]:
    """All vectors [n, dim] of a folder that `write` made, in the order of the items, and its other columns."""
    parts = sorted(out.glob("part-*.parquet"))
    if not parts:
        raise RequestError(f"{out} holds no embeddings (part-*.parquet).")
    table = pa.concat_tables([pq.read_table(p) for p in parts]).combine_chunks()
    column = table.column("vector").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    others = {name: table.column(name).to_pylist() for name in table.column_names if name != "vector"}
    return flat.reshape(len(table), -1), others


@dataclass(frozen=True)
class Stored:
    """Embeddings on disk as `core.verbs.Vectors`: each pass reads them anew, so memory stays flat."""

    files: tuple[Path, ...]
    rows: int = 8192

    def __len__(self) -> int:
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    @property
    def dim(self) -> int:
        return int(pq.read_schema(self.files[0]).field("vector").type.list_size)

    def __iter__(self) -> Iterator[Tensor]:
        first = 0
        for piece in self.pieces(["vector"]):
            flat = piece.column("vector").flatten().to_numpy(zero_copy_only=False)
            x = torch.tensor(flat.reshape(len(piece), -1), dtype=torch.float32)
            if not (fine := x.isfinite().all(1)).all():
                row = first + int((~fine).nonzero()[0])
                raise RequestError(f"The features in {self.files[0].parent} hold NaN or infinity, first in row {row}.")
            first += len(x)
            yield x

    @property
    def unreadable(self) -> list[list[str]]:
        """(item, why) of those that could not be embedded, where the folder says so."""
        path = self.files[0].parent / UNREADABLE
        found: list[list[str]] = json.loads(path.read_text()) if path.is_file() else []
        return found

    @property
    def names(self) -> list[str]:
        return [name for name in pq.read_schema(self.files[0]).names if name != "vector"]

    def pieces(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            yield from pq.ParquetFile(file).iter_batches(self.rows, columns=[*columns])

    def take(self, positions: NDArray[Any]) -> pa.Table:
        """All but the vectors, of the rows at ascending positions."""
        parts, first = [], 0
        for piece in self.pieces(self.names):
            low, high = np.searchsorted(positions, [first, first + len(piece)])
            parts.append(piece.take(pa.array(positions[low:high] - first)))
            first += len(piece)
        return pa.Table.from_batches(parts)


def stored(at: Path) -> Stored | None:
    """What a folder that `write` made holds, or a Parquet file with a column `vector`; None where it is neither."""
    files = tuple(sorted(at.glob("part-*.parquet"))) if at.is_dir() else (at,) if at.suffix == ".parquet" else ()
    if not files or not files[0].is_file():
        return None
    schema = pq.read_schema(files[0])
    held = schema.get_field_index("vector") >= 0 and pa.types.is_fixed_size_list(schema.field("vector").type)
    return Stored(files) if held else None


def _pooled(
    encoder: Encoder, loader: Pass, indices: range, prepare: Prepare, device: torch.device | str
) -> Iterator[tuple[list[int], Tensor]]:
    encoder.eval().to(device)
    for chosen, batch in loader.ordered(indices):
        with torch.inference_mode():
            pooled = encoder(prepare(batch.to(device).x[encoder.modality])).pooled
        if not (fine := pooled.isfinite().all(1)).all():
            first, count = chosen[int((~fine).nonzero()[0])], int((~fine).sum())
            raise WorkError(
                f"Features are not finite for {count} of {len(chosen)} items, first for item {first}: the encoder, or the "
                "item, holds NaN or infinity."
            )
        yield chosen, pooled


def _claim(out: Path, record: Mapping[str, Any], world: World) -> None:
    """Make the folder, or check that it holds the beginning of the very same work."""
    path = out / RECORD
    if path.exists():
        other = json.loads(path.read_text())
        differing = [k for k in record if other.get(k) != record[k]]
        if differing:
            key = differing[0]
            raise RequestError(
                f"{out} holds other embeddings: their {key} is {other.get(key)!r}, not {record[key]!r}. "
                "Give another --out, or remove that folder."
            )
        return
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise RequestError(f"{out} exists and does not hold embeddings; give another --out.")
    if world.main:
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1))
        except OSError as error:
            raise WorkError(f"Writing {out} failed: {error.strerror}.") from error
    world.barrier()


def _write_shard(path: Path, vectors: Tensor | None, columns: Mapping[str, Any], dim: int, dtype: str) -> None:
    flat = np.zeros(0, dtype) if vectors is None else vectors.numpy().reshape(-1)
    table = pa.table({**columns, "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)})
    aside = path.with_name(f".writing-{path.name}")
    try:
        pq.write_table(table, aside)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"Writing {path} failed: {error.strerror or error}. The shards before it are whole.") from error
