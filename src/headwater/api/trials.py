"""Trials of a choice of data: a small model learns from it, and its loss on the data that count is the outcome."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from headwater.api.device import pick_device
from headwater.api.matrix import check_whole
from headwater.api.pool import Pool
from headwater.api.pretrain import build, learner
from headwater.api.recipe import recipe_for
from headwater.core.errors import RequestError
from headwater.core.rng import Rng, mix
from headwater.core.types import Step
from headwater.core.verbs import Choice
from headwater.data import open as open_data
from headwater.data.curated import counts
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.fit import fit

BATCH = 32
MEASURED = 512  # items of the data that count


def part(source: Source, pool: Pool, choice: Choice) -> Source:
    """The items that a choice of rows of `pool` keeps, each as often as its mixture asks for."""
    places = pool.places(choice.kept.numpy())
    if not choice.mixture:
        return Subset(source, places)
    group = choice.columns["group"][choice.kept].numpy()
    shares = {str(g): share for g, share in choice.mixture.items()}
    return Subset(source, np.repeat(places, counts(group, shares, choice.draws, "the choice")))


def trial_of(
    pool: Pool, target: Any, method: str, steps: int, seed: int, device: str, workers: int
) -> Callable[[Choice], float]:
    """Every trial begins with the same weights and sees batches drawn by the same seed; the loss is that on the same items
    of `target`, with the same randomness. Raises RequestError where the data cannot be opened, or differ in kind."""
    source, counted = pool.source, open_data(target)
    if source is None:
        raise RequestError(f"The embeddings of {pool.name} do not say where the data are, which trials learn from.")
    if source.modalities != counted.modalities:
        raise RequestError(
            f"{source.name} holds {', '.join(source.modalities)} and the target {', '.join(counted.modalities)}."
        )
    for modality in source.modalities:
        counted = counted.conform(modality, source.reading(modality))
    module = learner(method)
    check_whole(module, source)
    recipe = recipe_for(module, source.spec, len(source), len(source.classes))
    config = replace(recipe.fit, steps=steps, batch_size=min(BATCH, len(source)), seed=seed)
    where = pick_device(device)
    some = Subset(counted, np.random.default_rng(mix(seed, "target")).permutation(len(counted))[:MEASURED])

    def trial(choice: Choice) -> float:
        model = build(module, recipe, source, seed)
        learned = part(source, pool, choice)
        fit(model, Loader(learned, config.batch_size, seed=seed, workers=workers), config, device=where)
        model.eval()
        total, n = 0.0, 0
        with torch.inference_mode():
            for at, batch in Loader(some, BATCH, workers=workers).ordered(range(len(some))):
                rng = Rng(mix(seed, "trial", at[0]), where)
                total += len(at) * float(model.loss(batch.to(where), Step(rng, 1.0)).value)
                n += len(at)
        return total / n

    return trial
