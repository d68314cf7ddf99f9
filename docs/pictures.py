"""Draws docs/modalities/*.png: items of each generated twin beside two views of them, as a run's report shows them.

python docs/pictures.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import headwater as hw
from headwater.api import catalogue
from headwater.api.encoders import prepare
from headwater.api.pretrain import preprocessing
from headwater.api.recipe import recipe_for
from headwater.api.views_sheet import draw_views
from headwater.data.generated import TWINS

PAGES = Path(__file__).parent / "modalities"
NAMED = {"image": "images", "table": "tables", "graph": "graphs", "volume": "volumes"}  # others go by their own name


def main() -> None:
    for modality, twin in TWINS.items():
        source = hw.open(twin)
        recipe = recipe_for(catalogue.load("simclr"), source.spec, len(source), len(source.classes))
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "views.png"
            draw_views(path, recipe, source, lambda m, x: prepare(x, preprocessing(m, recipe, source)))  # noqa: B023
            if path.is_file():
                whole = Image.open(path)
                on_white = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
                on_white.quantize(64).save(PAGES / f"{NAMED.get(modality, modality)}.png", optimize=True)


if __name__ == "__main__":
    main()
