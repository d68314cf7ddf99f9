"""What is in the data, what is broken, and what reading it costs."""

import dataclasses
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import Unreadable
from headwater.core.types import Sample
from headwater.data.source import Source, content
from headwater.data.statistics import Moments, decoded, drawn, plain
from headwater.parts.modalities import MODALITIES

FLAT = 0.01  # an item whose spread is below this share of the usual spread is near-constant
SHOWN = 3  # examples named per line


@dataclass(frozen=True)
class Facts:
    """One modality of the sample. Values are on the float scale: uint8 divided by 255.

    sizes, channels, dtypes   how many items have each, such as {"375 x 500": 12}
    mean, std                 per channel (per column of a table), of the items with the usual number of channels
    missing                   NaN cells per column, of tables; of the whole table if it lies in memory
    constant                  ids of near-constant items (columns, for tables)
    """

    sizes: Mapping[str, int]
    channels: Mapping[str, int]
    dtypes: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: Mapping[str, int]
    constant: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` found.

    rate        items decoded per second by `workers` threads
    imbalance   the size of the largest class over that of the smallest
    unlabelled  items without a label; None if the data have no labels at all
    duplicates  pairs of ids with equal content
    left_out    columns of a table that are not used
    """

    name: str
    items: int
    sampled: int
    workers: int
    modalities: Mapping[str, Facts]
    unreadable: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, str], ...]
    classes: Mapping[str, int]
    imbalance: float | None
    unlabelled: int | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    rate: float

    def lines(self) -> list[str]:
        """A few lines in plain words."""
        part = "all of them" if self.sampled == self.items else f"{self.sampled} of them"
        out = [
            f"{self.name}: {self.items:,} {' and '.join(MODALITIES[m].plural for m in self.modalities)}; looked at {part}."
        ]
        for modality, facts in self.modalities.items():
            shape = _sizes(facts.sizes) + (f"; channels {_most(facts.channels)}" if facts.channels else "")
            out.append(f"{modality}: {shape}; {_most(facts.dtypes)}.")
            if 0 < len(facts.mean) <= 4:
                out.append(f"  mean {_numbers(facts.mean)}, standard deviation {_numbers(facts.std)} per channel.")
            if facts.missing:
                cells = sum(facts.missing.values())
                out.append(
                    f"  missing cells: {cells:,} in {len(facts.missing)} columns; most in {_most(facts.missing)}."
                )
            if facts.constant:
                what = "columns" if modality == "table" else "items"
                out.append(f"  near-constant {what}: {len(facts.constant)}, such as {_few(facts.constant)}.")
        if self.unreadable:
            shown = "; ".join(f"{item} ({why})" for item, why in self.unreadable[:SHOWN])
            out.append(f"unreadable: {len(self.unreadable)} of {self.sampled}: {shown}{_more(self.unreadable)}.")
        if self.duplicates:
            one, other = self.duplicates[0]
            out.append(f"exact duplicates: {len(self.duplicates)}, such as {one} = {other}.")
        if self.unlabelled is None:
            out.append("labels: none.")
        elif self.classes:
            ratio = f"; the largest {self.imbalance:.1f} times the smallest" if self.imbalance else ""
            kinds = f"{len(self.classes)} classes ({_most(self.classes)})"
            out.append(f"labels: {kinds}{ratio}; {self.unlabelled:,} items without.")
        else:
            out.append(f"labels: numbers to regress; {self.unlabelled:,} items without.")
        out += self.notes
        out.append(f"reading: {self.rate:,.0f} items/s with {self.workers} threads.")
        return out

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def _few(values: tuple[str, ...]) -> str:
    return ", ".join(values[:SHOWN])


def _more(values: tuple[Any, ...]) -> str:
    return f"; and {len(values) - SHOWN} more" if len(values) > SHOWN else ""


def _most(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    common = Counter(counts).most_common(SHOWN)
    rest = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{value}: {count:,}" for value, count in common) + rest


def _sizes(counts: Mapping[str, int]) -> str:
    """The usual sizes, or how they range where nearly every item has its own."""
    if len(counts) <= SHOWN + 1:
        return _most(counts)
    ordered = sorted(counts, key=lambda size: math.prod(int(n) for n in re.findall(r"\d+", size)))
    return f"{len(counts)} different sizes, from {ordered[0]} to {ordered[-1]}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


# what the size of a sample counts, where it is not pixels or voxels
COUNTED = {
    "table": "columns", "text": "tokens", "audio": "samples", "series": "steps", "points": "points", "graph": "nodes",
}  # fmt: skip


class _Tally:
    """Facts of one modality, gathered item by item."""

    def __init__(self, modality: str) -> None:
        self.modality = modality
        self.sizes, self.channels, self.dtypes = Counter[str](), Counter[str](), Counter[str]()
        self.moments: dict[int, Moments] = {}
        self.spreads: list[tuple[str, float]] = []
        self.missing: Tensor | None = None

    def add(self, item: str, sample: Sample) -> None:
        x = plain(sample)
        self.dtypes[str(x.dtype).removeprefix("torch.")] += 1
        counted = COUNTED.get(self.modality, "")
        if self.modality in ("table", "text"):
            self.sizes[f"{len(x)} {counted}"] += 1
        else:
            self.sizes[f"{' x '.join(map(str, x.shape[1:]))} {counted}".rstrip()] += 1
            self.channels[str(x.shape[0])] += 1
        if self.modality == "text":
            return
        spread = self.moments.setdefault(x.shape[0], Moments(x.shape[0])).add(x)
        if self.modality == "table":
            self.missing = x.isnan().long() + (0 if self.missing is None else self.missing)
        else:
            self.spreads.append((item, float(spread)))

    def facts(self, source: Source) -> Facts:
        mean, std = torch.zeros(0), torch.zeros(0)
        if self.moments:
            usual = max(self.moments.values(), key=lambda m: float(m.count.sum()))
            mean, std = usual.mean, usual.std()
        missing: dict[str, int] = {}
        if self.missing is not None:
            whole = source.tensors
            count = self.missing if whole is None else whole["table"].isnan().sum(0)
            names = source.spec["table"]["names"]
            missing = {names[j]: int(c) for j, c in enumerate(count.tolist()) if c}
            known = usual.count > 1  # one value says nothing of how a column varies
            still = known & (std <= FLAT * FLAT * mean.abs())
            flat = tuple(names[j] for j in still.nonzero()[:, 0].tolist())
        else:
            typical = float(np.median([s for _, s in self.spreads])) if self.spreads else 0.0
            flat = tuple(item for item, s in self.spreads if s <= FLAT * typical)
        return Facts(
            dict(self.sizes),
            dict(self.channels),
            dict(self.dtypes),
            tuple(mean.tolist()),
            tuple(std.tolist()),
            missing,
            flat,
        )


def examine(source: Source, sample: int = 2000, workers: int = 2) -> Diagnosis:
    """Decodes up to `sample` items, drawn evenly at random, with `workers` threads; counts labels over all items."""
    at = drawn(source, sample, 0)
    tallies = {m: _Tally(m) for m in source.modalities}
    unreadable: list[tuple[str, str]] = []
    duplicates: list[tuple[str, str]] = []
    seen: dict[bytes, str] = {}
    spent, tick = 0.0, time.perf_counter()
    for i, item in decoded(source, at, workers):
        spent += time.perf_counter() - tick
        name = source.id(i)
        if isinstance(item, Unreadable):
            unreadable.append((item.item, item.why))
        else:
            for modality, x in item.items():
                tallies[modality].add(name, x)
            first = seen.setdefault(content(item), name)
            if first != name:
                duplicates.append((first, name))
        tick = time.perf_counter()
    classes, imbalance, unlabelled = _labels(source)
    return Diagnosis(
        name=source.name,
        items=len(source),
        sampled=len(at),
        workers=workers,
        modalities={m: t.facts(source) for m, t in tallies.items()},
        unreadable=tuple(unreadable),
        duplicates=tuple(duplicates),
        classes=classes,
        imbalance=imbalance,
        unlabelled=unlabelled,
        left_out=tuple(source.extra.get("table", {}).get("left_out", ())),
        notes=source.notes,
        rate=len(at) / max(spent, 1e-9),
    )


def _labels(source: Source) -> tuple[dict[str, int], float | None, int | None]:
    labels = source.labels
    if labels is None:
        return {}, None, None
    if labels.dtype.kind != "i":
        return {}, None, int(np.isnan(labels).sum())
    counts = np.bincount(labels[labels >= 0], minlength=len(source.classes))
    present = counts[counts > 0]
    imbalance = float(present.max() / present.min()) if len(present) else None
    return dict(zip(source.classes, counts.tolist(), strict=True)), imbalance, int((labels < 0).sum())
