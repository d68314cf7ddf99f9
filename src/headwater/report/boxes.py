"""Boxes as pictures: what was found beside what is marked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from headwater.report.pictures import GAP, GREY, HEAD, INKS, pixels

SIDE = 224  # pixels of the longer side of a drawn picture
Row = tuple[float, int, float, float, float, float]  # score, class, left, top, right, bottom


def outlined(
    picture: Float[Tensor, "c h w"], boxes: Float[np.ndarray, "m 6"], names: Sequence[str] = ()
) -> Image.Image:
    """A picture in [0, 1] with its boxes (score, class, left, top, right, bottom in pixels), one ink per class; over each
    stand the name of its class and, where it is below 1, its score. Without names, boxes alone."""
    drawn = Image.fromarray(pixels(picture[None])[0]).convert("RGB")
    ratio = SIDE / max(drawn.size)
    size = (max(1, round(drawn.width * ratio)), max(1, round(drawn.height * ratio)))
    drawn = drawn.resize(size, Image.Resampling.NEAREST if ratio > 1 else Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for score, kind, *edges in boxes[::-1].tolist():  # the best is drawn last
        ink = INKS[int(kind) % len(INKS)]
        left, top, right, bottom = (v * ratio for v in edges)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=ink, width=2)
        if names:
            text = names[int(kind)] + (f" {score:.2f}" if score < 1 else "")
            at = (max(0.0, min(left, drawn.width - pen.textlength(text, font) - 4)), max(0.0, top - 14))
            pen.rectangle((*at, at[0] + pen.textlength(text, font) + 4, at[1] + 14), fill=ink)
            pen.text((at[0] + 2, at[1] + 1), text, "white", font)
    return drawn


def boxes_picture(columns: Sequence[tuple[str, Sequence[Image.Image]]], path: Path) -> Path:
    """A PNG with a column of pictures under each title."""
    font = ImageFont.load_default(14)
    widths = [max(cell.width for cell in cells) for _, cells in columns]
    rows = [max(cells[i].height for _, cells in columns) for i in range(len(columns[0][1]))]
    sheet = Image.new("RGBA", (sum(widths) + GAP * (len(widths) - 1), HEAD + sum(rows) + GAP * (len(rows) - 1)))
    pen, left = ImageDraw.Draw(sheet), 0
    for (title, cells), width in zip(columns, widths, strict=True):
        pen.text((left, 2), title, GREY, font)
        top = HEAD
        for cell, height in zip(cells, rows, strict=True):
            sheet.paste(cell, (left, top))
            top += height + GAP
        left += width + GAP
    sheet.save(path, "PNG", optimize=True)
    return path
