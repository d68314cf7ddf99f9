"""A map of embeddings in two dimensions, and the sheet of thumbnails that is drawn on it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.report.pictures import pixels

SIDE = 32  # pixels of the longer side of a thumbnail at most


def embedding_map(
    vectors: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    ids: Sequence[str],
    thumbnails: Tensor | None,
    folder: Path,
    seed: int = 0,
    limit: int = 3000,
) -> None:
    """Lay out `vectors` [n d] and write `map.json`, and `map.png` when there are `thumbnails` [n c h w] in [0, 1].

    Of more than `limit` samples, `limit` drawn with `seed` are shown. The same input gives the same map, bit for bit,
    on the same machine. Raises RequestError when the parts are not of one length or a vector is not finite.
    """
    n = len(vectors)
    for name, part in {"labels": labels, "ids": ids, "thumbnails": thumbnails}.items():
        if part is not None and len(part) != n:
            raise RequestError(f"A map of {n} vectors needs {n} {name}; got {len(part)}.")
    if n < 3 or not np.isfinite(vectors).all():
        raise RequestError(f"A map needs at least 3 vectors, all of them finite; got {n}.")
    chosen = np.arange(n)
    if n > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
    place, words = layout(np.asarray(vectors, np.float32)[chosen], seed)
    if n > limit:
        words += f"; {limit:,} of {n:,} samples, drawn at random"
    sprite = None
    if thumbnails is not None:
        sprite = sprite_sheet(thumbnails[chosen.tolist()], folder / "map.png")
    else:
        (folder / "map.png").unlink(missing_ok=True)
    content = {
        "layout": words,
        "x": [round(float(v), 4) for v in place[:, 0]],
        "y": [round(float(v), 4) for v in place[:, 1]],
        "label": None if labels is None else [int(v) for v in labels[chosen]],
        "id": [str(ids[int(i)]) for i in chosen],
        "classes": [str(c) for c in classes],
        "sprite": sprite,
    }
    (folder / "map.json").write_text(json.dumps(content))


def layout(vectors: Float[np.ndarray, "n d"], seed: int) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Coordinates in [0, 1], aspect kept, and how they were found, in words.

    PCA to 30 dimensions, then t-SNE (van der Maaten and Hinton, 2008) from the first two components. 500 iterations
    with a Barnes-Hut angle of 0.8 keep the neighbourhoods of the exact 1,000 at a third of its time.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n, d = vectors.shape
    kept = min(30, d, n - 1)
    perplexity = min(30.0, (n - 1) / 3)
    with threadpool_limits(1):  # sums over threads come in any order, and the map would differ from run to run
        reduced = PCA(kept, svd_solver="full").fit_transform(vectors)
        scale = reduced[:, 0].std()
        if kept < 2 or not scale > 0:
            place = np.concatenate([reduced[:, :1], np.zeros_like(reduced[:, :1])], 1)
            return fitted(place), "the one direction in which the features differ"
        tsne = TSNE(
            2, perplexity=perplexity, init=reduced[:, :2] / scale * 1e-4, max_iter=500, angle=0.8, random_state=seed
        )
        place = tsne.fit_transform(reduced)
    return fitted(place), f"PCA to {kept} dimensions, then t-SNE (perplexity {perplexity:.0f}, 500 iterations)"


def fitted(place: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Moved and scaled into the unit square, the longer side first, so that wide screens are used."""
    span = np.ptp(place, 0)
    if span[1] > span[0]:
        place, span = place[:, ::-1], span[::-1]
    return np.asarray((place - place.min(0)) / max(float(span.max()), 1e-12))


def sprite_sheet(thumbnails: Float[Tensor, "n c h w"], path: Path) -> dict[str, int | bool]:
    """Writes all thumbnails on one sheet, row by row, and returns how to find them there.

    Pictures of one channel that are mostly black (handwriting, spectra) are stored as ink: black is clear, white
    opaque, so that a page can draw them in any colour on any ground.
    """
    tiles = [Image.fromarray(x) for x in pixels(thumbnails)]
    for tile in tiles:
        tile.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    w, h = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = Image.new(tiles[0].mode, (columns * w, math.ceil(len(tiles) / columns) * h))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * w, i // columns * h))
    ink = sheet.mode == "L" and float(np.median(np.asarray(sheet))) < 64
    if ink:
        full = Image.new("L", sheet.size, 255)
        sheet = Image.merge("LA", (full, sheet))
    elif sheet.mode == "RGB":
        sheet = sheet.quantize(256)  # a third of the size, and thumbnails do not show it
    sheet.save(path, optimize=True)
    return {"width": w, "height": h, "columns": columns, "ink": ink}
