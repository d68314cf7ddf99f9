"""A contact sheet of what a method sees: one row per sample, one column per view."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from headwater.core.errors import RequestError

SMALL, LARGE = 96, 224  # pictures are enlarged to about the first and shrunk to at most the second
PLOT = (220, 80)  # pixels of a plotted series
GAP, HEAD = 8, 26
GREY = (125, 130, 138, 255)  # readable on white and on black alike
INKS = [(63, 144, 218), (231, 99, 0), (131, 45, 182), (148, 164, 162), (189, 31, 1), (169, 107, 89)]


def views_picture(columns: Sequence[tuple[str, Tensor]], path: Path) -> Path:
    """Draw columns of (title, samples) as a PNG on a clear ground.

    Images [n c h w] in [0, 1] keep their relative sizes: small ones are enlarged by nearest neighbour, all by the same
    factor. Series [n c t] become line plots, one line per channel, on the scale of their row. Raises RequestError when
    there is nothing that can be drawn, or the columns differ in kind or number.
    """
    shapes = {(x.ndim, len(x)) for _, x in columns}
    if len(shapes) != 1 or next(iter(shapes))[0] not in (3, 4) or next(iter(shapes))[1] == 0:
        seen = ", ".join(f"{title} {list(x.shape)}" for title, x in columns) or "nothing"
        raise RequestError(
            f"Views can be drawn of images [n c h w] or of series [n c t], as many in each column; got {seen}."
        )
    tensors = [x.detach().float().cpu().nan_to_num(0) for _, x in columns]
    drawn = _images(tensors) if tensors[0].ndim == 4 else _plots(tensors)
    font = ImageFont.load_default(14)
    titles = [title for title, _ in columns]
    widths = [
        max(max(cell.width for cell in column), int(font.getlength(title)) + 1)
        for title, column in zip(titles, drawn, strict=True)
    ]
    heights = [max(column[i].height for column in drawn) for i in range(len(drawn[0]))]
    size = (sum(widths) + GAP * (len(widths) - 1), HEAD + sum(heights) + GAP * (len(heights) - 1))
    sheet = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(sheet)
    left = 0
    for title, column, width in zip(titles, drawn, widths, strict=True):
        pen.text((left, 2), title, GREY, font)
        top = HEAD
        for cell, height in zip(column, heights, strict=True):
            sheet.paste(cell, (left, top))
            top += height + GAP
        left += width + GAP
    sheet.save(path, "PNG", optimize=True)
    return path


def pixels(images: Float[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n h w"] | UInt8[np.ndarray, "n h w 3"]:
    """Bytes as Pillow wants them: grey for one or two channels, the first three as red, green and blue for more."""
    kept = images[:, :1] if images.shape[1] < 3 else images[:, :3]
    values = (kept.detach().float().cpu().nan_to_num(0).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return values[..., 0] if values.shape[-1] == 1 else values


def _images(tensors: Sequence[Tensor]) -> list[list[Image.Image]]:
    side = max(max(x.shape[-2:]) for x in tensors)
    factor = max(1, round(SMALL / side))
    shrink = min(1.0, LARGE / side)

    def cell(array: np.ndarray) -> Image.Image:
        image = Image.fromarray(array)
        if shrink < 1:
            size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
            return image.resize(size, Image.Resampling.LANCZOS)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)

    return [[cell(a) for a in pixels(x)] for x in tensors]


def _plots(tensors: Sequence[Tensor]) -> list[list[Image.Image]]:
    low = np.min([x.flatten(1).min(1).values.numpy() for x in tensors], axis=0)
    high = np.max([x.flatten(1).max(1).values.numpy() for x in tensors], axis=0)
    return [[_plot(s.numpy(), float(low[i]), float(high[i])) for i, s in enumerate(x)] for x in tensors]


def _plot(series: Float[np.ndarray, "c t"], low: float, high: float) -> Image.Image:
    """Drawn four times as large and shrunk, which smooths the lines."""
    width, height = PLOT[0] * 4, PLOT[1] * 4
    image = Image.new("RGBA", (width, height), (*GREY[:3], 0))
    pen = ImageDraw.Draw(image)
    pen.line([(0, height - 2), (width, height - 2)], GREY, 3)
    xs = np.linspace(6, width - 6, series.shape[1])
    for j, channel in enumerate(series):
        ys = height - 14 - (channel - low) / max(high - low, 1e-12) * (height - 28)
        pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), (*INKS[j % len(INKS)], 255), 6, "curve")
    return image.resize(PLOT, Image.Resampling.LANCZOS)
