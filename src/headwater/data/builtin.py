"""Sets that need no download: scikit-learn's small real ones, and generated ones.

digits            1,797 handwritten digits, float32 [1 8 8] in [0, 1], ten classes (real)
wine              178 wines, 13 measurements, three cultivars (real)
breast-cancer     569 tumours, 30 measurements, two classes (real)
diabetes          442 patients, 10 measurements, a target to regress (real)
sample-photos     two photographs cut into 120 tiles of 64 pixels; the class is the photograph (real)
shapes            3,000 scenes of one shape, 32 pixels; the class is the shape (generated)
captioned-shapes  the same scenes with captions; the class is the pair, such as "red circle" (generated)
captioned-digits  digits with captions made from their labels
waves             1,200 series [2 128] of six kinds of wave (generated)
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.data.array import Memory
from headwater.data.generated import CAPTIONS, COLOURS, SHAPES, WAVES, caption, scenes, waves
from headwater.data.labels import Labels
from headwater.data.source import Source, digest
from headwater.data.text import encode

SCENES = 3000
SERIES = 1200
TILE = 64
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_CAPTIONS = ("a handwritten {}", "the digit {}", "somebody wrote a {}")


class Captioned(Source):
    """Images in memory, each with a text of its own length."""

    modalities = ("image", "text")

    def __init__(self, name: str, images: Tensor, captions: list[str], labels: Labels, note: str) -> None:
        self.name, self.images, self.captions = name, images, captions
        self.labels, self.classes, self.notes = labels.values, labels.classes, (note,)
        longest = max(len(encode(words)) for words in set(captions))
        self.extra = {"text": {"longest": longest}}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i].clone(), "text": encode(self.captions[i])}

    def id(self, i: int) -> str:
        return str(i)

    @property
    def fingerprint(self) -> str:
        return digest(self.images.numpy().tobytes(), "\n".join(self.captions))


def digits(name: str) -> Memory:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy((found.images / 16).astype(np.float32))[:, None].contiguous()
    return Memory(name, {"image": images}, Labels(found.target.astype(np.int64), tuple(map(str, range(10)))))


def wine(name: str) -> Memory:
    from sklearn.datasets import load_wine

    return _measurements(name, load_wine())


def breast_cancer(name: str) -> Memory:
    from sklearn.datasets import load_breast_cancer

    return _measurements(name, load_breast_cancer())


def diabetes(name: str) -> Memory:
    from sklearn.datasets import load_diabetes

    return _measurements(name, load_diabetes(scaled=False))


def _measurements(name: str, found: Mapping[str, Any]) -> Memory:
    values, target = np.asarray(found["data"]), np.asarray(found["target"])
    columns = [str(c) for c in found["feature_names"]]
    kinds = found.get("target_names")
    labels = (
        Labels(target.astype(np.float64), ())
        if kinds is None
        else Labels(target.astype(np.int64), tuple(map(str, kinds)))
    )
    extra = {"table": {"columns": len(columns), "names": columns}}
    return Memory(name, {"table": torch.from_numpy(values.astype(np.float32))}, labels, extra=extra)


def sample_photos(name: str) -> Memory:
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    tiles, kinds = [], []
    for kind, photo in enumerate(found.images):
        for top in range(0, photo.shape[0] - TILE + 1, TILE):
            for left in range(0, photo.shape[1] - TILE + 1, TILE):
                tiles.append(photo[top : top + TILE, left : left + TILE].transpose(2, 0, 1))
                kinds.append(kind)
    classes = tuple(str(f).rpartition("/")[2].removesuffix(".jpg") for f in found.filenames)
    return Memory(name, {"image": torch.from_numpy(np.stack(tiles))}, Labels(np.array(kinds, np.int64), classes))


def shapes(name: str) -> Memory:
    images, shape, _, _ = scenes(SCENES)
    return Memory(name, {"image": images}, Labels(shape, SHAPES))


def captioned_shapes(name: str) -> Captioned:
    images, shape, colour, template = scenes(SCENES)
    captions = [caption(*map(int, picks)) for picks in zip(shape, colour, template, strict=True)]
    pairs = tuple(f"{c} {s}" for s in SHAPES for c in COLOURS)
    note = f"The captions carry the labels: each names its scene's shape and colour in one of {len(CAPTIONS)} phrases."
    return Captioned(name, images, captions, Labels(shape * len(COLOURS) + colour, pairs), note)


def captioned_digits(name: str) -> Captioned:
    found = digits(name)
    assert found.tensors is not None
    assert found.labels is not None
    captions = [DIGIT_CAPTIONS[i % len(DIGIT_CAPTIONS)].format(NUMBERS[k]) for i, k in enumerate(found.labels)]
    note = "The captions carry the labels: each says which digit was written, so learning from them is supervised."
    return Captioned(name, found.tensors["image"], captions, Labels(found.labels, found.classes), note)


def wave_series(name: str) -> Memory:
    values, kinds = waves(SERIES)
    return Memory(name, {"series": values}, Labels(kinds, WAVES))


BUILTINS: Mapping[str, Callable[[str], Source]] = {
    "digits": digits,
    "wine": wine,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "sample-photos": sample_photos,
    "shapes": shapes,
    "captioned-shapes": captioned_shapes,
    "captioned-digits": captioned_digits,
    "waves": wave_series,
}
