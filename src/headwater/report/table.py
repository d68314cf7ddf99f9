"""The table of an evaluation: one row per kind of features and probe, one column per label budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One measured figure. `best`: the highest mean of its budget, as written. `note` holds the draws and the time."""

    text: str
    best: bool
    note: str


@dataclass(frozen=True)
class Row:
    features: str
    probe: str
    cells: list[Cell | None]  # one per budget; None where nothing was measured

    @property
    def own(self) -> bool:
        return own(self.features)


@dataclass(frozen=True)
class Grid:
    budgets: list[str]
    rows: list[Row]
    heading: str  # what the budgets count
    legend: str  # how a cell is to be read


def own(features: str) -> bool:
    """Is this the encoder the run is about, rather than something to compare it with?"""
    return features.startswith("pre-trained")


def figure(value: int | float, metric: str) -> str:
    """0.8423 -> '84.2' for an accuracy, '0.842' for R2; '-' if it is not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"


def cell_text(row: Mapping[str, Any], metric: str) -> str:
    """Mean and half the confidence interval; the mean alone where there is no interval (one draw, or all labels)."""
    text = figure(row["mean"], metric)
    return text if not row["high"] > row["low"] else f"{text} ±{figure((row['high'] - row['low']) / 2, metric)}"


def grid(evaluation: Mapping[str, Any]) -> Grid:
    """The content of `evaluation.json` laid out; rows stay in the order in which they were measured."""
    metric, budgets = evaluation["metric"], [str(b) for b in evaluation["budgets"]]
    measured: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in evaluation["rows"]:
        measured.setdefault((row["features"], row["probe"]), {})[str(row["budget"])] = row
    means = {b: [by[b]["mean"] for by in measured.values() if b in by] for b in budgets}
    tops = {b: max((m for m in values if math.isfinite(m)), default=None) for b, values in means.items()}
    best = {b: None if top is None else figure(top, metric) for b, top in tops.items()}  # equal as written is equal

    def cell(row: Mapping[str, Any] | None, budget: str) -> Cell | None:
        if row is None:
            return None
        draws = ", ".join(figure(v, metric) for v in row["values"])
        note = f"draws: {draws}; {row['seconds']:.1f} s" if row.get("seconds") is not None else f"draws: {draws}"
        return Cell(cell_text(row, metric), figure(row["mean"], metric) == best[budget], note)

    rows = [Row(f, p, [cell(by.get(b), b) for b in budgets]) for (f, p), by in measured.items()]
    classes = metric == "accuracy"
    many = evaluation["draws"] != 1
    legend = ("Accuracy on the test part in %" if classes else "R² on the test part") + (
        f": mean of {evaluation['draws']} draws of the labels ± half its confidence interval" if many else ""
    )
    return Grid(budgets, rows, "Labels per class" if classes else "Labels", legend)


def evaluation_lines(evaluation: dict[str, Any]) -> list[str]:
    """The same table in aligned plain text, for a terminal; the best of each budget carries a star."""
    laid = grid(evaluation)
    table = [["", "", *laid.budgets]]
    for row in laid.rows:
        cells = ["-  " if c is None else c.text + (" *" if c.best else "  ") for c in row.cells]
        table.append([row.features, row.probe, *cells])
    table[0][2:] = [b + "  " for b in laid.budgets]
    widths = [max(len(line[j]) for line in table) for j in range(len(table[0]))]
    lines = [
        "  ".join(
            text.ljust(w) if j < 2 else text.rjust(w) for j, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    left = sum(widths[:2]) + 4
    return [" " * left + laid.heading.lower(), *(x.rstrip() for x in lines), f"{laid.legend}; * is the best."]
