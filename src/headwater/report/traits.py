"""Where a class is seen: pictures, and over them the attention that its prompt pays, head by head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from headwater.report.boxes import boxes_picture
from headwater.report.pictures import GREY, pixels

SIDE = 128  # pixels of a drawn picture
CAPTION = 18


@dataclass(frozen=True)
class Seen:
    """A picture in [0, 1] and, for a class, the maps of the heads that it needs most. `caption` says which class."""

    picture: Float[Tensor, "c h w"]
    caption: str
    maps: Float[Tensor, "k y x"]
    heads: tuple[int, ...]


def traits_picture(rows: Sequence[Seen], path: Path) -> Path:
    """A PNG with a row for each: the picture, then its maps over it, each on a scale of its own from nothing to its highest."""
    from matplotlib import colormaps

    heat, columns = colormaps["inferno"], list[tuple[str, list[Image.Image]]]()
    plain = [Image.fromarray(pixels(r.picture[None])[0]).convert("RGB").resize((SIDE, SIDE)) for r in rows]
    columns.append(("picture", [_captioned(p, r.caption) for p, r in zip(plain, rows, strict=True)]))
    for k, title in enumerate(("most needed head", "second", "third")[: len(rows[0].maps)]):
        cells = []
        for image, row in zip(plain, rows, strict=True):
            share = (row.maps[k] / row.maps[k].max().clamp(min=1e-12)).cpu().numpy()
            ink = Image.fromarray((heat(share)[..., :3] * 255).astype(np.uint8))
            over = Image.blend(image, ink.resize((SIDE, SIDE), Image.Resampling.BILINEAR), 0.65)
            cells.append(_captioned(over, f"head {row.heads[k] + 1}"))
        columns.append((title, cells))
    return boxes_picture(columns, path)


def _captioned(image: Image.Image, text: str) -> Image.Image:
    font = ImageFont.load_default(12)
    out = Image.new("RGBA", (max(image.width, int(font.getlength(text)) + 2), image.height + CAPTION), (0, 0, 0, 0))
    out.paste(image, (0, 0))
    ImageDraw.Draw(out).text((0, image.height + 1), text, GREY, font)
    return out
