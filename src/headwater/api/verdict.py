"""From measured accuracies to intervals, and from those to a verdict in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

Budget = int | str
OURS = "pre-trained encoder"
Row = dict[str, Any]


def row(title: str, probe: str, budget: Budget, values: list[float], n_test: int, seconds: float) -> Row:
    """One line of the table: the accuracies of all draws, their mean and its 95 % interval."""
    low, high = interval(values, n_test)
    return {
        "features": title,
        "probe": probe,
        "budget": budget,
        "mean": float(np.mean(values)),
        "low": low,
        "high": high,
        "values": values,
        "seconds": seconds,
    }


def interval(values: Sequence[float], n_test: int) -> tuple[float, float]:
    """95 %: Student's t over draws; for a single value, Wilson's over the test items."""
    mean = float(np.mean(values))
    if len(values) == 1:
        if not 0 <= mean <= 1:
            return mean, mean
        found = stats.binomtest(round(mean * n_test), n_test).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def verdict(rows: Sequence[dict[str, Any]], budgets: Sequence[Budget]) -> dict[str, Any]:
    """Whether pre-training helped, budget by budget: ours against the best rival, in words with the numbers."""
    better, worse, words = [], [], []
    for budget in budgets:
        here = [r for r in rows if r["budget"] == budget]
        ours = max((r for r in here if r["features"] == OURS), key=lambda r: r["mean"])
        rivals = [r for r in here if r["features"] != OURS]
        if not rivals:
            continue
        rival = max(rivals, key=lambda r: r["mean"])
        low, high = _difference(ours, rival)
        sign = "better" if low > 0 else "worse" if high < 0 else "no different"
        better += [budget] if low > 0 else []
        worse += [budget] if high < 0 else []
        words.append(
            f"at {budget} label{'s' if budget != 1 else ''}{' per class' if budget != 'all' else ''} {sign} "
            f"({_percent(ours['mean'])} against {_percent(rival['mean'])} by {rival['features']}, {rival['probe']})"
        )
    if not words:
        return {"helped": None, "words": "No rival was measured, so nothing can be said."}
    if better and not worse:
        lead = (
            "Pre-training helped"
            if len(better) == len(words)
            else "Pre-training helped where labels are few"
            if budgets[0] in better
            else "Pre-training helped in part"
        )
    elif worse and not better:
        lead = "Pre-training did not help: do not pre-train on this data with this recipe"
    else:
        lead = (
            "Pre-training made no clear difference"
            if not better
            else "Pre-training helped at some budgets and hurt at others"
        )
    return {
        "helped": True if better and not worse else False if worse and not better else None,
        "words": f"{lead}: {'; '.join(words)}.",
    }


def _difference(ours: dict[str, Any], rival: dict[str, Any]) -> tuple[float, float]:
    """The 95 % interval of ours minus rival: paired over draws; for single values, whether the intervals part."""
    if len(ours["values"]) == len(rival["values"]) > 1:
        return interval(list(np.subtract(ours["values"], rival["values"])), 0)
    return ours["low"] - rival["high"], ours["high"] - rival["low"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if abs(value) <= 1 else f"{value:.2f}"
