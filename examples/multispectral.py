"""GeoTIFF tiles of ten bands: learn from them without labels, then name every kind of land that a tile holds.

python examples/multispectral.py [--steps 200] [--out runs/multispectral]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from sklearn.metrics import average_precision_score

import headwater as hw
from headwater.api.contenders import untrained
from headwater.data.generated.fields import BANDS, CLASSES, field
from headwater.methods.assess.linear_probe import LinearProbe

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="runs/multispectral")
given = parser.parse_args()
TILES, BUDGETS, TEST = 700, (100, 500), 200

# Tiles as GDAL writes them: bands with names, ten metres to the pixel, a place in a grid.
folder = Path(given.out).with_name("tiles")
folder.mkdir(parents=True, exist_ok=True)
named = "".join(f'<Item name="DESCRIPTION" sample="{k}" role="description">{b}</Item>' for k, b in enumerate(BANDS))
tiles, shares = (np.stack(part) for part in zip(*map(field, range(TILES)), strict=True))
for i, tile in enumerate(tiles):
    corner = (500_000.0 + 320 * (i % 40), 5_400_000.0 - 320 * (i // 40))
    tags = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, *corner, 0.0), True)]
    tags.append((42112, "s", 0, f"<GDALMetadata>{named}</GDALMetadata>", True))
    kind = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    tifffile.imwrite(folder / f"{i:04}.tif", tile, extratags=tags, **kind)

data = hw.open(folder)
print("\n".join(hw.doctor(data).lines()))

patch = "encoder.image.tokenizer.patch=8"
run = hw.pretrain("satmae-pp", data, out=given.out, steps=given.steps, batch_size=32, set=[patch])
print(f"\nhealth: {run.outcome.verdict.words}\n")

at = [int(Path(data.id(i)).stem) for i in range(len(data))]
features = {
    "mean and deviation of bands": np.hstack([tiles.mean((2, 3)), tiles.std((2, 3))])[at],
    "untrained encoder": hw.embed(replace(run.encoder, encoder=untrained(run.encoder, 0)), data),
    "pre-trained encoder": hw.embed(run.encoder, data),
}
truth = shares[at] > 0.05  # of its own kind of land, and of its neighbour's where that is more than a strip
order = np.random.default_rng(0).permutation(TILES)
pool, test = order[:-TEST], order[-TEST:]
print(
    f"Mean average precision in % on {TEST} tiles; {truth.sum(1).mean():.1f} of {len(CLASSES)} kinds of land to a tile"
)
print(f"{'labelled tiles':30}" + "".join(f"{n:>8}" for n in BUDGETS))
for title, x in features.items():
    x = (x - x[pool].mean(0)) / x[pool].std(0)
    found = []
    for n in BUDGETS:  # one probe for each kind of land, which says whether a tile holds it
        said = [LinearProbe().fit(x[pool[:n]], one[pool[:n]]).decision_function(x[test]) for one in truth.T]
        found.append(100 * average_precision_score(truth[test], np.stack(said, 1)))
    print(f"{title:30}" + "".join(f"{score:>8.1f}" for score in found))
