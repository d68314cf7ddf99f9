"""What to run on given data when the user says nothing: encoder, views, input size and length of training.

Every choice is a function of a few facts about the data and is written into `run.json`, so it can be seen and, with
`--set`, changed. Pictures up to 64 pixels, series and tables take each method's SMALL; larger pictures take its
published defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from headwater.api import catalogue
from headwater.api.matrix import check
from headwater.core.errors import RequestError
from headwater.core.verbs import Method
from headwater.engine.fit import FitConfig
from headwater.engine.optimise import AdamW
from headwater.parts.architectures import EncoderConfig, named
from headwater.parts.modalities import MODALITIES, SMALL_PICTURE
from headwater.parts.views.kit import ViewKit

# of a pair, the first of these is the one that views change
LOOKED_AT = ("image", "video", "volume", "points", "audio", "series", "graph", "table")
CONTEXT = 512  # steps


@dataclass(frozen=True)
class Recipe:
    """All that decides a run beside the data. `method` is the method's own Config; `encoder` maps each modality to its
    architecture; `size` is the side in pixels at which the encoder sees pictures (0 for other data)."""

    method: Any
    encoder: Mapping[str, EncoderConfig]
    fit: FitConfig
    size: int = 0


def recipe_for(
    module: ModuleType, spec: Mapping[str, Mapping[str, Any]], n: int, n_classes: int, encoder: str = ""
) -> Recipe:
    """The default recipe of a method for data with this `spec` (see `Source.spec`) and `n` items."""
    method = catalogue.method_class(module)
    assert method is not None
    check(method, [*spec])
    for modality, known in spec.items():
        if known.get("channels", 0) is None:
            hint = "; reading={'bands': [...]} chooses those that all have" if modality == "image" else ""
            raise RequestError(
                f"These {MODALITIES[modality].plural} differ in their number of channels, and an encoder needs one{hint}."
            )
    size = picture_size(spec["image"]) if "image" in spec else 0
    facts = {m: {**f, "size": (size, size)} if m == "image" else dict(f) for m, f in spec.items()}
    small = "image" not in spec or size <= SMALL_PICTURE
    config = module.SMALL if small else module.Config()
    photographs = "image" in facts and facts["image"]["channels"] == 3 and not facts["image"].get("own_unit")
    finer = getattr(config, "finer", 1)  # its views of pictures beside what the encoder sees of them
    if finer > 1 or not (photographs and size == 224):
        viewed = next((m for m in LOOKED_AT if m in facts), next(iter(facts)))
        sides = {"size": (size * finer, size * finer)} if viewed == "image" else {}
        config = config.viewed(kit_for(viewed, {**facts[viewed], **sides}))
        if hasattr(config, "viewed_modality"):
            config = replace(config, viewed_modality=viewed)
    config = marked(config, spec)
    if hasattr(config, "classes"):
        if n_classes < 2:
            raise RequestError(
                f"{module.__name__.rsplit('.', 1)[-1]} learns from labels; this data has {n_classes} classes."
            )
        config = replace(config, classes=n_classes)
    if method.regresses:
        widths = [f["targets"] for f in spec.values() if "targets" in f]
        if not widths:
            raise RequestError(
                f"{method.__name__} learns from samples that come with target vectors, as those of `headwater curate krr-st` "
                "do; this data has none."
            )
        config = replace(config, targets=widths[0])
    if getattr(config, "horizon", 0) and "series" in facts:
        config, facts["series"] = forecasting(config, facts["series"])
    encoders = {m: named(encoder or beginning(method, m, f), m, f) for m, f in facts.items()}
    return Recipe(config, encoders, fit_for(small, n, getattr(method, "batch", 256)), size)


def marked(config: Any, spec: Mapping[str, Mapping[str, Any]]) -> Any:
    """For methods that learn from boxes: the configuration for the classes of these."""
    return config.marked(spec["image"].get("boxes", ())) if hasattr(config, "marked") else config


def beginning(method: type[Method], modality: str, facts: Mapping[str, Any]) -> str:
    """The name of the architecture to begin with: the method's, or the modality's own with the method's way to make tokens
    where that alone is said, as `/groups`."""
    own = MODALITIES[modality].encoder(facts, method.tokens)
    wanted = method.begins.get(modality, "")
    return own + wanted if wanted.startswith("/") else wanted or own


def forecasting(config: Any, facts: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """For methods that forecast: a horizon of at most a quarter of each series, and the facts of the steps before it, in
    eights, that the encoder sees. Of long series it sees CONTEXT steps at a time."""
    length = facts["length"] or 5 * config.horizon
    horizon = max(1, min(config.horizon, length // 4))
    context = min(CONTEXT, length - horizon)
    return replace(config, horizon=horizon), {**facts, "length": context // 8 * 8 or context}


def picture_size(facts: Mapping[str, Any]) -> int:
    """The side at which an encoder sees pictures: their own when all share a small one, otherwise 224."""
    if facts["size"] is None:
        return 224
    side = min(facts["size"])
    return side if side <= SMALL_PICTURE else min(224, side // 32 * 32)


def kit_for(modality: str, facts: Mapping[str, Any]) -> ViewKit:
    """The views that suit data of this modality with these facts."""
    return MODALITIES[modality].kit(facts)


def fit_for(small: bool, n: int, most: int = 256) -> FitConfig:
    """Small data trains for about half a minute on two cores; batches never exceed the data, nor `most`."""
    batch = min(most, 1 << max(1, n.bit_length() - 1))
    if small:
        return FitConfig(steps=1000, batch_size=batch, optimiser=AdamW(rate=2e-3, weight_decay=1e-4))
    return FitConfig(steps=20_000, batch_size=batch, optimiser=AdamW(rate=5e-4))
