"""What claims share: train a method in memory as `headwater pretrain` would, and probe what it learned."""

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
from headwater.core.rng import mix
from headwater.core.types import Batch
from headwater.core.verbs import Encoder, Method
from headwater.data.loader import Loader
from headwater.data.source import Source, split
from headwater.engine.artefact import Card
from headwater.engine.embed import vectors
from headwater.engine.fit import fit
from headwater.methods.assess.linear_probe import LinearProbe

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

    fit(method, stream, replace(made.fit, seed=seed))
    return method.eval()


def untrained(name: str, source: Source, seed: int, made: Recipe) -> Method:
    """The same method before its first step."""
    return build(catalogue.load(name), made, source, seed).eval()


def embedded(encoder: Encoder, source: Source, made: Recipe) -> Array:
    """The pooled features of every item [n d]."""
    facts = preprocessing(encoder.modality, made, source)
    ready = Pretrained(encoder.eval(), Card(None, facts, {}), Path())
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
        rows = np.arange(len(pool))
        if per_class:
            rng = np.random.default_rng(mix(seed, "labels", draw))
            rows = np.concatenate(
                [rng.permutation(np.flatnonzero(pool.labels == k))[:per_class] for k in np.unique(pool.labels)]
            )
        probe = LinearProbe().fit(x[rows], pool.labels[rows])
        found.append(float(np.mean(probe.predict(z) == test.labels)))
    return 100 * float(np.mean(found))


def parts(source: Source, seed: int, holdout: float = HOLDOUT) -> tuple[Source, Source]:
    """What is trained on, and what is measured on: split as `evaluate` splits, by the seed and the items' ids."""
    return split(source, holdout, seed)
