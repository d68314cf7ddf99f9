"""Boxes in the XML of Pascal VOC (Everingham et al., 2010): one file per picture, with the picture's stem.

VOC counts pixels from 1 and names the last one inside: xmin 1 and xmax 1 are a box one pixel wide, here 0 to 1. A document
type declaration is refused, and with it every entity; nothing is ever fetched.
"""

import math
import os
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from headwater.core.errors import RequestError, unknown
from headwater.data import index
from headwater.data.drawn import Drawn

CLASSES = "classes.txt"  # in the folder, one name a line, where the order matters or a class does not occur


class _Damaged(Exception):
    """Why a file is no annotation."""


def load(folder: str) -> Drawn:
    """The .xml files below `folder`. A damaged file makes its picture unreadable, and says why; difficult and truncated
    objects count like others. Classes are those of `classes.txt`, else those that occur, in sorted order. Raises
    RequestError where no file is whole."""
    found = index.folder(folder, frozenset({"xml"})).table["name"].to_pylist()
    if not found:
        raise RequestError(f"There are no .xml files in {folder}.")
    declared = classes(folder)
    known = set(declared)
    sizes, marks, bad = [], [], {}
    for i, name in enumerate(found):
        try:
            size, mine = _picture(tree(Path(folder, name).read_bytes()))
            stranger = next((kind for kind, _ in mine if declared and kind not in known), None)
            if stranger is not None:
                raise _Damaged(f"has an object of an unknown class. {unknown('class', stranger, declared)}".rstrip("."))
        except OSError as error:
            size, mine, bad[i] = (0, 0), [], f"{name} cannot be read ({error.strerror})"
        except _Damaged as error:
            size, mine, bad[i] = (0, 0), [], f"{name} {error}"
        sizes.append(size)
        marks.append(mine)
    if len(bad) == len(found):
        raise RequestError(f"None of the {len(found)} .xml files in {folder} is a VOC annotation: {bad[0]}.")
    names = declared or tuple(sorted({kind for mine in marks for kind, _ in mine}))
    number = {kind: k for k, kind in enumerate(names)}
    return Drawn(
        [name.rpartition(".")[0] for name in found],
        np.array([box for mine in marks for _, box in mine], np.float32).reshape(-1, 4),
        np.array([number[kind] for mine in marks for kind, _ in mine], np.int64),
        np.cumsum([0, *map(len, marks)]),
        np.array(sizes, np.int64),
        names,
        bad,
    )


def classes(folder: str) -> tuple[str, ...]:
    """The lines of `classes.txt` in a folder of annotations; empty without it."""
    path = os.path.join(folder, CLASSES)
    if not os.path.isfile(path):
        return ()
    names = tuple(line.strip() for line in Path(path).read_text().splitlines() if line.strip())
    if len(set(names)) < len(names) or not names:
        raise RequestError(f"{path} holds one name of a class a line, each once.")
    return names


def tree(data: bytes) -> Element:
    """Parses XML without document type, hence without entities. Raises `_Damaged`."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise _Damaged("declares a document type, which is refused since its entities could be harmful")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _Damaged(f"is damaged ({error})") from error
    return builder.close()


def _picture(root: Element) -> tuple[tuple[int, int], list[tuple[str, list[float]]]]:
    """(height, width) of the picture, and the class and box of each object."""
    if root.tag != "annotation":
        raise _Damaged(f"is no VOC annotation: its outermost element is <{root.tag}>, not <annotation>")
    size = root.find("size")
    width, height = (_number(size, side) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise _Damaged(f"gives the picture a size of {width:g} × {height:g}")
    marks = []
    for item in root.findall("object"):
        kind = (item.findtext("name") or "").strip()
        if not kind:
            raise _Damaged("has an object without name")
        left, top, right, bottom = (_number(item.find("bndbox"), e) for e in ("xmin", "ymin", "xmax", "ymax"))
        marks.append((kind, [left - 1, top - 1, right, bottom]))
    return (int(height), int(width)), marks


def _number(parent: Element | None, name: str) -> float:
    text = None if parent is None else parent.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Damaged(f"has {'no number' if text is None else repr(text)} where <{name}> should hold one")
    return value
