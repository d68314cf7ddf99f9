"""Pictures with what is marked on them: boxes from COCO or VOC files, a class per pixel from PNG files."""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Annotations, Sample
from headwater.data import coco, index, labels, voc
from headwater.data.drawn import Drawn, partners
from headwater.data.files import FileSource
from headwater.data.segmentation import MaskFiles, Masks
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Files
from headwater.parts.boxes import none

LOOKED = 1 << 14  # bytes at either end of a JSON file that tell whether it is COCO's
FEW = 16  # files beside the pictures that are looked into
IN_ORDER = ("good", "normal", "ok", "sound")  # folders of pictures in which nothing is wrong, and which need no masks
LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')


class Annotated(Source):
    """The pictures of `source` with their boxes, their masks, or both: item i is picture i of `drawn` and of `masks`."""

    def __init__(
        self, source: Source, drawn: Drawn | None = None, masks: Masks | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        self.source, self.drawn, self.masks = source, drawn, masks
        self.name, self.modalities, self.extra = source.name, source.modalities, source.extra
        self.labels, self.classes, self.tensors = source.labels, source.classes, source.tensors
        self.notes = source.notes + notes
        self.marked = {}
        if drawn is not None:
            self.marked["boxes"] = drawn.names
            self.extra = {**self.extra, "image": {**self.extra.get("image", {}), "boxes": drawn.names}}
            self.notes += (drawn.summary(), *drawn.notes)
        if masks is not None:
            self.marked["masks"] = masks.names
            told = ", ".join(masks.names[:8]) + (" ..." if len(masks.names) > 8 else "")
            self.notes += (
                f"masks: of {len(masks.names)} classes ({told})."
                if masks.names
                else f"masks: their classes have no names; a {voc.CLASSES} beside them, one name a line, gives them.",
            )
        self._given = notes

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int) -> dict[str, Sample]:
        return self.source.read(i)

    def annotations(self, i: int, sample: Mapping[str, Sample]) -> Annotations:
        picture = sample["image"]
        assert isinstance(picture, Tensor)
        size = (picture.shape[1], picture.shape[2])
        mask = None if self.masks is None else self._mask(i, self.masks, size)[None]
        if self.drawn is None:
            return none(mask)
        if i in self.drawn.bad:
            raise Unreadable(self.id(i), self.drawn.bad[i])
        if tuple(self.drawn.sizes[i].tolist()) != size:
            high, wide = self.drawn.sizes[i]
            raise Unreadable(
                self.id(i), f"the picture is {size[1]} × {size[0]}, and its boxes were drawn on {wide} × {high} pixels"
            )
        boxes, classes = self.drawn.of(i)
        return Annotations(torch.from_numpy(boxes)[None], torch.from_numpy(classes)[None], mask)

    def _mask(self, i: int, masks: Masks, size: tuple[int, int]) -> Tensor:
        if not masks.marks(i):
            return torch.zeros(size, dtype=torch.int64)
        try:
            mask = masks.read(i)
        except Unreadable as error:
            raise Unreadable(self.id(i), f"its mask {error.item} cannot be used: {error.why}") from error
        if tuple(mask.shape) != size:
            raise Unreadable(
                self.id(i),
                f"the picture is {size[1]} × {size[0]}, and its mask {mask.shape[1]} × {mask.shape[0]} pixels",
            )
        return mask

    def id(self, i: int) -> str:
        return self.source.id(i)

    def path(self, i: int) -> str:
        return self.source.path(i)

    def group(self, i: int) -> str:
        return self.source.group(i)

    def only(self, modality: str) -> Source:
        return self.source.only(modality)  # whoever wants one modality alone has no use for what is marked

    def reading(self, modality: str) -> dict[str, Any]:
        return self.source.reading(modality)

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        return Annotated(self.source.conform(modality, wanted), self.drawn, self.masks, self._given)

    @functools.cached_property
    def fingerprint(self) -> str:
        marks = [part.fingerprint() for part in (self.drawn, self.masks) if part is not None]
        return digest(self.source.fingerprint, *marks)


def annotate(source: Source, asked: str | None, annotations: str | None, masks: str | None) -> Annotated:
    """The pictures of a folder that the annotations and the masks know; the others are left out, and counted.

    annotations  a COCO file, or a folder of VOC files
    masks        a folder of PNG files, each with the stem of its picture, or that and _mask; pictures in a folder called good,
                 normal, ok or sound need none: nothing is marked on them
    Both are looked for here, then in the folder of the pictures. `asked` are the labels that the user names.
    """
    if not isinstance(source, FileSource) or not isinstance(source.store, Files) or source.modalities != ("image",):
        raise RequestError(f"Annotations and masks go with a folder of pictures; {source.name} is something else.")
    files, notes = source.store, []
    names: list[str] = files.names.to_pylist()
    drawn = drawings = None
    if annotations is not None:
        at = _found(annotations, files.root, "annotations")
        drawn = voc.load(at) if os.path.isdir(at) else coco.load(at)
    if masks is not None:
        folder = _found(masks, files.root, "masks")
        drawings = _pngs(folder)
        names = _outside(names, os.path.relpath(folder, os.path.realpath(files.root)))
        if not names:
            raise RequestError(f"There are no pictures in {source.name} besides the masks in {folder}.")
    columns = []
    if drawn is not None and annotations is not None:
        with_ending = not os.path.isdir(at)
        columns.append(partners(names if with_ending else list(map(_stem, names)), drawn.keys, annotations))
        notes += _lost(drawn.keys, columns[-1], annotations, "names", "that do not exist")
    if drawings is not None and masks is not None:
        keys = [_stem(name).removesuffix("_mask") for name in drawings]
        columns.append(partners(list(map(_stem, names)), keys, masks))
        notes += _lost(drawings, columns[-1], masks, "holds masks of", "that do not exist")
        unmarked = np.array([_folder(name) in IN_ORDER for name in names]) & (columns[-1] < 0)
        if unmarked.any():
            notes.append(
                f"{unmarked.sum():,} pictures called {' or '.join(IN_ORDER)} have no mask: nothing is marked on them."
            )
            drawings, columns[-1] = [*drawings, ""], np.where(unmarked, len(drawings), columns[-1])
    chosen = np.flatnonzero(np.all([column >= 0 for column in columns], 0))
    if not len(chosen):
        raise RequestError(f"No picture of {source.name} stands both in {annotations} and in {masks}.")
    if len(chosen) < len(names):
        left = next(name for k, name in enumerate(names) if any(column[k] < 0 for column in columns))
        what = " and ".join(given for given in (annotations, masks) if given is not None)
        notes.append(f"{len(names) - len(chosen):,} pictures without partner in {what} are left out, such as {left}.")
    kept = Files(files.place, files.root, pa.array([names[k] for k in chosen], pa.large_string()))
    made = labels.from_file(asked, files.root, kept.names) if asked is not None else labels.from_folders(kept.names)
    pictures = FileSource(kept, source.reader, source.name, made)
    if drawn is not None:
        drawn = drawn.take(columns[0][chosen].tolist()).within()
        drawn = replace(drawn, keys=kept.names.to_pylist())
    layers = None
    if drawings is not None:
        mine = pa.array([drawings[k] for k in columns[-1][chosen]], pa.large_string())
        layers = MaskFiles(Files(Disk(), folder, mine), voc.classes(folder))
    return Annotated(pictures, drawn, layers, tuple(notes))


def _found(given: str, root: str, what: str) -> str:
    at = os.path.expanduser(given)
    for path in (at, os.path.join(root, at)):
        if os.path.exists(path):
            return os.path.realpath(path)
    raise RequestError(f"The {what} {given!r} are neither here nor in {root or 'the data'}.")


def _pngs(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        raise RequestError(f"The masks {folder} are a file; a folder of .png files, one per picture, is expected.")
    found: list[str] = index.folder(folder, frozenset({"png"})).table["name"].to_pylist()
    if not found:
        raise RequestError(f"There are no .png files in {folder}.")
    return found


def _outside(names: Sequence[str], folder: str) -> list[str]:
    """The pictures that are no masks; in one folder with them, masks are the .png files."""
    if folder == ".":
        return [name for name in names if index.ending(name) != "png"]
    return [name for name in names if not name.startswith(folder + "/")]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _folder(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2].lower()


def _lost(keys: Sequence[str], column: np.ndarray, what: str, verb: str, rest: str) -> list[str]:
    lost = np.setdiff1d(np.arange(len(keys)), column)
    return [f"{what} {verb} {len(lost):,} pictures {rest}, such as {keys[lost[0]]}."] if len(lost) else []


def hints(root: str, names: pa.Array | pa.ChunkedArray, others: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence where a folder of pictures holds annotations that nobody has asked for: `names` are the files in it that
    some reader knows, `others` counts the endings of the rest."""
    texts = names.filter(pc.ends_with(names, ".json")).slice(0, FEW).to_pylist()
    found = next((name for name in texts if _coco(os.path.join(root, name))), None)
    kind = "COCO's JSON"
    if found is None and "xml" in others:
        kind = "VOC's XML"
        folders = ["", *sorted(e.name for e in os.scandir(root) if e.is_dir())[:FEW]]
        found = next((name for name in folders if _voc(os.path.join(root, name))), None)
        found = "." if found == "" else found
    if found is None:
        return ()
    return (f"{found} looks like boxes in {kind}, which are not read; annotations={found!r} reads them.",)


def _coco(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(LOOKED)
        file.seek(max(0, os.path.getsize(path) - LOOKED))
        return len({*LISTS.findall(head), *LISTS.findall(file.read())} & {b"images", b"annotations", b"categories"}) > 1


def _voc(folder: str) -> bool:
    with os.scandir(folder) as entries:
        first = next((e.path for e in entries if index.ending(e.name) == "xml"), None)
    text = b"" if first is None else Path(first).read_bytes()[:LOOKED]
    return b"<annotation" in text and b"<size" in text
