"""`hw.predict`: what a method says of data, where it says more than features: forecasts, classes, boxes, what is wrong."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from headwater.api.anomalies import Anomalies, anomalies
from headwater.api.detections import KEEP, Boxes, detections
from headwater.api.device import pick_device
from headwater.api.encoders import prepare
from headwater.api.forecasts import Forecasts, forecasts
from headwater.api.learned import Learned, load, predicts
from headwater.core.errors import RequestError, WorkError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data import open as open_data
from headwater.data.loader import Loader

FORMATS = {"boxes": (".json",)}  # by what is predicted; tables where it is not named
TABLES = (".parquet", ".csv")


@dataclass(frozen=True)
class Classes:
    """The probability of each class [n k] for the n items that could be read."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: Float[np.ndarray, "n k"]

    def columns(self) -> dict[str, Any]:
        """The likeliest class of each item, and the probability of every one."""
        best = [self.classes[k] for k in self.values.argmax(1)]
        each = {f"p({name})": self.values[:, k] for k, name in enumerate(self.classes)}
        return {"id": list(self.ids), "class": best, **each}


def predict(
    run: str | Path | Learned,
    data: Any,
    *,
    out: str | Path | None = None,
    steps: int = 0,
    back: int = 0,
    season: int = 0,
    keep: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    workers: int = 2,
) -> Forecasts | Classes | Boxes | Anomalies:
    """What the method of a run predicts for data.

    out     a .parquet or .csv file to write, of boxes a .json in COCO's format; beside that of forecasts, of boxes and of
            anomalies stands a picture of the same name, .png, and beside that of anomalies a page, .html, and their maps
    steps   of forecasts: only so many
    back    of forecasts: begin so many steps before the end of each series, where the truth is known
    season  of forecasts: its length in steps for the seasonal-naive beside them; found in the data by itself
    keep    of boxes: the best so many of each picture; 0 means 30

    Raises RequestError where the method predicts nothing, or not from such data.
    """
    learned = run if isinstance(run, Learned) else load(run)
    kind = predicts(learned.method)
    at = None if out is None else _place(Path(out), FORMATS.get(kind or "", TABLES))
    learned.method.to(pick_device(device))
    modality = next(iter(learned.architectures))
    named = isinstance(data, str | os.PathLike)
    source = open_data(data, modality=modality if named and ":" not in os.fspath(data) else None)
    if modality not in source.modalities:
        raise RequestError(
            f"{learned.name} was trained on {modality}; {source.name} holds {', '.join(source.modalities)}."
        )
    if keep and kind != "boxes":
        raise RequestError(f"keep is for boxes; {learned.name} predicts {kind}.")
    if (steps or back or season) and kind != "forecasts":
        raise RequestError(f"steps, back and season are for forecasts; {learned.name} predicts {kind}.")
    made: Forecasts | Classes | Boxes | Anomalies
    if kind == "boxes":
        made = detections(learned, source, keep=keep or KEEP, batch_size=batch_size, workers=workers)
    elif kind == "anomalies":
        made = anomalies(learned, source, batch_size=batch_size, workers=workers)
    elif kind == "forecasts":
        made = forecasts(learned, source, steps=steps, back=back, season=season, batch_size=batch_size)
    else:
        facts = learned.preprocessing.get(modality, {})
        source = source.only(modality).conform(modality, facts.get("read", {}))
        made = _classes(learned, Loader(source, batch_size, workers=workers), modality, facts)
    if at is not None:
        if isinstance(made, Boxes):
            _write(made.text(), at)
        else:
            _write(made.columns(), at)
        if not isinstance(made, Classes):
            made.draw(at.with_suffix(".png"))
    return made


def _classes(learned: Learned, loader: Loader, modality: str, facts: Mapping[str, Any]) -> Classes:
    device = next(learned.method.parameters()).device
    ids, found = list[str](), list[torch.Tensor]()
    for chosen, batch in loader.ordered(range(len(loader.source))):
        x = prepare(batch.x[modality], facts).to(device)
        with torch.inference_mode():
            said = learned.method.predict(Batch({modality: x}), Step(Rng(0)))  # type: ignore[operator]
        ids += [loader.source.id(i) for i in chosen]
        found.append(said.cpu())
    names = learned.provenance.get("classes") or [str(k) for k in range(found[0].shape[1])]
    return Classes(tuple(ids), tuple(names), torch.cat(found).double().numpy())


def _place(out: Path, formats: tuple[str, ...]) -> Path:
    if out.suffix.lower() not in formats:
        raise RequestError(f"--out {out}: the ending says the format; expected {' or '.join(formats)}.")
    if not out.parent.is_dir():
        raise RequestError(f"--out {out}: there is no folder {out.parent}.")
    return out


def _write(what: Mapping[str, Any] | str, at: Path) -> None:
    """Columns or a text, whole or not at all. In columns NaN becomes an empty cell."""
    aside = at.with_name(f".writing-{at.name}")
    table = None if isinstance(what, str) else pa.table({k: pa.array(v, from_pandas=True) for k, v in what.items()})
    try:
        if isinstance(what, str):
            aside.write_text(what)
        elif at.suffix.lower() == ".csv":
            import pyarrow.csv

            pyarrow.csv.write_csv(table, aside)
        else:
            import pyarrow.parquet

            pyarrow.parquet.write_table(table, aside)
        os.replace(aside, at)
    except OSError as error:
        raise WorkError(f"Writing {at} failed: {error.strerror}.") from error
