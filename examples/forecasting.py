"""Real series forecast by a small model that learned from generated ones alone: at once, and after a little tuning on their
past, with and without columns whose future is known. Rivals are the last season repeated and a ridge regression.

python examples/forecasting.py [--steps 1500] [--out runs/forecasting]

Sunspots by year, carbon dioxide and the warmth of the Pacific by month and the growth of America's economy by quarter are
statsmodels' own; `pip install --no-deps aeon` adds passengers by month, solar power by the half-hour and consumption by
quarter.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.linear_model import RidgeCV

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--out", default="runs/forecasting")
given = parser.parse_args()
folder = Path(given.out)
folder.mkdir(parents=True, exist_ok=True)
SEEN, AHEAD = 48, 12

# Each series with the length of its season. Of the columns after the first the future is taken as known.
load = {name: getattr(sm.datasets, name).load_pandas().data for name in ("sunspots", "co2", "elnino", "macrodata")}
growth = 100 * np.log(load["macrodata"][["realgdp", "realcons", "realinv"]]).diff().iloc[1:]
real = {
    "sunspots": (11, load["sunspots"][["SUNACTIVITY"]]),
    "co2": (12, load["co2"].resample("MS").mean()),
    "pacific": (12, pd.DataFrame({"warmth": load["elnino"].iloc[:, 1:].to_numpy().ravel()})),
    "gdp": (1, growth[["realgdp"]]),
    "gdp, told": (1, growth),
}
if (aeon := find_spec("aeon")) and aeon.submodule_search_locations:  # its files alone: the code wants another numpy
    at = Path(aeon.submodule_search_locations[0]) / "datasets" / "data"
    change = pd.read_csv(at / "Uschange" / "Uschange.csv").iloc[:, 2:]
    real |= {
        "airline": (12, pd.read_csv(at / "Airline" / "Airline.csv")[["Passengers"]]),
        "solar": (48, pd.read_csv(at / "solar" / "solar.csv")[["solar_gen"]]),
        "consumption": (1, change[["Consumption"]]),
        "..., told": (1, change),
    }


def windows(series: np.ndarray, first: int, end: int) -> np.ndarray:
    """[n c 60]: all stretches whose future lies between these steps of a series [c t]."""
    starts = range(max(0, first - SEEN), end - SEEN - AHEAD + 1)
    return np.stack([series[:, s : s + SEEN + AHEAD] for s in starts])


def ridge(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """[n h] from all that is seen or known, in units of each window's own past; gaps count as its mean."""

    def parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
        mean, scale = np.nanmean(x[:, 0, :SEEN], 1, keepdims=True), np.nanstd(x[:, 0, :SEEN], 1, keepdims=True)
        aim = np.nan_to_num((x[:, 0] - mean) / scale)
        return np.hstack([aim[:, :SEEN], x[:, 1:].reshape(len(x), -1)]), aim[:, SEEN:], mean, scale

    seen, future, *_ = parts(train)
    fitted = RidgeCV(np.logspace(-2, 4, 13)).fit(seen, future)
    seen, _, mean, scale = parts(test)
    return fitted.predict(seen) * scale + mean


pretrained = folder / "pretrained"
shape = [f"encoder.series.length={SEEN}", f"method.horizon={AHEAD}", "fit.optimiser.rate=5e-3"]
hw.pretrain("ttm", "seasons", out=pretrained, steps=given.steps, batch_size=128, set=shape)

print(f"Mean square error of {AHEAD} steps, in variances of the part tuned on; * is the least")
ways = ("zero-shot", "few-shot", "seasonal-naive", "ridge")
print(f"{'':12}" + "".join(f"{w:>16}" for w in ways) + "   windows tuned on, tested on")
for name, (season, frame) in real.items():
    series = frame.to_numpy(float).T
    cut = int(0.7 * series.shape[1])
    train, test = windows(series, 0, cut), windows(series, cut, series.shape[1])
    zero = hw.predict(pretrained, test[:, :1], back=AHEAD, season=season)

    tuned = folder / name.replace(", ", "-").strip(".-")
    changes = ["method.frozen=true", "fit.optimiser.rate=5e-4", f"method.known={tuple(range(1, len(series)))}"]
    hw.pretrain("ttm", train, out=tuned, go_on=pretrained, steps=max(10, given.steps // 15), batch_size=16, set=changes)
    few = hw.predict(tuned, test, back=AHEAD)

    said = (zero.values[:, 0], few.values[:, 0], zero.seasonal[:, 0], ridge(train, test))
    errors = [np.nanmean((v - zero.truth[:, 0]) ** 2) / np.nanvar(series[0, :cut]) for v in said]
    cells = "".join(f"{e:>15.3f}{'*' if e == min(errors) else ' '}" for e in errors)
    print(f"{name:12}{cells}   {len(train)}, {len(test)}")

    table = folder / f"{tuned.name}.csv"  # as a user has it: the last steps are forecast, and drawn beside what came
    frame.to_csv(table, index=False)
    hw.predict(tuned, table, out=folder / f"{tuned.name}-forecast.csv", back=AHEAD, season=season)
print(f"\nForecasts of the last {AHEAD} steps and their pictures: {folder}/*-forecast.csv and .png")
