"""The figure of a study: how a bias moves with the dial."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def figure(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The mean bias of each learner over the ratio of availability, on a logarithmic axis, with every seed as a dot."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4.2), layout="constrained")
    axes = drawn.add_subplot()
    names = list(dict.fromkeys(row["learner"] for row in rows))
    for k, name in enumerate(names):
        mine = [row for row in rows if row["learner"] == name]
        ratios = np.array([row["ratio"] for row in mine])
        (line,) = axes.plot(ratios, [row["bias"] for row in mine], label=name, linewidth=2)
        for row in mine:
            beside = row["ratio"] * 1.02 ** (k - len(names) / 2)  # so that learners do not hide each other
            seeds = row["by_seed"]
            axes.plot([beside] * len(seeds), seeds, "o", color=line.get_color(), markersize=3.5, alpha=0.6)
    axes.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("how much more available the shortcut is than the core")
    axes.set_ylabel("shortcut bias")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=144)
    return path
