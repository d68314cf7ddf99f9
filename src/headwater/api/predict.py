"""`hw.predict`: what a method says of data, where it says more than features: forecasts, probabilities of classes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from headwater.api.encoders import prepare
from headwater.api.forecasts import Forecasts, forecasts
from headwater.api.learned import Learned, load, predicts
from headwater.api.pretrain import pick_device
from headwater.core.errors import RequestError, WorkError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data import open as open_data
from headwater.data.loader import Loader

FORMATS = (".parquet", ".csv")


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
    batch_size: int = 256,
    device: str = "auto",
    workers: int = 2,
) -> Forecasts | Classes:
    """What the method of a run predicts for data.

    out     a .parquet or .csv file to write; beside that of forecasts stands a picture of the same name, .png
    steps   of forecasts: only so many
    back    of forecasts: begin so many steps before the end of each series, where the truth is known
    season  of forecasts: its length in steps for the seasonal-naive beside them; found in the data by itself

    Raises RequestError where the method predicts nothing, or not from such data.
    """
    at = None if out is None else _place(Path(out))
    learned = run if isinstance(run, Learned) else load(run)
    learned.method.to(pick_device(device))
    modality = next(iter(learned.architectures))
    named = isinstance(data, str | os.PathLike)
    source = open_data(data, modality=modality if named and ":" not in os.fspath(data) else None)
    if modality not in source.modalities:
        raise RequestError(
            f"{learned.name} was trained on {modality}; {source.name} holds {', '.join(source.modalities)}."
        )
    made: Forecasts | Classes
    if predicts(learned.method) == "forecasts":
        made = forecasts(learned, source, steps=steps, back=back, season=season, batch_size=batch_size)
    elif steps or back or season:
        raise RequestError(f"steps, back and season are for forecasts; {learned.name} predicts classes.")
    else:
        facts = learned.preprocessing.get(modality, {})
        source = source.only(modality).conform(modality, facts.get("read", {}))
        made = _classes(learned, Loader(source, batch_size, workers=workers), modality, facts)
    if at is not None:
        _write(made.columns(), at)
        if isinstance(made, Forecasts):
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


def _place(out: Path) -> Path:
    if out.suffix.lower() not in FORMATS:
        raise RequestError(f"--out {out}: the ending says the format; expected {' or '.join(FORMATS)}.")
    if not out.parent.is_dir():
        raise RequestError(f"--out {out}: there is no folder {out.parent}.")
    return out


def _write(columns: Mapping[str, Any], at: Path) -> None:
    """Whole or not at all. NaN becomes an empty cell."""
    table = pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()})
    aside = at.with_name(f".writing-{at.name}")
    try:
        if at.suffix.lower() == ".csv":
            import pyarrow.csv

            pyarrow.csv.write_csv(table, aside)
        else:
            import pyarrow.parquet

            pyarrow.parquet.write_table(table, aside)
        os.replace(aside, at)
    except OSError as error:
        raise WorkError(f"Writing {at} failed: {error.strerror}.") from error
