"""The features that curation reads: those of an encoder, those that `embed` wrote, or the values as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from headwater.api import run
from headwater.api.device import pick_device
from headwater.api.embed import columns_of
from headwater.api.encoders import Pretrained, load, prepare, suited
from headwater.core.errors import RequestError
from headwater.core.types import Features, Graph, Input, Ragged
from headwater.core.verbs import Encoder, Known
from headwater.data import open as open_data
from headwater.data.encoding import BYTES
from headwater.data.loader import Loader, stack
from headwater.data.rows import Rows, plain
from headwater.data.source import Source
from headwater.data.statistics import statistics
from headwater.engine import embed as engine
from headwater.engine.log import Progress
from headwater.parts.ragged import ragged_of
from headwater.report.pictures import views_picture
from headwater.report.seen import seen

VECTORS, RECORD = "vectors", "curation.json"
SIDES = {1: 256, 2: 16, 3: 8}  # values that are averaged are so many along each of their 1 to 3 axes, or fewer
BEGINNING = 40  # letters of a text
THUMBNAIL = (96, 96)  # pixels of pictures of several sizes
FAINT = 0.1  # weight of the mean of a picture beside its pattern: only flat pictures are told by it


@dataclass(frozen=True)
class Curated:
    """What was kept: the data to learn from (None where only embeddings were given), the positions of the items in what
    was given (none where they are new), and what `curation.json` says. `path` is the folder of the manifest, if any."""

    kept: NDArray[np.int64]
    data: Source | None
    facts: Mapping[str, Any]
    path: Path | None = None


@dataclass(frozen=True)
class Pool:
    """What there is to choose from: the features on disk, in `folder`, and the data themselves, where they can be opened.

    `address` and `name` are those of the data; row i of the features is item `items[i]` of it, None: item i.
    """

    name: str
    vectors: engine.Stored
    address: Mapping[str, Any] | None
    source: Source | None
    items: NDArray[np.int64] | None

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows if self.items is None else self.items[rows]

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        order = np.unique(rows)
        found = dict(zip(order.tolist(), self.vectors.take(order)["id"].to_pylist(), strict=True))
        return [found[int(i)] for i in rows]

    def told(self, rows: NDArray[np.int64]) -> list[str]:
        """The rows in words: how texts begin, the names of other items."""
        if self.source is None or self.source.modalities[0] != "text":
            return self.names(rows)
        encoding = BYTES.conform(self.source.reading("text"))
        texts = [encoding.decode(self.source.read(int(i))["text"]) for i in self.places(rows)]  # type: ignore[arg-type]
        return [" ".join(text.split())[:BEGINNING] for text in texts]

    def known(self) -> Known | None:
        """The labels of the rows: classes, or numbers that score them."""
        if self.source is None or self.source.labels is None:
            return None
        values = torch.from_numpy(self.source.labels[self.places(np.arange(len(self.vectors)))])
        if self.source.classes:
            return Known(values, self.source.classes)
        return Known(torch.full((len(values),), -1), scores=values.float())


def pool_of(
    data: Any, folder: Path, encoder: Any, labels: str | None, device: str, workers: int, progress: Progress | None
) -> Pool:
    """Opens embeddings as they are; of other data the features are written to `folder` first, and kept there."""
    held = engine.stored(Path(data)) if isinstance(data, str | Path) else None
    if held is not None:
        if encoder is not None:
            raise RequestError(f"{data} holds embeddings already; --encoder is for raw data.")
        return _embedded(Path(data), held, labels)
    source = open_data(data, labels=labels)
    where = pick_device(device)
    if encoder is not None:
        pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
        fitting, network, ready = suited(source, pretrained), pretrained.encoder, pretrained.prepare
        digest = pretrained.digest
    else:
        fitting, digest = source.only(source.modalities[0]), "values as they are"
        network, ready = Values(fitting), lambda x: x
    loader = Loader(fitting, 256, workers=workers)
    identity = {"encoder": digest, "data": fitting.fingerprint, "name": source.name}
    engine.write(
        network, loader, len(fitting), ready, lambda some: columns_of(fitting, some), folder, identity, device=where,
        progress=progress,
    )  # fmt: skip
    run.add(folder, engine.RECORD, address=source.address)
    made = engine.stored(folder)
    assert made is not None
    return Pool(source.name, made, source.address, source, _items(source, fitting, made))


def budget_of(keep: int | float | None, n: int) -> int | None:
    """How many of n items: a number of them, or a share below 1."""
    if keep is None:
        return None
    share = isinstance(keep, float) and keep < 1
    count = round(keep * n) if share else int(keep)
    if (not share and keep != count) or not keep > 0:
        raise RequestError(f"keep={keep}: expected a whole number of items, or a share between 0 and 1.")
    if count > n:
        raise RequestError(f"A budget of {count:,} items is above the pool, which holds {n:,}.")
    if count < 1:
        raise RequestError(f"keep={keep} of {n} items is none.")
    return count


def claimed(folder: Path) -> None:
    """A new folder, or one that holds no more than features, which are taken up where they end."""
    if folder.is_file() or (folder.is_dir() and [p for p in folder.iterdir() if p.name != VECTORS]):
        raise RequestError(f"--out {folder} exists and holds something else; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)


def _embedded(at: Path, held: engine.Stored, labels: str | None) -> Pool:
    facts = run.read(at, engine.RECORD) if (at / engine.RECORD).is_file() else {}
    address = facts.get("address")
    if address is None:
        return Pool(facts.get("name", at.name), held, None, None, None)
    source = open_data(**{**address, "labels": labels or address.get("labels")})
    return Pool(source.name, held, source.address, source, _items(source, source, held))


def _items(source: Source, fitting: Source, held: engine.Stored) -> NDArray[np.int64] | None:
    """Which item of `source` each row of features is of, by name; None where all of them stand in order."""
    if len(held) == len(fitting) == len(source):
        return None
    there = {source.id(i): i for i in range(len(source))}
    names = [name for piece in held.pieces(["id"]) for name in piece.column("id").to_pylist()]
    if lost := [name for name in names if name not in there]:
        raise RequestError(f"{source.name} lacks {len(lost)} of the items embedded, such as {lost[0]}.")
    return np.array([there[name] for name in names], dtype=np.int64)


class Values(Encoder):
    """Raw values as features: of a picture the pattern of its pixels, with its mean taken away, of a text the shares of its
    tokens, of a row its cells in deviations from the mean of their column, of other kinds their values averaged to a grid.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.modality, self.name = source.modalities[0], source.name
        if self.modality in ("points", "graph"):
            raise RequestError(f"{source.name} holds {self.modality}, whose values are no features; give an --encoder.")
        facts = source.spec[self.modality]
        self.vocabulary, self.categories = facts.get("vocabulary", 0), torch.tensor(facts.get("categories", []))
        self.moments = statistics(source)[self.modality] if isinstance(source, Rows) else None
        rank = {"image": 2, "video": 3, "volume": 3}.get(self.modality, 1)
        size = facts.get("size") or ((facts["length"],) if facts.get("length") else (SIDES[rank],) * rank)
        self.grid = tuple(min(SIDES[rank], n) for n in size)
        _, first = next(iter(Loader(source, 1).ordered(range(min(8, len(source))))))
        self.dim = self.flat(first.x[self.modality]).shape[1]

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        pooled = self.flat(x)
        return Features(pooled[:, None], pooled)

    def flat(self, x: Input) -> Tensor:
        assert not isinstance(x, Graph)
        if self.modality == "text":
            words = ragged_of(x)
            real = torch.arange(words.values.shape[1]) < words.extent
            share = real / words.extent.clamp(min=1)
            return torch.zeros(len(words), self.vocabulary).scatter_add_(1, words.values, share)
        if isinstance(x, Ragged):
            return torch.cat([self.flat(_whole(x, i)) for i in range(len(x))])
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if self.modality == "table":
            if self.moments is None:
                if not x.isfinite().all():
                    raise RequestError(f"{self.name} holds NaN or infinity; features are finite numbers.")
                return x
            cells = torch.where(self.categories == 0, (x - self.moments[0]) / self.moments[1], x)
            return plain(cells, self.categories.tolist()).nan_to_num(0)
        pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(self.grid)]
        values = pool(x.nan_to_num(0), self.grid[0] if len(self.grid) == 1 else self.grid).flatten(1)
        if self.modality != "image":
            return values
        mean = values.mean(1, keepdim=True)
        return torch.cat([values - mean, FAINT * mean, torch.full_like(mean, 1e-3)], 1)


def _whole(x: Ragged, i: int) -> Tensor:
    """Sample i without what fills it up."""
    rank = x.extent.shape[1]
    return x.values[i : i + 1][(..., *(slice(int(e)) for e in x.extent[i][-rank:]))]


def draw(pool: Pool, columns: list[tuple[str, NDArray[np.int64]]], path: Path) -> bool:
    """A picture of some rows of features as the items they are of; False where there is nothing that can be drawn."""
    few = min(len(rows) for _, rows in columns)
    if pool.source is None or not few:
        return False
    modality = pool.source.modalities[0]
    chosen = pool.places(np.concatenate([rows[:few] for _, rows in columns])).tolist()
    x = stack([pool.source.read(i)[modality] for i in chosen])
    if modality == "image" and isinstance(x, Ragged):
        x = torch.cat([prepare(_whole(x, i), {"size": THUMBNAIL}) for i in range(len(x))])
    drawn = seen(modality, x)
    if drawn is None:
        return False
    titles = [title for title, _ in columns]
    views_picture([*zip(titles, drawn.split(few), strict=True)], path)
    return True
