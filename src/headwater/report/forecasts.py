"""Forecasts as pictures: what was seen, what is forecast, what came, and what repeating the last season would have said."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

PANELS = 6
INKS = {"seen": "#6b7280", "truth": "#111827", "forecast": "#2563eb", "seasonal": "#d97706"}


def forecast_picture(
    titles: Sequence[str],
    past: Float[np.ndarray, "n s"],
    forecast: Float[np.ndarray, "n h"],
    truth: Float[np.ndarray, "n h"],
    seasonal: Float[np.ndarray, "n h"],
    path: Path,
) -> Path:
    """A PNG with one panel per series, of more than six those spread over them. What is not known is NaN."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(titles) - 1, min(PANELS, len(titles))).astype(int))
    figure = Figure(figsize=(9, 0.7 + 2.1 * len(chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    shown = min(past.shape[1], 6 * forecast.shape[1])
    for axes, k in zip(np.atleast_1d(figure.subplots(len(chosen), 1)), chosen, strict=True):
        before, after = np.arange(-shown, 0) + 1, np.arange(forecast.shape[1]) + 1
        axes.plot(before, past[k, -shown:], color=INKS["seen"], label="seen")
        axes.plot(after, seasonal[k], color=INKS["seasonal"], linestyle=":", label="seasonal-naive")
        if not np.isnan(truth[k]).all():
            axes.plot(after, truth[k], color=INKS["truth"], label="truth")
        axes.plot(after, forecast[k], color=INKS["forecast"], label="forecast")
        axes.axvline(0.5, color="#d1d5db", linewidth=1, zorder=0)
        axes.set_title(titles[k], fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    axes.set_xlabel("steps", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    return path
