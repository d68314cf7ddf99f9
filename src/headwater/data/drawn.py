"""The boxes of a whole set of pictures, in memory, checked against the sizes of the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from headwater.core.errors import RequestError
from headwater.data.source import digest

SHOWN = 5  # classes named in the summary


@dataclass(frozen=True)
class Drawn:
    """Boxes `first[i]` to `first[i + 1]` belong to picture i, which the annotations call `keys[i]`.

    boxes    float32 [n 4], (left, top, right, bottom) in pixels
    classes  int64 [n], indices of `names`
    sizes    int64 [pictures 2], (height, width) of the pictures that the boxes were drawn on
    bad      picture -> why its boxes cannot be read
    """

    keys: Sequence[str]
    boxes: np.ndarray
    classes: np.ndarray
    first: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...]
    bad: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and classes of picture i."""
        part = slice(int(self.first[i]), int(self.first[i + 1]))
        return self.boxes[part], self.classes[part]

    def take(self, pictures: Sequence[int]) -> "Drawn":
        """These pictures, in this order."""
        rows = [np.arange(self.first[i], self.first[i + 1]) for i in pictures]
        chosen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        return replace(
            self,
            keys=[self.keys[i] for i in pictures],
            boxes=self.boxes[chosen],
            classes=self.classes[chosen],
            first=np.cumsum([0, *map(len, rows)]),
            sizes=self.sizes[list(pictures)],
            bad={k: self.bad[i] for k, i in enumerate(pictures) if i in self.bad},
        )

    def within(self) -> "Drawn":
        """Every box cut at the edges of its picture; those of which nothing is left are left out. `notes` count both."""
        picture = np.repeat(np.arange(len(self)), np.diff(self.first))
        most = np.tile(self.sizes[picture][:, ::-1], 2).astype(np.float32)
        cut = np.clip(self.boxes, 0, most)
        flat = ((self.boxes[:, 2:] - self.boxes[:, :2]) <= 0).any(1)
        empty = ((cut[:, 2:] - cut[:, :2]) <= 0).any(1)
        beyond = (cut != self.boxes).any(1) & ~empty
        notes = list(self.notes)
        if flat.any():
            notes.append(f"{_boxes(flat, 'has', 'have')} no area, and left out, such as {self._such(picture, flat)}.")
        if (outside := empty & ~flat).any():
            told = self._such(picture, outside)
            notes.append(f"{_boxes(outside, 'lies', 'lie')} outside the picture, and left out, such as {told}.")
        if beyond.any():
            far = np.abs(cut - self.boxes)[beyond].max()
            told = self._such(picture, beyond)
            notes.append(
                f"{_boxes(beyond, 'reaches', 'reach')} beyond the picture, by up to {far:.4g} pixels, and cut at its "
                f"edge, such as {told}."
            )
        kept = ~empty
        first = np.concatenate([[0], np.cumsum(np.bincount(picture[kept], minlength=len(self)))])
        return replace(self, boxes=cut[kept], classes=self.classes[kept], first=first, notes=tuple(notes))

    def _such(self, picture: np.ndarray, chosen: np.ndarray) -> str:
        i = int(np.flatnonzero(chosen)[0])
        at = " ".join(f"{v:.4g}" for v in self.boxes[i])
        high, wide = self.sizes[picture[i]]
        return f"({at}) of {self.keys[picture[i]]} ({wide} × {high})"

    def summary(self) -> str:
        """How many boxes, of which classes, on how many pictures."""
        each = np.diff(self.first)
        counts = np.bincount(self.classes, minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        told = ", ".join(f"{self.names[k]}: {counts[k]:,}" for k in order[:SHOWN])
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        return (
            f"boxes: {len(self.boxes):,} of {len(self.names)} classes ({told}{more}); {each.min()} to {each.max()} "
            f"per picture, {each.mean():.1f} on average, {(each == 0).sum():,} of {len(self):,} pictures without."
        )

    def fingerprint(self) -> str:
        arrays = (self.boxes, self.classes, self.first, self.sizes)
        return digest(*(a.tobytes() for a in arrays), "\n".join(self.names), repr(sorted(self.bad.items())))


def _boxes(chosen: np.ndarray, one: str, many: str) -> str:
    count = int(chosen.sum())
    return f"{count:,} box {one}" if count == 1 else f"{count:,} boxes {many}"


def partners(pictures: Sequence[str], keys: Sequence[str], what: str) -> np.ndarray:
    """For each picture the number of the key that means it, -1 where none does: by the same path, else by the path
    without the first folder of either, else by the bare name, whichever finds most. Raises RequestError where nothing is
    found, or a name means several pictures."""
    best, unclear = np.full(len(pictures), -1), ""
    for mine, theirs in ((_whole, _whole), (_inner, _whole), (_whole, _inner), (_base, _base)):
        number: dict[str, int] = {}
        for k, key in enumerate(keys):
            number[theirs(key)] = -2 if theirs(key) in number else k
        found = np.array([number.get(mine(name), -1) for name in pictures], np.int64)
        hits, counts = np.unique(found[found != -1], return_counts=True)
        if (hits == -2).any() or (counts > 1).any():
            twice = found == (-2 if (hits == -2).any() else hits[counts > 1][0])
            unclear = unclear or mine(pictures[int(np.flatnonzero(twice)[0])])
        elif (found >= 0).sum() > (best >= 0).sum():
            best = found
    if (best >= 0).any():
        return best
    if unclear:
        raise RequestError(
            f"The name {unclear} of {what} means several files; open the folder that holds the pictures alone."
        )
    raise RequestError(f"{what} names none of the pictures; it has {keys[0]!r}, the pictures are {pictures[0]!r}.")


def _whole(name: str) -> str:
    return name.removeprefix("./")


def _inner(name: str) -> str:
    return name.partition("/")[2] or name


def _base(name: str) -> str:
    return name.rpartition("/")[2]
