"""One static page per run: everything it needs is inside it, and nothing is fetched when it is opened."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headwater.core.errors import RequestError
from headwater.report import charts
from headwater.report.table import cell_text, grid, own

LISTED = 200  # unreadable items named on the page; the file beside it names all
LEVELS = {"ok": "Healthy", "watch": "Worth a look", "bad": "Not healthy"}


def render(folder: Path) -> Path:
    """Write `report.html` from what the run in `folder` left there; parts it has not written are left out.

    Raises RequestError if the folder is not a run, or one of its files does not hold what its name says.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    run = _read(folder, "run.json")
    if run is None:
        raise RequestError(f"{folder} is not a run: it has no run.json.")
    environment = Environment(
        loader=PackageLoader("headwater.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = files("headwater.report")
    try:
        content = _content(folder, run)
    except KeyError as error:
        raise RequestError(f"A file of the run {folder} lacks what the report needs of it: {error}.") from error
    page = environment.get_template("template.html").render(
        style=Markup((here / "page.css").read_text()), script=Markup((here / "map.js").read_text()), **content
    )
    target, aside = folder / "report.html", folder / ".report.html.part"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, target)
    return target


def _content(folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    evaluation = _read(folder, "evaluation.json")
    lines = _journal(folder / "metrics.jsonl")
    health = _health(run, _read(folder, "health.json"), lines)
    return {
        "title": _title(run),
        "when": _date(run.get("created")),
        "facts": _facts(run),
        "verdict": _verdict(evaluation, health),
        "evaluation": _evaluation(evaluation),
        "map": _map(folder),
        "adaptation": _read(folder, "adaptation.json"),
        "traits": picture(folder / "traits.png"),
        "views": picture(folder / "views.png"),
        "curves": _curves(lines),
        "events": any("event" in line for line in lines),
        "health": health,
        "summary": (run.get("data") or {}).get("summary"),
        "unreadable": _unreadable(_read(folder, "unreadable.json")),
        "recipe": [line.partition("=")[::2] for line in run.get("recipe", [])],
        "provenance": _provenance(run, evaluation),
    }


def _read(folder: Path, name: str) -> Any:
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON: {error}.") from error


def _journal(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; one cut short by a kill is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _title(run: Mapping[str, Any]) -> tuple[str, str]:
    return str(run.get("method") or "A run"), str((run.get("data") or {}).get("name") or "")


def _date(text: object) -> str:
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    return f"{when.day} {when:%B %Y, %H:%M}"


def _facts(run: Mapping[str, Any]) -> list[str]:
    outcome, data = run.get("outcome") or {}, run.get("data") or {}
    facts = []
    if data.get("n") is not None:
        facts.append(f"{data['n']:,} samples")
    if outcome.get("step") is not None:
        facts.append(f"{outcome['step']:,} steps" + ("" if outcome.get("done", True) else " (stopped early)"))
    if run.get("seconds") is not None:
        facts.append(_duration(run["seconds"]))
    if run.get("device"):
        facts.append(str(run["device"]))
    return facts


def _duration(seconds: int | float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _verdict(evaluation: Mapping[str, Any] | None, health: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The sentence under the title: what was gained if that was measured, else how the training looks."""
    if evaluation and evaluation.get("verdict"):
        level = {True: "ok", False: "bad", None: "watch"}[evaluation["verdict"]["helped"]]
        return {"level": level, "words": evaluation["verdict"]["words"]}
    return None if health is None else {"level": health["level"], "words": health["sentence"]}


def _evaluation(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not evaluation or not evaluation["rows"]:
        return None
    laid = grid(evaluation)
    budgets = [str(b) for b in evaluation["budgets"]]
    percent = evaluation["metric"] == "accuracy"
    # Fine-tuning has no probe of its own to choose: its lines stand, dashed, beside those of every probe.
    probes = list(dict.fromkeys(r["probe"] for r in evaluation["rows"] if r["probe"] != "fine-tuned")) or ["fine-tuned"]
    panels = []
    for probe in probes:
        series: dict[tuple[str, bool], list[charts.Point]] = {}
        for row in evaluation["rows"]:
            if row["probe"] in (probe, "fine-tuned") and math.isfinite(row["mean"]):
                note = f"{row['features']}, {row['probe']}, {row['budget']}: {cell_text(row, evaluation['metric'])}"
                point = charts.Point(budgets.index(str(row["budget"])), row["mean"], row["low"], row["high"], note)
                series.setdefault((row["features"], row["probe"] == "fine-tuned"), []).append(point)
        lines = [
            charts.Series(
                f"{name}, fine-tuned" if tuned and (name, False) in series else name,
                sorted(points, key=lambda p: p.x),
                own(name),
                tuned,
            )
            for (name, tuned), points in series.items()
        ]
        panels.append((probe, charts.budget_chart(lines, budgets, laid.heading, percent) if lines else Markup("")))
    tuned = any(r["probe"] == "fine-tuned" for r in evaluation["rows"]) and probes != ["fine-tuned"]
    return {"panels": panels, "grid": laid, "notes": _fairness(evaluation), "tuned": tuned, "percent": percent}


def _fairness(evaluation: Mapping[str, Any]) -> list[str]:
    data = evaluation["data"]
    notes = [f"Labels are drawn from {data['n_pool']:,} samples; {data['n_test']:,} others are the test."]
    if data.get("seen_unlabelled"):
        notes.append("The encoder has seen the test samples in pre-training, without their labels.")
    elif data.get("seen_unlabelled") is False:
        notes.append("The encoder has not seen the test samples in pre-training.")
    twins = data.get("duplicates_across")
    if twins:
        notes.append(f"{twins:,} test samples have an exact duplicate among those that lend labels.")
    elif twins == 0:
        notes.append("No sample stands on both sides.")
    return notes


def _map(folder: Path) -> dict[str, Any] | None:
    content = _read(folder, "map.json")
    if not content or not content["x"]:
        return None
    sheet = picture(folder / "map.png") if content.get("sprite") else None
    used = set(content["label"] or [])
    return {
        "svg": charts.dots_chart(content["x"], content["y"], content["label"]),
        "content": content,
        "sheet": sheet,
        "layout": content["layout"],
        "legend": [(i, name) for i, name in enumerate(content["classes"]) if i in used],
        "shared": len(used) > charts.COLOURS,
    }


def picture(path: Path) -> dict[str, Any] | None:
    """A PNG as a data address, with its size in pixels."""
    if not path.is_file():
        return None
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        width, height = image.size
    content = base64.b64encode(path.read_bytes()).decode()
    return {"address": f"data:image/png;base64,{content}", "width": width, "height": height}


TITLES = {
    "loss": "Loss",
    "gradient_norm": "Gradient norm",
    "rate": "Learning rate",
    "rankme": "RankMe (dimensions in use)",
    "spread": "Feature spread",
    "items_per_second": "Samples per second",
    "data_wait": "Time spent waiting for data",
    "teacher_entropy": "Teacher entropy",
}
REFERENCES = {
    "loss": ("chance", "chance"),
    "rankme": ("all", "dim"),
    "teacher_entropy": ("uniform", "teacher_entropy_max"),
}
SPOKEN_FOR = {"step", "seconds", *(key for _, key in REFERENCES.values())}


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Small charts of all that was logged: the usual ones first, then what this method says of itself."""
    named = dict.fromkeys(k for line in lines for k, v in line.items() if isinstance(v, int | float))
    names = [n for n in TITLES if n in named] + [n for n in named if n not in TITLES and n not in SPOKEN_FOR]
    events = [(line["step"], str(line["event"])) for line in lines if "event" in line]
    drawn = []
    for name in names:
        kept = [x for x in lines if isinstance(x.get(name), int | float) and math.isfinite(x[name])]
        if len(kept) < 2:
            continue
        label, key = REFERENCES.get(name, ("", ""))
        level = kept[-1].get(key)
        share = 100 if name == "data_wait" else 1
        values = [share * x[name] for x in kept]
        curve = charts.Curve(
            TITLES.get(name, name.replace("_", " ")),
            [x["step"] for x in kept],
            values,
            " %" if name == "data_wait" else "",
            None if level is None or not math.isfinite(level) else (f"{label} {charts.short(level)}", level),
            name == "gradient_norm" and min(values) > 0 and max(values) > 30 * min(values),
            2 * len(kept) < len(lines),
        )
        drawn.append(charts.curve_chart(curve, events))
    return drawn


def _health(run: Mapping[str, Any], file: Any, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    found = (run.get("outcome") or {}).get("verdict") or (file or {}).get("verdict") or file
    if not found or "level" not in found:
        return None
    words = str(found["words"])
    last = {k: v for line in lines for k, v in line.items()}
    losses = [x["loss"] for x in lines if "loss" in x]
    said = []
    if losses:
        chance = f"; a model that knows nothing has {last['chance']:.4g}" if "chance" in last else ""
        said.append(f"The loss went from {losses[0]:.4g} to {losses[-1]:.4g}{chance}.")
    if "rankme" in last:
        said.append(f"The features use about {last['rankme']:.0f} of their {last['dim']:.0f} dimensions (RankMe).")
    if "spread" in last:
        said.append(f"Their spread is {last['spread']:.2f}: 0 is a collapse to one point, 1 is every direction alike.")
    waits = [x["data_wait"] for x in lines if "data_wait" in x]
    if waits:
        said.append(f"Training waited for data {100 * sum(waits) / len(waits):.0f} % of the time.")
    said += [f"At step {line['step']:,}: {line['event']}." for line in lines if "event" in line]
    sentence = words[:1].upper() + words[1:] + ("" if words.endswith((".", "!")) else ".")
    return {"level": found["level"], "heading": LEVELS.get(found["level"], ""), "sentence": sentence, "said": said}


def _unreadable(items: Any) -> dict[str, Any] | None:
    return {"n": len(items), "rows": items[:LISTED], "more": max(0, len(items) - LISTED)} if items else None


def _provenance(run: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    pairs = [("seed", run.get("seed")), ("data fingerprint", (run.get("data") or {}).get("fingerprint"))]
    if evaluation:
        pairs.append(("evaluated on", evaluation["data"].get("name")))
        pairs.append(("its fingerprint", evaluation["data"].get("fingerprint")))
    encoder = run.get("encoder") or {}
    pairs += [(f"encoder {k}", v) for k, v in encoder.items() if isinstance(v, str | int | float)]
    pairs += list((run.get("versions") or {}).items())
    return [(str(k), str(v)) for k, v in pairs if v is not None]
