"""Sets that need no download: scikit-learn's small real ones, and generated ones.

digits            1,797 handwritten digits, float32 [1 8 8] in [0, 1], ten classes (real)
wine              178 wines, 13 measurements, three cultivars (real)
breast-cancer     569 tumours, 30 measurements, two classes (real)
diabetes          442 patients, 10 measurements, a target to regress (real)
sample-photos     two photographs cut into 120 tiles of 64 pixels; the class is the photograph (real)
captioned-digits  digits with captions made from their labels

and those of `generated`.
"""

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch

from headwater.core.errors import RequestError, spelled
from headwater.data.array import Memory
from headwater.data.captioned import Captioned
from headwater.data.generated import SETS as GENERATED
from headwater.data.labels import Labels
from headwater.data.rows import Rows
from headwater.data.source import Source

TILE = 64
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_CAPTIONS = ("a handwritten {}", "the digit {}", "somebody wrote a {}")


def digits(name: str) -> Memory:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy((found.images / 16).astype(np.float32))[:, None].contiguous()
    return Memory(name, {"image": images}, Labels(found.target.astype(np.int64), tuple(map(str, range(10)))))


def wine(name: str) -> Rows:
    from sklearn.datasets import load_wine

    return _measurements(name, load_wine())


def breast_cancer(name: str) -> Rows:
    from sklearn.datasets import load_breast_cancer

    return _measurements(name, load_breast_cancer())


def diabetes(name: str) -> Rows:
    from sklearn.datasets import load_diabetes

    return _measurements(name, load_diabetes(scaled=False))


def _measurements(name: str, found: Mapping[str, Any]) -> Rows:
    values, target = np.asarray(found["data"]), np.asarray(found["target"])
    columns = [str(c) for c in found["feature_names"]]
    kinds = found.get("target_names")
    labels = (
        Labels(target.astype(np.float64), ())
        if kinds is None
        else Labels(target.astype(np.int64), tuple(map(str, kinds)))
    )
    return Rows(name, torch.from_numpy(values.astype(np.float32)), columns, labels=labels)


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


def captioned_digits(name: str) -> Captioned:
    found = digits(name)
    assert found.labels is not None
    captions = [DIGIT_CAPTIONS[i % len(DIGIT_CAPTIONS)].format(NUMBERS[k]) for i, k in enumerate(found.labels)]
    note = "The captions carry the labels: each says which digit was written, so learning from them is supervised."
    return Captioned(found, captions, notes=(note,))


BUILTINS: Mapping[str, Callable[[str], Source]] = {
    "digits": digits,
    "wine": wine,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "sample-photos": sample_photos,
    "captioned-digits": captioned_digits,
    **GENERATED,
}


def missing(what: str, at: str) -> RequestError:
    """The error for `what`, a path `at` which there is nothing, with the nearest that there is, here or built in."""
    parent = os.path.dirname(at) or "."
    while not os.path.isdir(parent):
        at, parent = parent, os.path.dirname(parent) or "."
    near = get_close_matches(os.path.basename(at), os.listdir(parent), n=1, cutoff=0.5)
    hint = f" Did you mean {os.path.join(os.path.dirname(at), near[0])}?" if near else ""
    if os.sep in what:
        return RequestError(f"There is no file or folder {what!r}.{hint}")
    set_near = get_close_matches(spelled(what), BUILTINS, n=1, cutoff=0.5)
    hint += f" Did you mean the built-in set {set_near[0]}?" if set_near else ""
    return RequestError(
        f"There is no file or folder {what!r} and no built-in set of that name.{hint} Built in: {', '.join(BUILTINS)}."
    )
