"""Multispectral tiles of land: fields, 1,000 tiles of 32 pixels in ten bands; the class is what most of a tile is.

Neither spectrum nor texture tells the class alone: a vineyard and an orchard are both green over soil, stripes are vineyard
or stubble. Sun, haze, moisture and season vary; a neighbour covers a corner.
"""

import numpy as np

from headwater.data.array import Memory, tensor
from headwater.data.labels import Labels

TILES = 1000
SIDE = 32
BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")  # as Sentinel-2 calls them: blue to infrared
HAZE = np.array([1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.18, 0.05, 0.03])  # scattered light falls with the wavelength
WATER = np.array([0.1, 0.1, 0.1, 0.15, 0.2, 0.2, 0.25, 0.3, 1.0, 1.0])  # how much of each band moisture swallows
UNIT = 10_000  # numbers of a reflectance of one
SPECTRA = {
    "soil": (0.08, 0.11, 0.15, 0.18, 0.20, 0.22, 0.24, 0.25, 0.32, 0.28),
    "green": (0.03, 0.06, 0.04, 0.10, 0.27, 0.33, 0.36, 0.38, 0.18, 0.09),
    "ripe": (0.06, 0.09, 0.12, 0.16, 0.22, 0.25, 0.28, 0.30, 0.28, 0.19),
    "needles": (0.02, 0.04, 0.03, 0.06, 0.16, 0.20, 0.22, 0.24, 0.10, 0.05),
    "roofs": (0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.22, 0.20),
}
# what covers the ground, what lies between, and how both are laid out
CLASSES = {
    "meadow": ("green", "soil", "even"),
    "vineyard": ("green", "soil", "stripes"),
    "orchard": ("green", "soil", "dots"),
    "wheat": ("ripe", "soil", "even"),
    "stubble": ("ripe", "soil", "stripes"),
    "forest": ("needles", "green", "clumps"),
    "heath": ("needles", "ripe", "even"),
    "town": ("roofs", "green", "dots"),
}


def layout(kind: str, share: float, draw: np.random.Generator) -> np.ndarray:
    """How much of each pixel [h w] is covered: about `share` of all."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    turn, period, phase = draw.uniform(0, np.pi), draw.uniform(4, 8), draw.uniform(0, 2 * np.pi, 2)
    along = 2 * np.pi * (np.cos(turn) * x + np.sin(turn) * y) / period + phase[0]
    across = 2 * np.pi * (np.cos(turn) * y - np.sin(turn) * x) / period + phase[1]
    if kind == "stripes":
        level = np.cos(along)
    elif kind == "dots":
        level = np.cos(along) + np.cos(across)
    else:  # a field of random waves, long ones where it is even and shorter ones where it clumps
        low, high = (10, 40) if kind == "even" else (5, 9)
        turns, lengths = draw.uniform(0, np.pi, 12), draw.uniform(low, high, 12)
        waves = (np.cos(turns)[:, None, None] * x + np.sin(turns)[:, None, None] * y) / lengths[:, None, None]
        level = np.cos(2 * np.pi * (waves + draw.uniform(size=12)[:, None, None])).sum(0)
    if kind == "even":
        return np.clip(share + 0.06 * level / level.std(), 0, 1)
    away = (level - np.quantile(level, 1 - share)) / level.std()
    return np.clip(0.5 + 2 * away, 0, 1)  # soft edges, as of mixed pixels


def ground(kind: str, draw: np.random.Generator) -> np.ndarray:
    """The reflectance [10 h w] of one class."""
    cover, between, laid = CLASSES[kind]
    amount = layout(laid, draw.uniform(0.4, 0.65), draw)
    above, below = (np.array(SPECTRA[s]) * draw.normal(1, 0.08, len(BANDS)) for s in (cover, between))
    return amount * above[:, None, None] + (1 - amount) * below[:, None, None]


def field(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Tile i: (uint16 [10 h w], the share of it that is of each class, float64 [8])."""
    draw = np.random.default_rng((11, i))
    names = list(CLASSES)
    most, other = draw.choice(len(names), 2, replace=False)
    tile, beside = ground(names[most], draw), ground(names[other], draw)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    turn = draw.uniform(0, 2 * np.pi)
    way = np.cos(turn) * x + np.sin(turn) * y
    beyond = way > np.quantile(way, draw.uniform(0.65, 1.0))
    tile = np.where(beyond, beside, tile)
    moist, haze, sun = draw.uniform(0, 0.4), draw.uniform(0, 0.06), draw.uniform(0.7, 1.3)
    seen = sun * tile * (1 - moist * WATER)[:, None, None] + haze * HAZE[:, None, None]
    seen = seen * draw.normal(1, 0.05, (SIDE, SIDE)) + draw.normal(0, 0.008, seen.shape)
    shares = np.zeros(len(names))
    shares[other] = beyond.mean()
    shares[most] = 1 - shares[other]
    return np.clip(seen * UNIT, 1, 65535).round().astype(np.uint16), shares


def fields(name: str) -> Memory:
    tiles, shares = (np.stack(part) for part in zip(*map(field, range(TILES)), strict=True))
    labels = Labels(shares.argmax(1), tuple(CLASSES))
    return Memory(name, {"image": tensor(tiles, "image")}, labels, extra={"image": {"bands": BANDS}})


SETS = {"fields": fields}
