"""`hw.adapt`: fit an encoder to labelled data by changing little of it, and say what that bought."""

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater.api import catalogue, contenders, run
from headwater.api.contenders import Array
from headwater.api.encoders import Pretrained, load
from headwater.api.evaluate import labelled
from headwater.api.override import flat, override
from headwater.api.pretrain import pick_device
from headwater.api.recipe import kit_for
from headwater.core.errors import RequestError
from headwater.core.rng import mix
from headwater.core.verbs import Adapter, Encoder
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.data.source import Source, split
from headwater.engine.artefact import Card, save_encoder, versions
from headwater.engine.checkpoint import write_folder
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.engine.log import Progress
from headwater.engine.optimise import AdamW
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.supervise import classify
from headwater.parts import surgery

Row = dict[str, Any]


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

    Measured on a held-out share `test`, side by side: a linear probe on the frozen encoder, the adapter, and full
    fine-tuning. `out` receives `adapter/` (the new weights and the head alone), `encoder/` (the adapted encoder, merged
    back into the architecture it came from, so that every other verb takes it) and `adaptation.json` (what is returned).
    """
    module = catalogue.load(method)
    adapters = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Adapter) and v is not Adapter]
    if not adapters:
        names = [catalogue.short(n) for n in catalogue.names() if n.startswith("adapt.")]
        raise RequestError(f"{method!r} is no adapter; these are: {', '.join(names)}.")
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    source = labelled(open_data(data, labels=labels), pretrained)
    if not source.classes:
        raise RequestError(f"{source.name} has numbers for labels; adapters are trained on classes.")
    optimiser = AdamW(rate=adapters[0].rate)
    fitted = FitConfig(steps=steps, batch_size=min(batch_size, len(source)), optimiser=optimiser, seed=seed)
    recipe = override({"adapter": module.Config(), "fit": fitted}, set)
    folder, where = Path(out), pick_device(device)
    identity = {"method": catalogue.short(module.__name__), "recipe": flat(recipe), "seed": seed}
    torch.manual_seed(mix(seed, "adapt"))
    adapted = recipe["adapter"].build().adapt(copy.deepcopy(pretrained.encoder))  # fails before anything is written
    run.claim(folder, {**identity, "fingerprint": source.fingerprint}, resume=False)
    sides = [part.only(pretrained.modality) for part in split(source, test, seed)]
    parts = [contenders.readable(part, pretrained, where, 2) for part in sides]
    (pool, said), (tested, told) = parts
    rows = [_frozen(pool, said, tested, told)]
    for title, candidate, rate in (
        (identity["method"], adapted, None),
        ("full fine-tuning", copy.deepcopy(pretrained.encoder).requires_grad_(True), 5e-4),
    ):
        config = recipe["fit"] if rate is None else replace(recipe["fit"], optimiser=AdamW(rate=rate))
        line, trained = _train(title, candidate, pretrained, pool, tested, config, where, progress)
        rows.append(line)
        if rate is None:
            _save(folder, trained, pretrained, identity)
    result = {"data": source.name, "n_pool": len(pool), "n_test": len(tested), "rows": rows}
    run.write_json(folder / "adaptation.json", result)
    run.add(
        folder, versions=versions(), data={"name": source.name, "fingerprint": source.fingerprint, "n": len(source)}
    )
    if progress is not None:
        progress.end()
    return result


def _frozen(pool: Source, said: Array, test: Source, told: Array) -> Row:
    started = time.monotonic()
    probe = LinearProbe().fit(said, pool.labels)
    n = probe.coef_.size + probe.intercept_.size
    return _row(
        "linear probe, frozen encoder",
        float(np.mean(probe.predict(told) == test.labels)),
        n,
        time.monotonic() - started,
    )


def _train(
    title: str,
    encoder: Encoder,
    pretrained: Pretrained,
    pool: Source,
    test: Source,
    config: FitConfig,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Row, classify.Classify]:
    modality, started = pretrained.modality, time.monotonic()
    side = pretrained.card.preprocessing.get("size")
    facts = {**pool.spec[modality], **({"size": tuple(side)} if side else {})}
    made = (
        replace(classify.SMALL, classes=len(pool.classes)).viewed(kit_for(modality, facts)).build({modality: encoder})
    )
    fit(made, Loader(pool, config.batch_size, seed=config.seed), config, device=device, progress=progress)
    guess, _ = vectors(classify.Scorer(made), Loader(test, 256), len(test), pretrained.prepare, device)
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    return _row(title, float(np.mean(guess.argmax(1) == test.labels)), trained, time.monotonic() - started), made


def _row(title: str, accuracy: float, trained: int, seconds: float) -> Row:
    return {"what": title, "accuracy": accuracy, "trained_parameters": trained, "seconds": seconds}


def _save(folder: Path, trained: classify.Classify, pretrained: Pretrained, identity: dict[str, Any]) -> None:
    new = {f"head.{k}": v for k, v in trained.head.state_dict().items()}
    new |= {f"encoder.{k}": v for k, v in surgery.weights(trained.encoder).items()}
    write_folder(folder / "adapter", {"weights.safetensors": new}, {"adapter.json": {"format": 1, **identity}})
    merged = surgery.merge(copy.deepcopy(trained.encoder))
    provenance = {**pretrained.card.provenance, "adapted_by": identity["method"], "adapted_on": identity["recipe"]}
    save_encoder(
        folder / "encoder", merged, Card(pretrained.card.architecture, pretrained.card.preprocessing, provenance)
    )
