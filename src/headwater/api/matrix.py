"""Which method learns from which kind of data: the table behind `headwater list --matrix`, and the reasons for its gaps."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from headwater.api import catalogue
from headwater.core.errors import RequestError
from headwater.core.verbs import Method
from headwater.data.source import Source
from headwater.parts.modalities import MODALITIES


def why_not(method: type[Method], modalities: Sequence[str]) -> str | None:
    """Why the method cannot learn from data that hold these modalities, in words; None where it can."""
    name = method.__name__
    if len(modalities) != method.together:
        held = f"{len(modalities)}: {', '.join(modalities)}" if modalities else "none"
        wanted = "one modality" if method.together == 1 else f"{method.together} modalities at once"
        hint = f" A name before the path takes one alone, such as {modalities[0]}:PATH." if len(modalities) > 1 else ""
        return f"{name} learns from {wanted}; this data holds {held}.{hint if method.together == 1 else ''}"
    for modality in modalities:
        plural = MODALITIES[modality].plural
        if method.modalities and modality not in method.modalities:
            known = ", ".join(MODALITIES[m].plural for m in method.modalities)
            return f"{name} learns from {known}; this data holds {plural}."
    return None


def check_whole(module: ModuleType, source: Source) -> None:
    """Raises RequestError where items lack a modality and the method of the module cannot do without."""
    method = catalogue.method_class(module)
    if source.present is not None and method is not None and not method.missing:
        raise RequestError(
            f"{method.__name__} needs every modality of every item, and some items of {source.name} lack one; open the "
            f"data without missing=True."
        )


def takes_boxes(module: ModuleType) -> bool:
    """Whether the method of the module learns from boxes that are marked on pictures."""
    method = catalogue.method_class(module)
    return method is not None and method.boxes


def check_boxes(module: ModuleType, source: Source, config: Any) -> None:
    """Raises RequestError where the method of the module learns from boxes, and there are none; or there are, and it is to
    find its own."""
    method, finds = catalogue.method_class(module), getattr(config, "proposals", 0)
    if method is None or not takes_boxes(module):
        return
    if "boxes" not in source.marked and not finds:
        raise RequestError(
            f"{method.__name__} learns from boxes on pictures, and {source.name} comes with none: --read annotations=FILE "
            "gives them (COCO's JSON, or a folder of VOC's XML), and --set method.proposals=30 finds some without a teacher."
        )
    if "boxes" in source.marked and finds:
        raise RequestError(
            f"method.proposals={finds} finds boxes on pictures that have none; {source.name} comes with boxes, which "
            f"{method.__name__} learns from: leave out one of the two."
        )


def check(method: type[Method], modalities: Sequence[str]) -> None:
    """Raises RequestError where the method cannot learn from such data."""
    why = why_not(method, modalities)
    if why is not None:
        raise RequestError(f"{why} `headwater list --matrix` shows what learns from what.")


def matrix() -> list[dict[str, str | bool]]:
    """One row per method that learns by gradient: for each modality, whether it learns from it. What learns from two at
    once is asked about the modality together with captions, or with the other that it takes."""
    rows: list[dict[str, str | bool]] = []
    for full in catalogue.methods():
        method = catalogue.method_class(catalogue.load(full))
        assert method is not None
        row: dict[str, str | bool] = {"method": catalogue.short(full), "folder": catalogue.folder(full)}
        for modality in MODALITIES:
            others = [m for m in method.modalities or ("text", "image") if m != modality][: method.together - 1]
            row[modality] = why_not(method, [modality, *others]) is None
        rows.append(row)
    return rows
