"""The page of a curation: what was kept and dropped, in numbers and in pictures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headwater.report.page import picture

ROWS = 40  # of a table
PAGE, PICTURE = "report.html", "kept.png"


@dataclass(frozen=True)
class Story:
    """
    told      what `curation.json` holds
    tables    (title, rows of (name, items before, items kept))
    mixture   (name of a group, its share of the data, its share of what is learned from)
    pairs     (an item, one like it that was dropped, how alike they are)
    drawn     whether kept.png shows some items
    words     what was done, where it is not that some were kept and some dropped
    """

    told: Mapping[str, Any]
    tables: Sequence[tuple[str, Sequence[tuple[str, int, int]]]]
    mixture: Sequence[tuple[str, float, float]] = ()
    pairs: Sequence[tuple[str, str, float]] = ()
    drawn: bool = False
    words: str = ""


def render(folder: Path, story: Story) -> Path:
    """Write `report.html` in `folder`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("headwater.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    tables = []
    for title, rows in story.tables:
        most = max((max(before, after) for _, before, after in rows), default=1)
        shown = [(n, b, a, 100 * b / most, 100 * a / most) for n, b, a in rows[:ROWS]]
        tables.append((title, shown, len(rows) - len(shown)))
    page = environment.get_template("curation.html").render(
        style=Markup((files("headwater.report") / "page.css").read_text()),
        told=story.told,
        tables=tables,
        mixture=story.mixture,
        pairs=story.pairs,
        words=story.words,
        picture=picture(folder / PICTURE) if story.drawn else None,
    )
    aside = folder / f".{PAGE}.part"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, folder / PAGE)
    return folder / PAGE
