"""From measured accuracies to intervals, and from those to a verdict in words."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Budget = int | str
OURS = "pre-trained encoder"
Row = dict[str, Any]


def row(
    title: str, probe: str, budget: Budget, values: list[float], around: tuple[float, float], seconds: float
) -> Row:
    """One line of the table: the scores of all draws, their mean and the 95 % interval around it."""
    low, high = around
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


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % around the mean of two draws or more, by Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def of_items(truth: NDArray[Any], guess: NDArray[Any], numbers: bool) -> tuple[float, float]:
    """95 % around the accuracy on these test items (Wilson), or for `numbers` around R2, by 1,000 resamples of the items."""
    if not numbers:
        found = stats.binomtest(int((guess == truth).sum()), len(truth)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)
    rng, made = np.random.default_rng(0), np.empty(1000)
    for i in range(len(made)):
        at = rng.integers(len(truth), size=len(truth))
        made[i] = 1 - np.square(truth[at] - guess[at]).mean() / max(truth[at].var(), 1e-300)
    return float(np.quantile(made, 0.025)), float(np.quantile(made, 0.975))


def verdict(
    rows: Sequence[Row], budgets: Sequence[Budget], public: Sequence[str] = (), numbers: bool = False
) -> dict[str, Any]:
    """Whether pre-training helped, budget by budget, in words with the numbers: ours against the best of what needs none, and
    against each `public` encoder. `helped` is True where ours is better than all these at some budget and worse at none, False
    where the reverse holds of any, else None. With `numbers` for labels scores are R2, and budgets count labels, not those of
    each class."""
    levels, sentences = list[bool | None](), list[str]()
    better, worse, words = _beside(rows, budgets, {r["features"] for r in rows} - {OURS, *public}, numbers)
    if words:
        levels.append(True if better and not worse else False if worse and not better else None)
        everywhere, early = len(better) == len(words), budgets[0] in better
        helped = "" if everywhere else " where labels are few" if early else " in part"
        lead = {
            True: f"Pre-training helped{helped}",
            False: "Pre-training did not help: do not pre-train on this data with this recipe",
            None: "Pre-training helped at some budgets and hurt at others"
            if better
            else "Pre-training made no clear difference",
        }
        sentences.append(f"{lead[levels[-1]]}: {'; '.join(words)}.")
    for name in public:
        better, worse, words = _beside(rows, budgets, {name}, numbers)
        levels.append(True if better and not worse else False if worse and not better else None)
        lead = {
            True: f"It is better than {name}",
            False: f"Do not pre-train, take {name}",
            None: f"It is better than {name} at some budgets and worse at others"
            if better
            else f"There is no clear difference from {name}, which is at hand already",
        }
        sentences.append(f"{lead[levels[-1]]}: {'; '.join(words)}.")
    if not levels:
        return {"helped": None, "words": "No rival was measured, so nothing can be said."}
    return {"helped": False if False in levels else True if all(levels) else None, "words": " ".join(sentences)}


def _beside(
    rows: Sequence[Row], budgets: Sequence[Budget], rivals: Collection[str], numbers: bool
) -> tuple[list[Budget], list[Budget], list[str]]:
    """The budgets at which ours is better than the best of the rivals, those at which it is worse, and what to say of each."""
    better, worse, words = list[Budget](), list[Budget](), list[str]()
    for budget in budgets:
        here = [r for r in rows if r["budget"] == budget]
        ours = max((r for r in here if r["features"] == OURS), key=lambda r: r["mean"])
        best = max((r for r in here if r["features"] in rivals), key=lambda r: r["mean"], default=None)
        if best is None:
            continue
        low, high = _difference(ours, best)
        sign = "better" if low > 0 else "worse" if high < 0 else "no different"
        better += [budget] if low > 0 else []
        worse += [budget] if high < 0 else []
        each = "" if numbers or budget == "all" else " per class"
        told, other = (f"R² {v:.2f}" if numbers else f"{100 * v:.1f} %" for v in (ours["mean"], best["mean"]))
        words.append(
            f"at {budget} label{'s' if budget != 1 else ''}{each} {sign} "
            f"({told} against {other} by {best['features']}, {best['probe']})"
        )
    return better, worse, words


def _difference(ours: dict[str, Any], rival: dict[str, Any]) -> tuple[float, float]:
    """The 95 % interval of ours minus rival: paired over draws; for single values, whether the intervals part."""
    if len(ours["values"]) == len(rival["values"]) > 1:
        return interval(list(np.subtract(ours["values"], rival["values"])))
    return ours["low"] - rival["high"], ours["high"] - rival["low"]
