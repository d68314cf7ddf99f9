"""What the method saw: some samples beside their views, as one picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwater.api.recipe import LOOKED_AT, Recipe
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.parts.views import View, Views
from headwater.parts.views.missing import held
from headwater.report.pictures import views_picture
from headwater.report.seen import seen

SAMPLES, COLUMNS = 8, 7


def draw_views(path: Path, recipe: Recipe, source: Source, prepare: Callable[[str, Input], Input]) -> None:
    """Draws what can be looked at; nothing for texts."""
    modality = next((m for m in LOOKED_AT if m in source.modalities), None)
    if modality is None:
        return
    _, batch = next(iter(Loader(source, SAMPLES).ordered(range(min(SAMPLES, len(source))))))
    x = held(batch, modality)
    made = [seen(modality, view) for view in [prepare(modality, x), *views_of(recipe.method, x, Rng(0))]]
    drawn = [v for v in made if v is not None]
    titles = ["as it is", *(f"view {i}" for i in range(1, len(drawn)))]
    views_picture([*zip(titles, drawn, strict=True)][:COLUMNS], path)


def views_of(config: Any, x: Input, rng: Rng) -> list[Input]:
    """The views that a method's configuration would make of a batch."""
    one, several = getattr(config, "view", None), getattr(config, "views", None)
    if isinstance(one, View):
        return [one(x, rng) for _ in range(2)]
    if isinstance(several, tuple):
        return [view(x, rng) for view in several]
    return several(x, rng) if isinstance(several, Views) else []
