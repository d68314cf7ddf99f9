"""What claims share: train a method in memory as `headwater pretrain` would, and probe what it learned."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.api import catalogue
from headwater.api.encoders import Pretrained, prepare
from headwater.api.pretrain import build, preprocessing
from headwater.api.recipe import Recipe, recipe_for
from headwater.core.errors import WorkError
from headwater.core.rng import Rng, mix
from headwater.core.types import Batch, Step
from headwater.core.verbs import Encoder, Method
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset, split
from headwater.engine.artefact import Card
from headwater.engine.embed import vectors
from headwater.engine.fit import fit
from headwater.engine.optimise import AdamW
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.supervise.classify import Classify

HOLDOUT = 0.28
Array = NDArray[Any]


def recipe(
    name: str, source: Source, *, steps: int, batch_size: int = 128, encoder: str = "", **changes: Any
) -> Recipe:
    """The recipe that `headwater pretrain` would take for this data, with so many steps, and with `changes` to the
    method's configuration."""
    made = recipe_for(catalogue.load(name), source.spec, len(source), len(source.classes), encoder)
    fitting = replace(made.fit, steps=steps, batch_size=min(batch_size, made.fit.batch_size))
    return replace(made, fit=fitting, method=replace(made.method, **changes))


def trained(
    name: str,
    source: Source,
    seed: int,
    made: Recipe,
    change: Callable[[Method], Method] = lambda method: method,
) -> Method:
    """A method after training. `change` may replace it by one without its mechanism before the first step."""
    method = change(build(catalogue.load(name), made, source, seed))
    loader = Loader(source, made.fit.batch_size, seed=seed)

    def stream(start: int) -> Iterator[Batch]:
        return loader(start)

    if not fit(method, stream, replace(made.fit, seed=seed)).done:
        raise WorkError(f"{name} was asked to stop while its claim was measured; nothing is claimed.")
    return method.eval()


def untrained(name: str, source: Source, seed: int, made: Recipe) -> Method:
    """The same method before its first step."""
    return build(catalogue.load(name), made, source, seed).eval()


def embedded(encoder: Encoder, source: Source, made: Recipe) -> Array:
    """The pooled features of every item [n d]."""
    facts = preprocessing(encoder.modality, made, source)
    ready = Pretrained(encoder.eval(), Card(made.encoder[encoder.modality], facts, {}), Path())
    found, _ = vectors(ready.encoder, Loader(source, 256), len(source), lambda x: prepare(x, facts))
    return found


def probed(
    encoder: Encoder, pool: Source, test: Source, made: Recipe, *, per_class: int = 10, draws: int = 5, seed: int = 0
) -> float:
    """Accuracy in % of a linear probe on `test`, from so many labels per class of `pool` (0: all), mean over draws."""
    assert pool.labels is not None and test.labels is not None
    x, z = embedded(encoder, pool, made), embedded(encoder, test, made)
    found = []
    for draw in range(draws if per_class else 1):
        rows = few(pool, per_class, seed, draw) if per_class else np.arange(len(pool))
        probe = LinearProbe().fit(x[rows], pool.labels[rows])
        found.append(float(np.mean(probe.predict(z) == test.labels)))
    return 100 * float(np.mean(found))


def few(pool: Source, per_class: int, seed: int, draw: int = 0) -> Array:
    """The numbers of so many items of each class."""
    assert pool.labels is not None
    rng = np.random.default_rng(mix(seed, "labels", draw))
    return np.concatenate(
        [rng.permutation(np.flatnonzero(pool.labels == k))[:per_class] for k in np.unique(pool.labels)]
    )


def fine_tuned(
    encoder: Encoder, pool: Source, test: Source, *, per_class: int = 10, steps: int = 100, seed: int = 0
) -> float:
    """Accuracy in % on `test` when a copy of the encoder, all of it, and a linear layer have learned from so many labels
    per class of `pool`."""
    labelled = Subset(pool, few(pool, per_class, seed))

    def begun(method: Method) -> Method:
        assert isinstance(method, Classify)
        return Classify(method.config, copy.deepcopy(encoder).requires_grad_(True).train())

    made = recipe("classify", labelled, steps=steps, batch_size=32)
    made = replace(made, fit=replace(made.fit, optimiser=AdamW(rate=1e-3)))
    method = trained("classify", labelled, seed, made, begun)
    assert isinstance(method, Classify)
    hits = []
    for rows, batch in Loader(test, 256).ordered(range(len(test))):
        assert test.labels is not None
        hits.append(method.predict(batch, Step(Rng(0))).argmax(1).numpy() == test.labels[rows])
    return 100 * float(np.concatenate(hits).mean())


def parts(source: Source, seed: int, holdout: float = HOLDOUT) -> tuple[Source, Source]:
    """What is trained on, and what is measured on: split as `evaluate` splits, by the seed and the items' ids."""
    return split(source, holdout, seed)
