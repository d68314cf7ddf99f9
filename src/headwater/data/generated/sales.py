"""A table of mixed kinds: sales, 1,500 rows of numbers and words, one cell in twenty missing; the class is the season's
outcome, which depends on how columns go together and hardly on any one alone.
"""

import numpy as np
import torch

from headwater.data.labels import Labels
from headwater.data.rows import Rows

ROWS, LOST = 1500, 0.05
WORDS = {
    "shop": ["airport", "harbour", "market", "station"],
    "goods": ["coats", "hats", "lamps", "shoes", "tents"],
    "weather": ["dry", "mixed", "wet"],
}
CLASSES = ("loss", "even", "gain", "rush")


def row(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Nine cells and the class. A hidden kind of customer shapes all columns a little."""
    kind = int(draw.integers(4))
    shop = int(draw.choice(4, p=np.roll([0.37, 0.21, 0.21, 0.21], kind)))
    goods = int(draw.choice(5, p=np.roll([0.28, 0.18, 0.18, 0.18, 0.18], kind)))
    weather = int(draw.choice(3, p=np.roll([0.4, 0.3, 0.3], kind % 3)))
    price, staff = (
        draw.normal(20 + 3 * np.cos(kind * np.pi / 2), 6),
        draw.normal(5 + 0.7 * np.sin(kind * np.pi / 2), 1.5),
    )
    footfall = draw.normal(300 + 40 * (staff - 5) * (1 if kind % 2 else -1), 40)
    discount, stock = np.clip(draw.normal(0.3 + 0.05 * kind, 0.15), 0, 1), draw.gamma(2 + kind / 2, 40)
    rating = np.clip(draw.normal(3 + 0.3 * np.cos(kind * np.pi), 0.8), 1, 5)
    return np.array([shop, goods, weather, price, staff, footfall, discount, stock, rating], np.float32), kind


def sales(name: str) -> Rows:
    cells, kinds = np.empty((ROWS, 9), np.float32), np.empty(ROWS, np.int64)
    for i in range(ROWS):
        draw = np.random.default_rng((9, i))
        cells[i], kinds[i] = row(draw)
        cells[i, draw.random(9) < LOST] = np.nan
    names = [*WORDS, "price", "staff", "footfall", "discount", "stock", "rating"]
    return Rows(name, torch.from_numpy(cells), names, WORDS, Labels(kinds, CLASSES))


SETS = {"sales": sales}
