"""Heat maps of what is wrong: the pictures with the highest scores, and for comparison those with the lowest."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from headwater.report.page import picture
from headwater.report.pictures import GAP, GREY, HEAD, pixels

SIDE = 128  # pixels of a drawn picture


@runtime_checkable
class Scored(Protocol):
    """What is drawn; `headwater.api.anomalies` makes it."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: NDArray[Any]
    alarm: float
    promised: float
    maps: NDArray[Any]
    measured: dict[str, Any]
    milliseconds: float
    device: str
    shown: dict[int, tuple[Tensor, NDArray[Any] | None]]
    unreadable: tuple[tuple[str, str], ...]


def sheet(made: Scored, path: Path) -> Path:
    """One row per picture: as it is, with its heat map over it, and the mask where there is one. All maps share one scale,
    from the middle of what is seen to the highest value."""
    from matplotlib import colormaps

    low, high = float(np.median(made.maps)), float(np.quantile(made.maps.reshape(len(made.maps), -1).max(1), 0.98))
    heat = colormaps["inferno"]
    columns = 3 if any(mask is not None for _, mask in made.shown.values()) else 2
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    shown = sorted(made.shown, key=lambda i: -made.scores[i])
    wide, tall = columns * (SIDE + GAP) + 170, HEAD + len(shown) * (SIDE + GAP)
    drawn = Image.new("RGBA", (wide, tall), (0, 0, 0, 0))
    pen = ImageDraw.Draw(drawn)
    for k, title in enumerate(("picture", "what is wrong", "marked")[:columns]):
        pen.text((k * (SIDE + GAP), 2), title, GREY, font)
    for row, i in enumerate(shown):
        x, mask = made.shown[i]
        top = HEAD + row * (SIDE + GAP)
        plain = Image.fromarray(pixels(x[None])[0]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        share = np.clip((made.maps[i] - low) / max(high - low, 1e-12), 0, 1)
        ink = Image.fromarray((heat(share)[..., :3] * 255).astype(np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR
        )
        drawn.paste(plain, (0, top))
        drawn.paste(Image.blend(plain, ink, 0.65), (SIDE + GAP, top))
        if mask is not None:
            marks = Image.fromarray((mask * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            drawn.paste(marks, (2 * (SIDE + GAP), top))
        told = f"{made.scores[i]:.3f}" + ("  wrong" if made.scores[i] > made.alarm else "  in order")
        left = columns * (SIDE + GAP)
        pen.text((left, top + 4), told, GREY, font)
        pen.text((left, top + 24), made.ids[i][-24:], GREY, small)
        pen.text((left, top + 42), made.classes[i][:24], GREY, small)
    drawn.save(path, "PNG", optimize=True)
    return path


def page(made: Scored, drawn: Path) -> str:
    """The page of the scores, in one file that fetches nothing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("headwater.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    wrong = int((made.scores > made.alarm).sum())
    order = np.argsort(-made.scores, kind="stable")[:200]
    return environment.get_template("anomalies.html").render(
        style=Markup((files("headwater.report") / "page.css").read_text()),
        n=len(made.ids),
        wrong=wrong,
        alarm=made.alarm,
        promised=made.promised,
        milliseconds=made.milliseconds,
        device=made.device,
        measured=made.measured,
        sheet=picture(drawn),
        rows=[(made.ids[i], made.classes[i], float(made.scores[i]), bool(made.scores[i] > made.alarm)) for i in order],
        unreadable=made.unreadable,
    )
