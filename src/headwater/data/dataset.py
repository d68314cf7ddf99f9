"""Data sets of torch and of Hugging Face, as they are: nothing is copied, items are asked for when they are read."""

import functools
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable, unknown
from headwater.core.types import Sample
from headwater.data import image
from headwater.data.array import MODALITIES, labels_of, plain, tensor
from headwater.data.files import FileSource
from headwater.data.labels import LABEL_COLUMNS, Labels, encode
from headwater.data.source import Source, content, digest
from headwater.data.stores import Store
from headwater.data.table import from_table


class Items(Source):
    """A torch data set: `__len__`, and `__getitem__` that gives a tensor, an array, a Pillow image, or (that, label).

    Labels are taken from `targets` or `labels` if the data set has one of them; else every item is read once, when
    labels are first asked for. The fingerprint covers the type, the length and up to 64 items.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self.name = dataset, name
        if not len(dataset):
            raise RequestError(f"The data set {name} has no items.")
        first = dataset[0]
        self._paired = isinstance(first, tuple | list) and len(first) == 2
        self.modalities = (self._sample(first, 0)[0],)

    @functools.cached_property
    def _found(self) -> Labels | None:
        if not self._paired:
            return None
        given = next((v for a in ("targets", "labels") if (v := getattr(self._dataset, a, None)) is not None), None)
        values = plain(
            given if given is not None else [np.asarray(self._dataset[i][1]).item() for i in range(len(self))]
        )
        return labels_of(values, len(self), self.name)

    @property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        return None if self._found is None else self._found.values

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        if self._found is None:
            return ()
        names = getattr(self._dataset, "classes", None)
        fits = names is not None and self._found.classes == tuple(str(k) for k in range(len(names)))
        return tuple(map(str, names)) if names is not None and fits else self._found.classes

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, i: int) -> dict[str, Sample]:
        try:
            item = self._dataset[i]
        except Exception as error:  # whatever a user's data set raises concerns this item alone
            raise Unreadable(self.id(i), f"the data set raised {type(error).__name__}: {error}") from error
        modality, x = self._sample(item, i)
        if modality not in self.modalities:
            raise Unreadable(self.id(i), f"it is of modality {modality} where the first was {self.modalities[0]}")
        return {modality: x}

    def _sample(self, item: Any, i: int) -> tuple[str, Tensor]:
        x = item[0] if self._paired else item
        if isinstance(x, Image.Image):
            return "image", image.from_pillow(x)
        if not isinstance(x, Tensor | np.ndarray):
            raise RequestError(
                f"Item {i} of {self.name} is a {type(x).__name__}; expected a tensor, an array, a Pillow image, "
                f"or (one of them, label)."
            )
        array = plain(x)
        if array.ndim not in MODALITIES or array.dtype.kind not in "biuf":
            raise RequestError(
                f"Item {i} of {self.name} has shape {array.shape} of {array.dtype}; expected numbers of shape "
                f"[columns], [c t], [c h w] or [h w c]."
            )
        last = array.ndim == 3 and array.shape[2] in (1, 3, 4) and array.shape[0] not in (1, 3, 4)
        return MODALITIES[array.ndim], tensor(array, MODALITIES[array.ndim], last)

    def id(self, i: int) -> str:
        return str(i)

    @functools.cached_property
    def fingerprint(self) -> str:
        at = np.unique(np.linspace(0, len(self) - 1, min(64, len(self))).astype(int))
        parts: list[bytes] = []
        for i in at:
            try:
                parts.append(content(self.read(int(i))))
            except Unreadable as error:
                parts.append(str(error).encode())
        return digest(type(self._dataset).__qualname__, str(len(self)), *parts)


class Cells(Store):
    """The encoded images of a Hugging Face column."""

    def __init__(self, rows: Any, column: str, mark: str) -> None:
        self._rows, self._column, self._mark = rows, column, mark

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self._rows[i][self._column]["path"] or ""

    def load(self, i: int) -> bytes:
        cell = self._rows[i][self._column]
        if cell is None:
            raise Unreadable(self.name(i), "the cell is empty")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        try:
            with open(cell["path"], "rb") as file:
                return file.read()
        except OSError as error:
            raise Unreadable(self.name(i), f"the file cannot be read ({error.strerror})") from error

    def fingerprint(self) -> str:
        return digest(self._mark, self._column)


def from_hugging_face(dataset: Any, labels: str | None, name: str) -> Source:
    """A datasets.Dataset: its first image column as images, else its columns as a table.

    Labels come from the column named, else from the one of type ClassLabel or named label.
    """
    import datasets  # type: ignore[import-untyped]

    if isinstance(dataset, datasets.DatasetDict):
        raise RequestError(
            f"{name} holds several splits ({', '.join(dataset)}); give one of them: data[{next(iter(dataset))!r}]."
        )
    if not len(dataset):
        raise RequestError(f"The data set {name} has no rows.")
    features = dataset.features
    if labels is None:
        labels = next((c for c, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
        labels = labels or next((c for c in features if c.lower() in LABEL_COLUMNS), None)
    elif labels not in features:
        raise unknown(f"column of {name}", labels, features)
    made = None
    if labels is not None:
        column = dataset.select_columns([labels]).with_format("arrow")[:][labels]
        kind = features[labels]
        if isinstance(kind, datasets.ClassLabel):
            values = column.combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            made = Labels(values, tuple(kind.names))
        else:
            made = encode(column, f"The column {labels}")
    pictures = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    if pictures is not None:
        rows = dataset.select_columns([pictures]).cast_column(pictures, datasets.Image(decode=False)).with_format(None)
        return FileSource(Cells(rows, pictures, dataset._fingerprint), image.ImageReader(), name, made)
    table = dataset.with_format("arrow")[:]
    source = from_table(table.drop_columns([labels]) if labels is not None else table, None, name)
    if made is not None:
        source.labels, source.classes = made.values, made.classes
    return source
