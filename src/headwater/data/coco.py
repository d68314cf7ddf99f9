"""Boxes in the JSON of COCO (Lin et al., 2014): `images`, `annotations` with `bbox` [left, top, width, height], and
`categories`. Classes stand in the order of the categories' ids."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headwater.core.errors import RequestError
from headwater.data.drawn import Drawn

PARTS = ("images", "annotations", "categories")


def load(path: str) -> Drawn:
    """Crowds (`iscrowd`, a box around many) are left out and counted, as are boxes of pictures that the file does not
    list. Raises RequestError for what is no such file or contradicts itself."""
    found = _parsed(path)
    where = {_field(image, "id", path, "an image"): i for i, image in enumerate(found["images"])}
    if len(where) < len(found["images"]):
        raise RequestError(f"{path} lists two images with the same id; every image needs its own.")
    keys = [str(_field(image, "file_name", path, "an image")) for image in found["images"]]
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise RequestError(f"{path} lists the file {twice} as two images; once is expected.")
    sizes = [[_side(image, side, path) for side in ("height", "width")] for image in found["images"]]
    kinds = sorted(found["categories"], key=lambda c: _field(c, "id", path, "a category"))
    number = {c["id"]: k for k, c in enumerate(kinds)}
    names = tuple(str(_field(c, "name", path, "a category")) for c in kinds)
    crowds, strangers = 0, []
    rows: list[tuple[int, int, list[float]]] = []
    for mark in found["annotations"]:
        image, kind = (
            _field(mark, "image_id", path, "an annotation"),
            _field(mark, "category_id", path, "an annotation"),
        )
        if kind not in number:
            raise RequestError(
                f"{_called(mark, path)} has the category_id {kind!r}; the categories have "
                f"{', '.join(map(repr, list(number)[:12])) or 'none'}{' ...' if len(number) > 12 else ''}."
            )
        if image not in where:
            strangers.append(mark)
        elif mark.get("iscrowd"):
            crowds += 1
        else:
            rows.append((where[image], number[kind], _box(mark, path)))
    if strangers and not rows:
        raise RequestError(
            f"No annotation of {path} belongs to an image that it lists: {_called(strangers[0], path)} has the image_id "
            f"{strangers[0]['image_id']!r}."
        )
    notes = []
    if strangers:
        told = f"annotation {strangers[0].get('id')} of image {strangers[0]['image_id']!r}"
        notes.append(f"{len(strangers):,} annotations belong to images that {path} does not list, such as {told}.")
    if crowds:
        notes.append(f"{crowds:,} boxes around crowds (iscrowd) are left out.")
    if outlines := sum(bool(mark.get("segmentation")) for mark in found["annotations"]):
        notes.append(f"{outlines:,} annotations have outlines (segmentation) too, which are not read.")
    rows.sort(key=lambda row: row[0])  # stable: the boxes of a picture stay in the order of the file
    boxes = np.array([box for _, _, box in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    counts = np.bincount([i for i, _, _ in rows], minlength=len(keys)) if keys else np.zeros(0, np.int64)
    return Drawn(
        keys,
        boxes.astype(np.float32),
        np.array([k for _, k, _ in rows], np.int64),
        np.concatenate([[0], np.cumsum(counts)]),
        np.array(sizes, np.int64).reshape(-1, 2),
        names,
        notes=tuple(notes),
    )


def _parsed(path: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not JSON ({error}).") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}).") from error
    wanted = "the annotations of COCO hold lists named images, annotations and categories"
    if not isinstance(found, dict):
        raise RequestError(f"{path} holds a {type(found).__name__}, not a JSON object; {wanted}.")
    for part in PARTS:
        if not isinstance(found.get(part), list) or not all(isinstance(entry, dict) for entry in found[part]):
            raise RequestError(
                f"{path} has no list of {part} (it has {', '.join(list(found)[:8]) or 'nothing'}); {wanted}."
            )
    if not found["images"]:
        raise RequestError(f"{path} lists no images.")
    return found


def _called(mark: Mapping[str, Any], path: str) -> str:
    return f"Annotation {mark.get('id', 'without id')} of {path}"


def _field(entry: Mapping[str, Any], name: str, path: str, what: str) -> Any:
    value = entry.get(name)
    if not isinstance(value, int | str):
        raise RequestError(f"{path} holds {what} without {name}: {json.dumps(entry)[:100]}.")
    return value


def _side(image: Mapping[str, Any], name: str, path: str) -> int:
    value = image.get(name)
    if not isinstance(value, int) or value < 1:
        raise RequestError(f"The image {image['file_name']} of {path} has the {name} {value!r}; pixels are expected.")
    return value


def _box(mark: Mapping[str, Any], path: str) -> list[float]:
    box = mark.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(v, int | float) and math.isfinite(v) for v in box)
    ):
        raise RequestError(f"{_called(mark, path)} has the bbox {box!r}; [left, top, width, height] is expected.")
    return [float(v) for v in box]


def document(
    keys: Sequence[str], sizes: Sequence[tuple[int, int]], names: Sequence[str], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The JSON of COCO for boxes with scores: of each picture (file name, height and width) rows of score, class, left, top,
    right and bottom, in pixels. Classes are numbered from 1, as COCO does; `load` reads it back, and passes over scores."""
    marks = [
        {
            "id": 0,
            "image_id": i,
            "category_id": int(kind) + 1,
            "bbox": [left, top, round(right - left, 6), round(bottom - top, 6)],
            "area": round((right - left) * (bottom - top), 6),
            "iscrowd": 0,
            "score": score,
        }
        for i, rows in enumerate(found)
        for score, kind, left, top, right, bottom in rows.tolist()
    ]
    return {
        "images": [
            {"id": i, "file_name": key, "height": high, "width": wide}
            for i, (key, (high, wide)) in enumerate(zip(keys, sizes, strict=True))
        ],
        "annotations": [{**mark, "id": k} for k, mark in enumerate(marks)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
    }
