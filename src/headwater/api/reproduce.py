"""`hw.reproduce`: the central claim of a paper, re-run at the size of a laptop.

A claim compares two numbers per seed. It holds when the difference goes the way the paper says for every seed, by at
least `least`; and it is one only if it fails without the mechanism it is about, which `ablate` shows.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headwater.api import catalogue
from headwater.core.errors import RequestError

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Pair:
    """What was measured with one seed."""

    ours: float
    baseline: float


@dataclass(frozen=True, kw_only=True)
class Claim:
    """
    paper      what the paper claims, in a sentence with its numbers
    claim      what is claimed here: the same, or the weaker thing that shows at this size, and then why it is weaker
    data       what it is measured on
    metric     what the two numbers are, with their unit
    direction  whether more or less of it is better
    baseline   what ours is compared with
    least      the margin that every seed must reach
    measure    seed -> the two numbers
    without    what is taken away in `ablated`, so that the claim must fail
    ablated    seed -> the two numbers when it is gone
    """

    paper: str
    claim: str
    data: str
    metric: str
    direction: Literal["higher", "lower"]
    baseline: str
    measure: Callable[[int], Pair]
    without: str
    ablated: Callable[[int], Pair]
    least: float = 0.0

    def margin(self, pair: Pair) -> float:
        """By how much ours is better."""
        return (pair.ours - pair.baseline) * (1 if self.direction == "higher" else -1)

    def holds(self, pairs: Sequence[Pair]) -> bool:
        margins = [self.margin(p) for p in pairs]
        return bool(np.isfinite(margins).all() and min(margins) >= self.least and min(margins) > 0)


def of(name: str) -> tuple[str, Claim]:
    """The slug and the claim of a method. Raises RequestError where it has none."""
    module = catalogue.claim(name)
    slug = catalogue.slug(catalogue.load(name).__name__)
    if module is None:
        known = ", ".join(catalogue.slug(n) for n in catalogue.claims())
        raise RequestError(f"{slug} has no claim to reproduce. With one: {known}.")
    found: Claim = module.CLAIM
    return slug, found


def reproduce(name: str, seeds: Sequence[int] = SEEDS, *, ablate: bool = False) -> dict[str, Any]:
    """Measures the claim of a method with each seed; with `ablate` without its mechanism, where it must not hold.

    Returns slug, claim, metric, direction, ours, baseline, margin (means over seeds, the margin positive where ours is
    better), spread (of the margin over seeds), seeds, holds, seconds, and what is said in `Claim`.
    """
    slug, claim = of(name)
    if not seeds:
        raise RequestError(f"{slug}: a claim is measured with at least one seed.")
    started = time.monotonic()
    pairs = [(claim.ablated if ablate else claim.measure)(seed) for seed in seeds]
    margins = [claim.margin(p) for p in pairs]
    return {
        "slug": slug,
        "paper": claim.paper,
        "claim": claim.claim,
        "data": claim.data,
        "metric": claim.metric,
        "direction": claim.direction,
        "compared_with": claim.baseline,
        "without": claim.without if ablate else None,
        "ours": float(np.mean([p.ours for p in pairs])),
        "baseline": float(np.mean([p.baseline for p in pairs])),
        "margin": float(np.mean(margins)),
        "spread": float(np.std(margins, ddof=1)) if len(margins) > 1 else None,
        "least": claim.least,
        "seeds": list(seeds),
        "runs": [[p.ours, p.baseline] for p in pairs],
        "holds": claim.holds(pairs),
        "seconds": round(time.monotonic() - started, 1),
    }


def recorded(slug: str) -> dict[str, Any] | None:
    """What `make claims` wrote down of a claim, where this is a checkout that holds it."""
    at = Path(__file__).parents[3] / "benchmarks" / "claims" / f"{slug}.json"
    if not at.is_file():
        return None
    found: dict[str, Any] = json.loads(at.read_text())
    return found
