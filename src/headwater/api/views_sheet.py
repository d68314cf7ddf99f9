"""What the method saw: some samples beside their views, as one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from headwater.api.recipe import LOOKED_AT, Recipe
from headwater.core.rng import Rng
from headwater.core.types import Annotations, Input
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.parts.views import View, Views
from headwater.parts.views.missing import held
from headwater.report.boxes import boxes_picture, outlined
from headwater.report.pictures import views_picture
from headwater.report.seen import seen

SAMPLES, COLUMNS = 8, 7


def draw_views(path: Path, recipe: Recipe, source: Source, prepare: Callable[[str, Input], Input]) -> None:
    """Draws what can be looked at; nothing for texts. What is to be found on pictures is drawn on their views."""
    modality = next((m for m in LOOKED_AT if m in source.modalities), None)
    if modality is None:
        return
    _, batch = next(iter(Loader(source, SAMPLES).ordered(range(min(SAMPLES, len(source))))))
    x = held(batch, modality)
    if hasattr(recipe.method, "look"):
        _draw_boxes(path, recipe.method, x, batch.annotations, source.marked.get("boxes", ("object",)))
        return
    made = [seen(modality, view) for view in [prepare(modality, x), *views_of(recipe.method, x, Rng(0))]]
    drawn = [v for v in made if v is not None]
    titles = ["as it is", *(f"view {i}" for i in range(1, len(drawn)))]
    views_picture([*zip(titles, drawn, strict=True)][:COLUMNS], path)


def _draw_boxes(path: Path, config: Any, x: Input, marks: Annotations | None, names: Sequence[str]) -> None:
    rng, columns = Rng(0), []
    for i in (1, 2):
        view, found = config.look(x, marks, rng)
        cells = []
        for picture, boxes, classes in zip(view, found.boxes, found.classes, strict=True):
            real = classes >= 0
            rows = torch.cat([torch.ones(int(real.sum()), 1), classes[real, None], boxes[real]], 1)
            cells.append(outlined(picture, rows.double().numpy(), names))
        columns.append((f"view {i}", cells))
    boxes_picture(columns, path)


def views_of(config: Any, x: Input, rng: Rng) -> list[Input]:
    """The views that a method's configuration would make of a batch."""
    one, several = getattr(config, "view", None), getattr(config, "views", None)
    if isinstance(one, View):
        return [one(x, rng) for _ in range(2)]
    if isinstance(several, tuple):
        return [view(x, rng) for view in several]
    return several(x, rng) if isinstance(several, Views) else []
