"""`hw.embed`: vectors of every item, in memory or as sharded Parquet on disk."""

from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from headwater.api import run
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load, suited
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.engine import embed as engine
from headwater.engine.distributed import join
from headwater.engine.log import Progress


def embed(
    encoder: Any,
    data: Any,
    *,
    out: str | Path | None = None,
    labels: str | None = None,
    batch_size: int = 256,
    dtype: Literal["float16", "float32"] = "float32",
    device: str = "auto",
    workers: int = 2,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """The pooled features [n, dim] of every readable item of `data`, in order.

    With `out`, a folder of Parquet shards is written as the work goes on (columns id, path, label if any, vector), and
    an interrupted call goes on where it stopped; under torchrun the processes share the shards. Items that do not
    decode are left out and named in `_unreadable.json`.
    """
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    whole = open_data(data, labels=labels)
    source = suited(whole, pretrained)
    loader, where = Loader(source, batch_size, workers=workers), pick_device(device)
    if out is None:
        return engine.vectors(pretrained.encoder, loader, len(source), pretrained.prepare, where)[0]
    identity = {"encoder": pretrained.digest, "data": source.fingerprint, "name": source.name}
    world = join()
    engine.write(
        pretrained.encoder,
        loader,
        len(source),
        pretrained.prepare,
        lambda chosen: columns_of(source, chosen),
        Path(out),
        identity,
        dtype=dtype,
        device=where,
        world=world,
        progress=progress,
    )
    if world.main:
        run.add(Path(out), engine.RECORD, address=whole.address)
    world.barrier()
    return engine.read(Path(out))[0]


def columns_of(source: Source, chosen: list[int]) -> dict[str, Any]:
    """What stands beside the vectors of these items: id, path and, if any, label."""
    columns: dict[str, Any] = {"id": [source.id(i) for i in chosen], "path": [source.path(i) for i in chosen]}
    if source.labels is not None:
        names = source.classes
        labels = source.labels[chosen]
        columns["label"] = [names[k] if k >= 0 else None for k in labels] if names else labels
    return columns
