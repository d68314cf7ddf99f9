"""`hw.adapt`: fit an encoder to labelled data by changing little of it, and say what that bought."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.parametrize import is_parametrized

from headwater.api import catalogue, contenders, learned, run, traits
from headwater.api.contenders import Array
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load
from headwater.api.evaluate import labelled
from headwater.api.override import flat, override
from headwater.core.errors import RequestError
from headwater.core.rng import Rng, mix
from headwater.core.types import Step
from headwater.core.verbs import Method
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.data.source import Source, split
from headwater.engine.artefact import Card, save_encoder, versions
from headwater.engine.checkpoint import write_folder
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.engine.log import Progress
from headwater.engine.memory import of_a_step
from headwater.engine.optimise import AdamW
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.prompted import Prompted
from headwater.report.page import render

Row = dict[str, Any]
RECORD = "adaptation.json"
HELD = 0.15  # of the data trained on, that `fit.patience` watches instead


def adapt(
    method: str,
    encoder: Any,
    data: Any,
    *,
    out: str | Path,
    labels: str | None = None,
    steps: int = 300,
    batch_size: int = 128,
    test: float = 0.28,
    seed: int = 0,
    device: str = "auto",
    set: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the adapter `method` (such as lora) with a linear head on labelled data; compare it with its neighbours.

    `set` holds settings of the adapter (adapter.rank=4) and of its training, such as fit.optimiser.layer_decay=0.75 or
    fit.patience=5, which ends it when a part of the training data that is held out is told no better for so many lines.

    Measured on a held-out share `test`, side by side: a linear probe on the frozen encoder, the adapter, and full
    fine-tuning; `memory_bytes` counts what a step of training holds. `out` receives `adapter/` (the new weights and the
    head alone), `encoder/` (the adapted encoder, merged back into the architecture it came from, so that every other verb
    takes it), `method/` (the same with its head, for `predict`) and, last, `adaptation.json` (what is returned, with
    `adapter_bytes`, what the new weights take). The same call again begins anew where one was stopped before that.
    """
    module = catalogue.load(method)
    kind = catalogue.adapter_class(module)
    if kind is None:
        names = [catalogue.slug(n) for n in catalogue.names() if catalogue.adapter_class(catalogue.load(n))]
        raise RequestError(f"{method!r} is no adapter; these are: {', '.join(names)}.")
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    source = labelled(open_data(data, labels=labels), pretrained)
    if not source.classes:
        raise RequestError(f"{source.name} has numbers for labels; adapters are trained on classes.")
    if len(source.classes) < 2:
        raise RequestError(f"{source.name} holds one class, {source.classes[0]}; adapters need two or more.")
    optimiser = AdamW(rate=kind.rate, weight_decay=kind.decay, layer_decay=kind.layer_decay)
    fitted = FitConfig(steps=steps, batch_size=min(batch_size, len(source)), optimiser=optimiser, seed=seed)
    config = module.Config()
    config = replace(config, classes=len(source.classes)) if hasattr(config, "classes") else config
    recipe = override({"adapter": config, "fit": fitted}, set)
    if (asked := getattr(recipe["adapter"], "classes", len(source.classes))) != len(source.classes):
        raise RequestError(
            f"adapter.classes={asked} was asked for, and {source.name} has {len(source.classes)} classes."
        )
    folder, where = Path(out), pick_device(device)
    identity = {
        "method": catalogue.slug(module.__name__),
        "recipe": flat(recipe),
        "seed": seed,
        "base": pretrained.digest,
    }
    torch.manual_seed(mix(seed, "adapt"))
    adapter: surgery.Tuning = recipe["adapter"].build()
    adapted = adapter.adapt(copy.deepcopy(pretrained.encoder))  # fails before anything is written
    run.claim_afresh(folder, {**identity, "fingerprint": source.fingerprint}, end=RECORD)
    sides = [part.only(pretrained.modality) for part in split(source, test, seed)]
    parts = [contenders.readable(part, pretrained, where, 2) for part in sides]
    (pool, said), (tested, told) = parts
    rows = [_frozen(pool, said, tested, told)]
    told_of = (torch.from_numpy(said), torch.from_numpy(np.asarray(pool.labels)))
    full = replace(recipe["fit"], optimiser=AdamW(rate=5e-4))
    for title, candidate, config in (
        (identity["method"], adapted, recipe["fit"]),
        ("full fine-tuning", copy.deepcopy(pretrained.encoder).requires_grad_(True), full),
    ):
        torch.manual_seed(mix(seed, "head"))
        made, began, aim = contenders.classifier(candidate, pretrained, pool), time.monotonic(), None
        if candidate is adapted:
            if first := adapter.beforehand(pretrained.encoder, adapted, made.config.view):
                loader = Loader(pool, config.batch_size, seed=mix(seed, "beforehand") % 2**31)
                fit(first, loader, replace(config, patience=0), device=where, progress=progress)
            aim = adapter.objective(made, *told_of)
        row, guess = _train(title, aim or made, made, pretrained, (pool, tested), config, where, progress)
        rows.append({**row, "seconds": time.monotonic() - began})
        if isinstance(made.encoder, Prompted):
            traits.draw(made.encoder, tested, guess, pretrained.prepare, folder / "traits.png")
        if candidate is adapted:
            size = _save(folder, made, adapter.architecture(pretrained.card.architecture), pretrained, identity, source)
    whole = sum(p.numel() for p in pretrained.encoder.parameters())
    result = {"data": source.name, "n_pool": len(pool), "n_test": len(tested), "rows": rows}
    new = (folder / "adapter" / "weights.safetensors").stat().st_size
    result |= {"encoder_parameters": {"before": whole, "after": size}, "adapter_bytes": new}
    run.add(
        folder, versions=versions(), data={"name": source.name, "fingerprint": source.fingerprint, "n": len(source)}
    )
    run.write_json(folder / RECORD, result)
    render(folder)
    if progress is not None:
        progress.end()
    return result


def _frozen(pool: Source, said: Array, test: Source, told: Array) -> Row:
    started = time.monotonic()
    probe = LinearProbe().fit(said, pool.labels)
    right = float(np.mean(probe.predict(told) == test.labels))
    n, memory = probe.coef_.size + probe.intercept_.size, said.nbytes + probe.coef_.nbytes
    return _row("linear probe, frozen encoder", right, n, memory, time.monotonic() - started)


def _train(
    title: str,
    aim: Method,
    made: classify.Classify,
    pretrained: Pretrained,
    parts: tuple[Source, Source],
    config: FitConfig,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Row, Array]:
    """Minimises the loss of `aim`, which is `made` or around it; tests `made`, and returns what it said."""
    pool, test = parts
    facts: Callable[[], Row] = dict
    if config.patience:
        pool, waited = split(pool, HELD, config.seed)
        config = replace(config, keep_best=config.keep_best or "validation_accuracy")

        def facts() -> Row:
            guess, _ = vectors(classify.Scorer(made), Loader(waited, 256), len(waited), pretrained.prepare, device)
            aim.train()
            return {"validation_accuracy": float(np.mean(guess.argmax(1) == waited.labels))}

    loader = Loader(pool, config.batch_size, seed=config.seed)
    first = next(iter(loader(0)))
    memory = of_a_step(aim.to(device), first.to(device), Step(Rng(config.seed, device)))
    taken = fit(aim, loader, config, device=device, progress=progress, facts=facts).step
    guess, _ = vectors(classify.Scorer(made), Loader(test, 256), len(test), pretrained.prepare, device)
    trained = sum(p.numel() for p in aim.parameters() if p.requires_grad)
    best = guess.argmax(1)
    return {**_row(title, float(np.mean(best == test.labels)), trained, memory, 0.0), "steps": taken}, best


def _row(title: str, accuracy: float, trained: int, memory: int, seconds: float) -> Row:
    return {
        "what": title,
        "accuracy": accuracy,
        "trained_parameters": trained,
        "memory_bytes": memory,
        "seconds": seconds,
    }


def _save(
    folder: Path,
    made: classify.Classify,
    architecture: Any,
    pretrained: Pretrained,
    identity: dict[str, Any],
    source: Source,
) -> int:
    """Writes what was learned; returns how many weights the merged encoder has."""
    head = {} if is_parametrized(made.head) else made.head.state_dict()  # else what moves it is among the new weights
    still = {name for name, p in made.encoder.named_parameters() if not p.requires_grad}
    tuned = {f"encoder.{name}": v for name, v in made.encoder.state_dict().items() if name not in still}
    new = surgery.weights(made) or tuned
    new |= {f"head.{k}": v for k, v in head.items()}
    write_folder(folder / "adapter", {"weights.safetensors": new}, {"adapter.json": {"format": 1, **identity}})
    merged, prepared = surgery.merge(copy.deepcopy(made)), pretrained.card.preprocessing
    told = {**pretrained.card.provenance, "adapted_by": identity["method"], "adapted_on": identity["recipe"]}
    save_encoder(folder / "encoder", merged.encoder, Card(architecture, prepared, told))
    modality, told = pretrained.modality, {**told, "classes": list(source.classes)}
    learned.save(folder, "classify", merged, made.config, {modality: architecture}, {modality: prepared}, told)
    return sum(p.numel() for p in merged.encoder.parameters())
