"""`hw.pretrain`: from a method's name and some data to a run folder with an encoder in it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.api import catalogue, learned, run
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, conformed, elsewhere, load, prepare, suited
from headwater.api.matrix import check_boxes, check_whole, takes_boxes
from headwater.api.override import flat, override
from headwater.api.recipe import Recipe, marked, recipe_for
from headwater.api.views_sheet import draw_views
from headwater.core.errors import RequestError, unknown
from headwater.core.rng import mix
from headwater.core.types import Input
from headwater.core.verbs import Encoder, Method
from headwater.data import open as open_data
from headwater.data.doctor import examine
from headwater.data.loader import Loader
from headwater.data.source import Source, split, spread
from headwater.data.statistics import statistics
from headwater.data.text import with_vocabulary
from headwater.engine.artefact import Card, save_encoder, versions
from headwater.engine.distributed import World, join
from headwater.engine.fit import FitConfig, Outcome, fit
from headwater.engine.log import Progress
from headwater.parts.views.missing import held
from headwater.report.page import render


@dataclass(frozen=True)
class Run:
    """A finished, or stopped, run."""

    path: Path
    outcome: Outcome

    @property
    def encoder(self) -> Pretrained:
        return load(self.path)


def pretrain(
    method: str,
    data: Any,
    *,
    out: str | Path,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    encoder: str = "",
    go_on: str | Path = "",
    labels: str | None = None,
    holdout: float = 0.0,
    vocabulary: int = 0,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 2,
    resume: bool = False,
    set: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Pre-train an encoder by the method of that name.

    data      a path, URL, built-in name, arrays or a Source (see `hw.open`)
    holdout   the share of the data that pre-training never sees, split as `evaluate` will split it
    encoder   an architecture by name, such as vit-small/8; the default suits the data. Or an encoder to go on from: a run
              or encoder folder, or hf:CHECKPOINT
    go_on     a finished run of the same method whose heads are carried on too, with its settings; for those that predict
    vocabulary  for texts: learn so many pieces of words from them first; 0 reads bytes
    set       changes to the recipe, each `path.to.field=value`

    Raises RequestError for a request that cannot be met and WorkError when the work fails. A run that is killed is
    resumed by the same call with `resume=True`, and ends with the same bits.
    """
    module = learner(method)
    source = open_data(data, labels=labels)
    if vocabulary:
        source = with_vocabulary(source, vocabulary)
    onward = learned.onward(go_on, module, encoder) if go_on else None
    encoder = str(go_on) if go_on else encoder
    begun = load(encoder) if elsewhere(encoder) or (encoder and Path(encoder).is_dir()) else None
    if begun is not None:
        source = conformed(source, begun) if takes_boxes(module) else suited(source, begun)
    own = getattr(catalogue.method_class(module), "holdout", 0.0)  # a method may need it itself
    if own and not holdout and not round(len(source) * own):
        raise RequestError(
            f"{catalogue.slug(module.__name__)} keeps {own:.0%} of the data aside to find what is usual; {source.name} has "
            f"{len(source)} items, and {int(0.5 / own) + 1} are the least."
        )
    holdout = holdout or own
    seen, aside = split(source, holdout, seed) if holdout else (source, source)
    check_whole(module, source)
    recipe = recipe_for(module, _seen_by(begun, source), len(seen), len(source.classes), "" if begun else encoder)
    if begun is not None:
        going = met(begun.card.architecture, source.spec[begun.modality])
        recipe = replace(recipe, encoder={**recipe.encoder, begun.modality: going})
    if onward is not None:
        recipe = replace(recipe, method=marked(onward.config, source.spec))
    recipe = _with(recipe, seed=seed, steps=steps, batch_size=batch_size, precision=precision)
    recipe = override(recipe, set)
    check_boxes(module, source, recipe.method)
    folder, world, where = Path(out), join(), pick_device(device)
    diagnosis = examine(source, workers=workers)
    identity = {
        "method": catalogue.short(module.__name__),
        "recipe": flat(recipe),
        "seed": seed,
        "holdout": holdout,
        "fingerprint": source.fingerprint,
    }
    if begun is not None:
        identity["begun"] = begun.digest
    model = build(module, recipe, seen, seed, begun)
    if onward is not None:
        learned.carry(onward, model, learned.classes(model, source))
        identity["go_on"] = onward.digest
    if world.main:
        run.claim(folder, identity, resume)
        facts = {"name": source.name, "fingerprint": source.fingerprint, "n": len(source), "summary": diagnosis.lines()}
        run.add(
            folder,
            data=facts,
            versions=versions(),
            device=str(where),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    world.barrier()
    loader = _loader(seen, recipe.fit, world, workers)
    started = time.monotonic()
    outcome = fit(
        model,
        loader,
        recipe.fit,
        out=folder,
        resume=resume,
        device=where,
        probe=probe(seen, recipe, begun),
        progress=progress,
        facts=lambda: {"unreadable": len(loader.bad)} if loader.bad else {},
    )
    if outcome.done and hasattr(model, "settle"):  # with data that it has not learned from
        model.settle(batch.to(where).x["image"] for _, batch in Loader(aside, 64).ordered(range(len(aside))))
    if world.main:
        _finish(folder, model, recipe, seen, identity, outcome, loader, time.monotonic() - started, begun)
    return Run(folder, outcome)


def _seen_by(begun: Pretrained | None, source: Source) -> Mapping[str, Mapping[str, Any]]:
    """The facts of the data, with pictures at the size that the encoder to go on from wants."""
    size = None if begun is None else begun.card.preprocessing.get("size")
    if size is None or "image" not in source.spec:
        return source.spec
    return {**source.spec, "image": {**source.spec["image"], "size": tuple(size)}}


def learner(method: str) -> ModuleType:
    """The module of a method that learns by gradient from unlabelled data or labels."""
    module = catalogue.load(method)
    if catalogue.method_class(module) is None:
        kind = catalogue.folder(module.__name__.removeprefix(catalogue.PREFIX))
        possible = sorted(catalogue.slug(n) for n in catalogue.methods())
        raise RequestError(
            f"{method!r} is one of the {kind} methods and does not pre-train; these do: {', '.join(possible)}."
        )
    return module


def build(module: ModuleType, recipe: Recipe, source: Source, seed: int, begun: Pretrained | None = None) -> Method:
    """The method with fresh encoders that know the mean and deviation of the data, or with the one to go on from."""
    torch.manual_seed(mix(seed, "weights"))
    moments = statistics(source, seed=seed)
    encoders = {m: fresh(config, moments.get(m)) for m, config in recipe.encoder.items()}
    if begun is not None:
        carried = begun.encoder.state_dict()
        if getattr(recipe.encoder[begun.modality], "any_series", False):  # each set of series has a unit of its own
            carried |= {k: v for k, v in encoders[begun.modality].state_dict().items() if k.startswith("normalise.")}
        encoders[begun.modality].load_state_dict(carried)
    for modality, encoder in encoders.items():
        if begun is not None and modality == begun.modality:
            continue
        tokenizer = getattr(encoder, "tokenizer", None)
        if hasattr(tokenizer, "calibrate"):  # what it normalises is not what is read, but what it makes of that
            tokenizer.calibrate(_some(source, modality))
    guide = getattr(recipe.method, "teacher", None)
    # an encoder to learn from, by its folder or its id
    given = [load(guide, *recipe.encoder).encoder] if guide and isinstance(guide, str) else []
    method: Method = recipe.method.build(encoders, *given)
    if hasattr(method, "begin"):  # what it must know of the data before the first step
        method.begin(_some(source, *recipe.encoder))
    return method


def met(architecture: Any, facts: Mapping[str, Any]) -> Any:
    """The architecture of an encoder to go on from, for data with these facts: one that takes any number of channels
    normalises those that are there."""
    return (
        replace(architecture, channels=facts["channels"])
        if getattr(architecture, "any_series", False)
        else architecture
    )


def fresh(config: Any, moments: tuple[Tensor, Tensor] | None) -> Encoder:
    """An untrained encoder of this architecture, drawn from torch's generator, normalising by these moments."""
    encoder: Encoder = config.build()
    holder = getattr(encoder, "tokenizer", encoder)
    if moments is not None and hasattr(holder, "normalise"):
        holder.normalise.set(*moments)
    return encoder


def probe(source: Source, recipe: Recipe, begun: Pretrained | None = None, n: int = 256) -> dict[str, Input]:
    """A fixed batch for the health check."""
    _, batch = next(iter(Loader(source, n).ordered(range(min(n, len(source))))))
    return {m: prepare(held(batch, m), preprocessing(m, recipe, source, begun)) for m in batch.x}


def _some(source: Source, modality: str, n: int = 256) -> Input:
    """Items from all over the set."""
    source = source.only(modality)
    _, batch = next(iter(Loader(source, n).ordered(np.array(sorted(spread(len(source), n))))))
    return batch.x[modality]


def preprocessing(modality: str, recipe: Recipe, source: Source, begun: Pretrained | None = None) -> dict[str, Any]:
    """What must happen to a sample before the encoder sees it: how it is read, and the size of pictures. An encoder that
    goes on keeps its own; how pictures get to their size may be the method's to say."""
    fit = {"fit": recipe.method.fit} if modality == "image" and hasattr(recipe.method, "fit") else {}
    if begun is not None and modality == begun.modality:
        return {**begun.card.preprocessing, **fit}
    as_it_comes = getattr(recipe.encoder[modality], "any_series", False)
    made: dict[str, Any] = {"read": read} if (read := source.reading(modality)) and not as_it_comes else {}
    if modality == "image":
        made |= {"size": [recipe.size, recipe.size], "fit": "cover, then cut at the centre", **fit}
    return made


def _with(recipe: Recipe, *, seed: int, steps: int | None, batch_size: int | None, precision: str) -> Recipe:
    if precision not in ("auto", "float32", "bfloat16"):
        raise unknown("precision", precision, ["auto", "float32", "bfloat16"])
    given = {"steps": steps, "batch_size": batch_size}
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return replace(recipe, fit=replace(recipe.fit, seed=seed, precision=precision, **changes))


def _loader(source: Source, config: FitConfig, world: World, workers: int) -> Loader:
    return Loader(
        source,
        config.batch_size,
        seed=config.seed,
        workers=workers,
        shard=world.rank,
        shards=world.size,
        parts=config.accumulate,
    )


def _finish(
    folder: Path,
    model: Method,
    recipe: Recipe,
    source: Source,
    identity: dict[str, Any],
    outcome: Outcome,
    loader: Loader,
    seconds: float,
    begun: Pretrained | None,
) -> None:
    """Write what a run leaves: encoder, health, the picture of its views, the report."""
    made = {"done": outcome.done, "step": outcome.step, "verdict": asdict(outcome.verdict)}
    run.add(folder, outcome=made, seconds=seconds)
    run.write_json(folder / "health.json", made["verdict"])
    if loader.bad:
        run.write_json(folder / "unreadable.json", sorted(loader.bad.items()))
    if not outcome.done:
        return
    encoders = model.encoders()
    kept = {k: v for k, v in identity.items() if k != "recipe"}
    prepared = {m: preprocessing(m, recipe, source, begun) for m in recipe.encoder}
    provenance = {**kept, "data": source.name, "steps": outcome.step, "versions": versions()}
    if learned.predicts(model) is not None:
        facts = {**provenance, "classes": learned.classes(model, source)}
        learned.save(folder, kept["method"], model, recipe.method, recipe.encoder, prepared, facts)
    for modality, encoder in encoders.items():
        at = folder / "encoder" / modality if len(encoders) > 1 else folder / "encoder"
        save_encoder(at, encoder, Card(recipe.encoder[modality], prepared[modality], provenance))
    draw_views(folder / "views.png", recipe, source, lambda m, x: prepare(x, prepared[m]))
    render(folder)
