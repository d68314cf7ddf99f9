"""Forecasts of series by a method that makes them, beside what repeating the last season says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from headwater.api.learned import Learned
from headwater.core.errors import RequestError, Unreadable
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data.source import Source

CLEAR = 0.3  # an autocorrelation from which on a season is believed


@dataclass(frozen=True)
class Forecasts:
    """
    ids, channels   names of the n series and of the c channels that are forecast
    past            what was seen [n c s], in the units of the data, as all else
    values          the forecasts [n c h]
    truth           what came [n c h], NaN where that is not known
    seasonal        the last season, repeated [n c h]
    seasons         its length in steps [n c]; 1 where none is clear: then the last value is repeated
    unreadable      series that could not be read, and why
    """

    ids: tuple[str, ...]
    channels: tuple[str, ...]
    past: Float[np.ndarray, "n c s"]
    values: Float[np.ndarray, "n c h"]
    truth: Float[np.ndarray, "n c h"]
    seasonal: Float[np.ndarray, "n c h"]
    seasons: Int[np.ndarray, "n c"]
    unreadable: tuple[tuple[str, str], ...] = ()

    def errors(self) -> dict[str, float] | None:
        """The mean absolute errors of the forecasts and of the repeated season, each channel in units of the deviation of
        its past; None where nothing of the truth is known."""
        known = ~np.isnan(self.truth)
        if not known.any():
            return None
        unit = np.nanstd(self.past, axis=2, keepdims=True)
        unit = np.where(unit > 0, unit, 1.0)
        ours, seasonal = (np.abs((v - self.truth) / unit)[known].mean() for v in (self.values, self.seasonal))
        return {"forecast": float(ours), "seasonal_naive": float(seasonal)}

    def columns(self) -> dict[str, Any]:
        """One row per series, channel and step; steps count from 1, the first that was not seen."""
        n, c, h = self.values.shape
        return {
            "id": np.repeat(np.array(self.ids, object), c * h),
            "step": np.tile(np.arange(1, h + 1), n * c),
            "channel": np.tile(np.repeat(np.array(self.channels, object), h), n),
            "value": self.values.reshape(-1),
            "truth": self.truth.reshape(-1),
            "seasonal_naive": self.seasonal.reshape(-1),
        }

    def draw(self, path: Path) -> Path:
        from headwater.report.forecasts import forecast_picture

        titles = [f"{i} · {name}" for i in self.ids for name in self.channels]
        flat = (v.reshape(-1, v.shape[2]) for v in (self.past, self.values, self.truth, self.seasonal))
        return forecast_picture(titles, *flat, path)


def forecasts(
    learned: Learned, source: Source, *, steps: int = 0, back: int = 0, season: int = 0, batch_size: int = 256
) -> Forecasts:
    """What comes after each series: after its last known value or, with `back`, so many steps before that, so that the truth
    is known. `steps`: only so many; `season`: its length in steps, found in each channel where none is given."""
    config, method = learned.config, learned.method
    length, horizon = learned.architectures["series"].length, config.horizon
    if not 0 <= steps <= horizon:
        raise RequestError(f"This {learned.name} forecasts {horizon} steps; {steps} are asked for.")
    if back < 0 or season < 0:
        raise RequestError(f"back and season count steps; got {back} and {season}.")
    source = whole(source)
    known: tuple[int, ...] = tuple(getattr(config, "known", ()))
    ids, rows, bad = [], [], []
    for i in range(len(source)):
        try:
            values = source.read(i)["series"]
            assert isinstance(values, torch.Tensor)
            rows.append(_cut(source.id(i), values.numpy().astype(np.float64), length, horizon, known, back))
        except Unreadable as error:
            bad.append((error.item, error.why))
            continue
        ids.append(source.id(i))
    if not rows:
        raise RequestError(f"None of the {len(source)} series of {source.name} can be read, such as {bad[0]}.")
    if len({len(r) for r in rows}) > 1:
        raise RequestError(f"The series of {source.name} differ in their number of channels.")
    cut = np.stack(rows)
    said = _said(method, cut, length, horizon, known, batch_size)
    named = source.reading("series").get("columns") or [str(k) for k in range(cut.shape[1])]
    aims = [k for k in range(cut.shape[1]) if k not in known]
    steps = steps or horizon
    past, truth = cut[:, aims, :length], cut[:, aims, length : length + steps]
    seasons = [[season or period(channel) for channel in one] for one in past]
    repeated = np.stack(
        [[repeat(c, m, steps) for c, m in zip(*o, strict=True)] for o in zip(past, seasons, strict=True)]
    )
    channels = tuple(str(named[k]) for k in aims)
    return Forecasts(tuple(ids), channels, past, said[:, aims, :steps], truth, repeated, np.array(seasons), tuple(bad))


def whole(source: Source) -> Source:
    """The data with long series as they are, not cut into windows."""
    return source.conform("series", {"window": 0}) if source.reading("series").get("window") else source


def _cut(
    item: str, values: Float[np.ndarray, "c t"], length: int, horizon: int, known: Sequence[int], back: int
) -> Float[np.ndarray, "c s"]:
    """The steps that are seen and the `horizon` after them, NaN where the series has none."""
    aims = [k for k in range(len(values)) if k not in known]
    if not aims:
        raise RequestError(f"{item}: all {len(values)} channels are said to be known; none is left to forecast.")
    there = np.flatnonzero(~np.isnan(values[aims]).all(0))
    end = (int(there[-1]) + 1 if len(there) else 0) - back
    if end < length:
        less = f", {back} of them held back" if back else ""
        raise RequestError(
            f"{item}: a forecast is made from {length} steps; the series has {end + back} known ones{less}. Series that are "
            "too short are not filled up: pre-train with a shorter context (--set encoder.series.length=STEPS)."
        )
    cut = np.full((len(values), length + horizon), np.nan)
    part = values[:, end - length : end + horizon]
    cut[:, : part.shape[1]] = part
    lost = [k for k in known if np.isnan(cut[k, length:]).any()]
    if lost:
        raise RequestError(
            f"{item}: channel {lost[0]} is one whose future is known, and {int(np.isnan(cut[lost[0], length:]).sum())} of the "
            f"{horizon} steps to forecast lack its value. Give rows for them, with the other columns empty."
        )
    return cut


def _said(
    method: Any, cut: Float[np.ndarray, "n c t"], length: int, horizon: int, known: Sequence[int], batch_size: int
) -> Float[np.ndarray, "n c h"]:
    device = next(method.parameters()).device
    seen = torch.from_numpy(cut if known else cut[..., :length]).float()
    with torch.inference_mode():
        said = [method.predict(Batch({"series": x.to(device)}), Step(Rng(0))).cpu() for x in seen.split(batch_size)]
    return torch.cat(said).double().numpy()


def filled(channel: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Missing values are read off the line between their neighbours."""
    known = np.flatnonzero(~np.isnan(channel))
    return np.interp(np.arange(len(channel)), known, channel[known]) if len(known) else np.zeros_like(channel)


def period(channel: Float[np.ndarray, " t"]) -> int:
    """The length of the season: where the autocorrelation, once the trend is gone, has its highest peak; 1 where that is not
    clear."""
    x = filled(channel)
    time = np.arange(len(x))
    x = x - np.polyval(np.polyfit(time, x, 1), time)
    if not np.square(x).sum() > 1e-12:
        return 1
    lags = np.correlate(x, x, "full")[len(x) - 1 :]
    r = lags / (len(x) - time) / (lags[0] / len(x))
    inner = r[1 : len(x) // 2 + 1]
    peaks = [k + 1 for k in range(1, len(inner) - 1) if inner[k - 1] < inner[k] >= inner[k + 1] and inner[k] > CLEAR]
    if not peaks:
        return 1
    best = max(r[k] for k in peaks)
    return next(k for k in peaks if r[k] > 0.8 * best)  # of peaks that are alike the first: its multiples are as high


def repeat(channel: Float[np.ndarray, " t"], season: int, steps: int) -> Float[np.ndarray, " h"]:
    """The last season over and over."""
    x = filled(channel)
    season = min(season, len(x))
    return np.resize(x[len(x) - season :], steps)
