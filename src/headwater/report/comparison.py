"""The page of a comparison of encoders: who leads, task by task, what each encoder is, and what failed."""

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from headwater.report.charts import markup, number, svg, ticks

FULL = 2.0  # deviations at which a cell has its full colour
NAMES = {"knn": "kNN", "naive-bayes": "naive Bayes", "ood": "OOD", "linear": "linear probe"}


def render(result: Mapping[str, Any]) -> str:
    """The page of what `hw.compare` returns, in one file that fetches nothing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("headwater.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ranked = sorted((e for e in result["encoders"] if e.get("rank")), key=lambda e: e["rank"])
    families = [*dict.fromkeys(f for e in ranked for f in e["families"])]
    unplaced = [e for e in result["encoders"] if not e.get("rank")]
    return environment.get_template("comparison.html").render(
        style=Markup((files("headwater.report") / "page.css").read_text()),
        encoders=[*ranked, *(e for e in unplaced if "why" not in e)],
        ranked=ranked,
        failed=[e for e in unplaced if "why" in e],
        families=families,
        data=result["data"],
        verdict=result["verdict"],
        level="ok" if len(ranked) > 1 else "watch",
        chart=standing_chart(ranked, families) if ranked else None,
        tables=[_table(d["name"], result, [*ranked, *(e for e in unplaced if "why" not in e)]) for d in result["data"]],
        agreement=_agreement(result),
        failures=_failures(result),
        left_out=[t for t in result["tasks"] if not t["counted"]],
        settings=result["settings"],
        seconds=result["seconds"],
        versions=result["versions"],
        said=_said(result),
        named=lambda task: NAMES.get(task, task),
    )


def standing_chart(encoders: Sequence[Mapping[str, Any]], families: Sequence[str]) -> Markup:
    """One row per encoder, the best on top: the mean z of each family as a dot, that of all as an upright bar."""
    longest = max(len(e["name"]) for e in encoders)
    width, left, right, gap, top, bottom = 880, min(330, max(90, 30 + round(7.6 * longest))), 20, 40, 14, 46
    height = top + gap * len(encoders) + bottom
    shown = [z for e in encoders for z in (*e["families"].values(), e["overall"]) if z is not None]
    reach = max(1.0, max(map(abs, shown), default=1.0)) * 1.08

    def x(z: int | float) -> float:
        return left + (z + reach) / (2 * reach) * (width - left - right)

    parts = [Markup('<g class="grid">')]
    for m in ticks(-reach, reach, 7):
        parts.append(markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', number(x(m)), top, height - bottom))
        parts.append(
            markup('<text x="{}" y="{}" text-anchor="middle">{}</text>', number(x(m)), height - bottom + 20, f"{m:g}")
        )
    parts.append(
        markup(
            '<text x="{}" y="{}" text-anchor="middle">deviations from the mean of the field</text></g>',
            number(x(0)),
            height - 3,
        )
    )
    for i, encoder in enumerate(encoders):
        y = top + gap * (i + 0.5)
        name = encoder["name"] if len(encoder["name"]) <= 42 else f"…{encoder['name'][-41:]}"
        kind = "main" if encoder["rank"] == 1 else "other"
        parts.append(markup('<g class="place {}"><text x="0" y="{}">{}</text>', kind, number(y + 5), name))
        parts.append(
            markup('<line class="track" x1="{}" x2="{}" y1="{}" y2="{}"/>', left, width - right, number(y), number(y))
        )
        for k, family in enumerate(families):
            z = encoder["families"].get(family)
            if z is not None:
                shape = '<circle class="dot c{}" cx="{}" cy="{}" r="5"><title>{}</title></circle>'
                beside = y + 5 * (k - (len(families) - 1) / 2)  # so that equal ones do not hide each other
                parts.append(markup(shape, k, number(x(z)), number(beside), f"{encoder['name']}, {family}: {z:+.2f}"))
        if encoder["overall"] is not None:
            bar = '<rect class="all" x="{}" y="{}" width="5" height="28" rx="2"><title>{}</title></rect>'
            parts.append(
                markup(
                    bar,
                    number(x(encoder["overall"]) - 2.5),
                    number(y - 14),
                    f"{encoder['name']}: {encoder['overall']:+.2f}",
                )
            )
        parts.append(Markup("</g>"))
    return svg(width, height, "where each encoder stands: " + ", ".join(e["name"] for e in encoders), parts)


def shade(z: int | float | None) -> str:
    """The ground of a cell: above the field, below it, or neither, by how much."""
    if z is None or not math.isfinite(z):
        return ""
    share = round(38 * min(1.0, abs(z) / FULL))
    return f"background: color-mix(in srgb, var(--{'accent' if z > 0 else 'watch'}) {share}%, transparent)"


def _table(name: str, result: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tasks = [t for t in result["tasks"] if t["data"] == name]
    found = {(r["encoder"], r["task"]): r for r in result["rows"] if r["data"] == name}
    rows = []
    for encoder in encoders:
        cells = []
        for task in tasks:
            row = found[encoder["name"], task["name"]]
            others = [found[e["name"], task["name"]]["score"] for e in encoders]
            known = [v for v in others if v is not None]
            best = row["score"] is not None and figure(row["score"], task["error"]) == figure(
                (min if task["error"] else max)(known), task["error"]
            )
            told = "failed" if row["score"] is None else figure(row["score"], task["error"])
            note = row["why"] or (f"z {row['z']:+.2f}" if row["z"] is not None else "")
            cells.append({"text": told, "best": best, "style": shade(row["z"]), "note": note})
        rows.append({"name": encoder["name"], "rank": encoder.get("rank"), "cells": cells})
    facts = next(d for d in result["data"] if d["name"] == name)
    return {"name": name, "tasks": tasks, "rows": rows, "facts": facts}


def figure(score: int | float, error: bool) -> str:
    """All tasks are shares: 0.8423 -> '84.2', an error with one digit more."""
    return f"{100 * score:.2f}" if error else f"{100 * score:.1f}"


def _agreement(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Spearman's correlation between tasks, where at least three encoders make a ranking."""
    placed = [e for e in result["encoders"] if e.get("rank")]
    if len(placed) < 3 or len(result["tasks"]) < 2:
        return None
    several = len(result["data"]) > 1
    names = [NAMES.get(t["name"], t["name"]) + (f", {t['data']}" if several else "") for t in result["tasks"]]
    rows = [
        {
            "name": name,
            "cells": [
                {"text": "" if v is None else f"{v:.2f}", "style": shade(None if v is None or i == j else FULL * v)}
                for j, v in enumerate(line)
            ],
        }
        for i, (name, line) in enumerate(zip(names, result["agreement"], strict=True))
    ]
    return {"names": names, "rows": rows}


def _failures(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What failed and why, tasks with the same reason together."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in result["rows"]:
        if row["why"]:
            told.setdefault((row["encoder"], row["why"]), []).append(NAMES.get(row["task"], row["task"]))
    return [{"encoder": e, "why": why, "tasks": ", ".join(dict.fromkeys(tasks))} for (e, why), tasks in told.items()]


def _said(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each task is, once per task and wording."""
    told = dict.fromkeys((NAMES.get(t["name"], t["name"]), t["what"]) for t in result["tasks"])
    return [*told]


def lines(result: Mapping[str, Any]) -> list[str]:
    """The standing and the scores in aligned plain text, for a terminal; the best of each column carries a star."""
    ranked = sorted((e for e in result["encoders"] if e.get("rank")), key=lambda e: e["rank"])
    others = [e for e in result["encoders"] if not e.get("rank") and "why" not in e]
    said = []
    for d in result["data"]:
        table = _table(d["name"], result, [*ranked, *others])
        grid = [["", "rank", *(t["name"] for t in table["tasks"])]]
        for row in table["rows"]:
            cells = [c["text"] + ("*" if c["best"] else " ") for c in row["cells"]]
            grid.append([row["name"], str(row["rank"] or "-"), *cells])
        wide = [max(len(line[k]) for line in grid) for k in range(len(grid[0]))]
        said.append(f"{d['name']}: {d['n_pool']:,} to learn from, {d['n_test']:,} to test on; % (calibration: error)")
        said += [
            "  ".join(t.ljust(w) if k == 0 else t.rjust(w) for k, (t, w) in enumerate(zip(line, wide, strict=True)))
            for line in grid
        ]
    said += [f"{f['encoder']} failed in {f['tasks']}: {f['why']}" for f in _failures(result)]
    said += [f"{e['name']} could not be loaded: {e['why']}" for e in result["encoders"] if "why" in e]
    return [*said, result["verdict"]]
