"""How wrong pictures are, and where, by a method that learned good ones; measured where the data say what is wrong."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from headwater.api.encoders import prepare
from headwater.api.learned import Learned
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.data.annotated import IN_ORDER
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.parts.regions import region_overlap

SHOWN = 8  # pictures in the report: the most wrong, of each class where there are some, and half as many of the least
TIMED = 30  # single pictures whose time is taken
Array = NDArray[Any]


@dataclass(frozen=True)
class Anomalies:
    """
    ids, classes  of the n pictures that could be read; the class of each by name, "" where there is none
    scores        how wrong each is: the largest value of its map
    alarm         the score from which on a picture is called wrong, set on good ones kept aside
    promised      the share of good pictures that are called wrong, at most
    maps          how wrong each pixel is, at the size that the encoder sees [n h w]
    measured      auroc of pictures, auroc_by_class, and where there are masks auroc of pixels and aupro
    milliseconds  for one picture by itself, the median, on `device`
    shown         some pictures by number, as the encoder sees them, and their masks
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Array
    alarm: float
    promised: float
    maps: Array
    measured: dict[str, Any]
    milliseconds: float
    device: str
    shown: dict[int, tuple[torch.Tensor, Array | None]] = field(default_factory=dict)
    unreadable: tuple[tuple[str, str], ...] = ()

    def columns(self) -> dict[str, Any]:
        """The score of each picture, and whether it is called wrong."""
        made: dict[str, Any] = {"id": list(self.ids)}
        if any(self.classes):
            made["class"] = list(self.classes)
        return {**made, "score": self.scores, "wrong": self.scores > self.alarm}

    def draw(self, path: Path) -> Path:
        """The heat maps as a sheet `path`, and beside it a page with them and what was measured (.html), and the values of
        all maps (.maps.npy, float32 [n h w])."""
        from headwater.report.anomalies import page, sheet

        sheet(self, path)
        aside = path.with_name(f".writing-{path.stem}.npy")
        np.save(aside, self.maps.astype(np.float32), allow_pickle=False)
        os.replace(aside, path.with_suffix(".maps.npy"))
        path.with_suffix(".html").write_text(page(self, path), encoding="utf-8")
        return path


def anomalies(learned: Learned, source: Source, *, batch_size: int, workers: int) -> Anomalies:
    """The maps of every picture. Classes named good, normal, ok or sound are right and all others wrong; of masks every class
    but the first marks what is wrong."""
    facts = learned.preprocessing["image"]
    source = source.conform("image", facts.get("read", {}))
    device = next(learned.method.parameters()).device
    loader, step = Loader(source, min(batch_size, 64), workers=workers), Step(Rng(0))
    kept, maps, masks, seen = list[int](), list[Array](), list[Array](), list[torch.Tensor]()
    for chosen, batch in loader.ordered(range(len(source))):
        x = prepare(batch.x["image"], facts)
        assert isinstance(x, torch.Tensor)
        with torch.inference_mode():
            said = learned.method.predict(Batch({"image": x.to(device)}), step)  # type: ignore[operator]
        kept += chosen
        maps.append(said.cpu().numpy())
        seen += list(x)
        if batch.annotations is not None and batch.annotations.masks is not None:
            marked = (batch.annotations.masks > 0).float()[:, None]
            sized = batch.x["image"]  # masks of pictures of unequal sizes are filled up as these are
            whole = Ragged(marked, sized.extent) if isinstance(sized, Ragged) else marked
            small = prepare(whole, {**facts, "interpolation": "bilinear"})
            assert isinstance(small, torch.Tensor)
            masks.append(small[:, 0].numpy() > 0.5)
    if not kept:
        raise RequestError(f"None of the {len(source)} pictures of {source.name} can be read.")
    made, marks = np.concatenate(maps), np.concatenate(masks) if masks else None
    names = [source.classes[k] if k >= 0 else "" for k in source.labels[kept]] if source.classes else [""] * len(kept)
    scores = made.reshape(len(made), -1).max(1).astype(np.float64)
    order = np.argsort(-scores, kind="stable").tolist()
    firsts = [i for name in dict.fromkeys(names) for i in [j for j in order if names[j] == name][:2]]  # of every class
    drawn = dict.fromkeys([*(firsts if len({*names}) > 1 else order[:SHOWN])[: 2 * SHOWN], *order[-SHOWN // 2 :]])
    return Anomalies(
        tuple(source.id(i) for i in kept),
        tuple(names),
        scores,
        float(learned.method.get_buffer("units.alarm")),
        float(learned.method.get_buffer("units.promised")),
        made,
        _measured(scores, made, names, marks),
        _milliseconds(learned, seen[:TIMED], device),
        str(device),
        {i: (_visible(seen[i]), None if marks is None else marks[i]) for i in drawn},
        tuple(sorted(loader.bad.items())),
    )


def _visible(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_floating_point() else x / 255


def _measured(scores: Array, maps: Array, names: list[str], masks: Array | None) -> dict[str, Any]:
    known = np.array([bool(n) for n in names])
    good = np.array([n.lower() in IN_ORDER for n in names])
    wrong = known & ~good
    if not good.any() and masks is not None:  # no class is called good: what has no mark is
        wrong, good = masks.any((1, 2)), ~masks.any((1, 2))
    found: dict[str, Any] = {}
    if good.any() and wrong.any():
        rows = good | wrong
        found["auroc"] = float(roc_auc_score(wrong[rows], scores[rows]))
        kinds = sorted({n for n, w in zip(names, wrong, strict=True) if w and n})
        of = {k: good | np.array([n == k for n in names]) for k in kinds}
        found["auroc_by_class"] = {k: float(roc_auc_score(wrong[at], scores[at])) for k, at in of.items()}
    if masks is not None and masks.any() and not masks.all():
        found["pixel_auroc"] = float(roc_auc_score(masks.ravel(), maps.ravel()))
        found["aupro"] = region_overlap(list(maps), list(masks))
    return found


def _milliseconds(learned: Learned, pictures: list[torch.Tensor], device: torch.device) -> float:
    """The median time of one picture by itself, once the first has passed."""
    took = []
    for x in [pictures[0], *pictures]:
        started = time.perf_counter()
        with torch.inference_mode():
            said = learned.method.predict(Batch({"image": x[None].to(device)}), Step(Rng(0)))  # type: ignore[operator]
        said.cpu()
        took.append(time.perf_counter() - started)
    return 1000 * float(np.median(took[1:]))
