"""Every method on every kind of data it says it can learn from: it builds, learns, resumes to the same bits, and embeds.

The rest of the table is refused with the reason. `headwater list --matrix` prints this very table.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.api import catalogue
from headwater.api.matrix import matrix, why_not
from headwater.api.pretrain import build
from headwater.api.recipe import Recipe, recipe_for
from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.core.verbs import Method
from headwater.data import open as open_data
from headwater.data.array import from_arrays
from headwater.data.captioned import Captioned
from headwater.data.generated import TWINS
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW
from headwater.parts.crate import CrateConfig
from headwater.parts.dit import DiTConfig
from headwater.parts.modalities import MODALITIES
from headwater.parts.seq2seq import T5TrunkConfig
from headwater.parts.transformer import TransformerConfig

TABLE = [(row, m) for row in matrix() for m in MODALITIES]
LEARNS = [(row["method"], m) for row, m in TABLE if row[m]]
REFUSED = [(row["method"], m) for row, m in TABLE if not row[m]]
ITEMS, ROWS, STEPS = 32, 8, 30


def data(modality: str, method: type[Method]) -> Source:
    if method.boxes and modality == "image":
        return Subset(open_data("shapes-boxes"), np.arange(ITEMS))
    if method.regresses and modality == "image":
        pictures = items(modality, ()).tensors
        assert pictures is not None
        vectors = torch.randn(ITEMS, 5, generator=torch.Generator().manual_seed(0))
        return from_arrays(pictures[modality], None, "pictures with vectors", targets=vectors)
    pair = method.modalities if modality in method.modalities else (modality, "text")
    return items(modality, pair if method.together > 1 else ())


@cache
def items(modality: str, pair: tuple[str, ...]) -> Source:
    """Some items of the generated twin; for what learns from pairs with captions that name their class, or pictures with
    rows of a table about them."""
    if {"image", "table"} <= set(pair):
        return Subset(open_data("measured-shapes"), np.arange(ITEMS))
    seen = next((m for m in pair if m != "text"), "image") if pair and modality == "text" else modality
    source = Subset(open_data(TWINS[seen]), np.arange(ITEMS))
    if not pair:
        return source
    assert source.labels is not None
    return Captioned(source, [f"this is {source.classes[k]}" for k in source.labels])


def small(config: Any) -> Any:
    """The same architecture, narrow and shallow."""
    if isinstance(config, TransformerConfig | CrateConfig | DiTConfig | T5TrunkConfig):
        return replace(config, dim=16, depth=2, heads=2)
    if not is_dataclass(config):
        return config
    changes = {f.name: small(getattr(config, f.name)) for f in fields(config)}
    if "widths" in changes:
        changes |= {"widths": (8, 16), "depths": (1, 1)}
    return replace(config, **changes)  # type: ignore[type-var]


def recipe(name: str, source: Source, gentle: bool = False) -> Recipe:
    """The recipe of a test. `gentle` views, so that a few steps of a tiny network on eight samples can show that it learns."""
    module = catalogue.load(name)
    made = recipe_for(module, source.spec, len(source), len(source.classes))
    method = module.TINY
    if hasattr(method, "viewed"):
        viewed = next((m for m in source.modalities if m != "text"), "text")
        kit = MODALITIES[viewed].kit(source.spec[viewed])
        method = method.viewed(replace(kit, strong=kit.weak, large=kit.weak, small=kit.weak) if gentle else kit)
        if hasattr(method, "viewed_modality"):
            method = replace(method, viewed_modality=viewed)
    if hasattr(method, "mask"):
        method = replace(method, mask=module.SMALL.mask)  # TINY's may suit the grid of its own test alone
    if hasattr(method, "marked"):
        method = method.marked(source.spec["image"]["boxes"])
    if hasattr(method, "classes"):
        method = replace(method, classes=len(source.classes))
    return replace(made, method=method, encoder={m: small(c) for m, c in made.encoder.items()})


def test_every_modality_has_a_generated_twin() -> None:
    assert set(TWINS) == set(MODALITIES)


@pytest.mark.parametrize(("name", "modality"), LEARNS)
def test_it_learns_resumes_and_embeds(name: str, modality: str, tmp_path: Path) -> None:
    method = catalogue.method_class(catalogue.load(name))
    assert method is not None
    source = data(modality, method)
    module, made = catalogue.load(name), recipe(name, source)
    loader = Loader(source, ROWS)
    first = next(loader(0))

    def again(_start: int) -> Iterator[Batch]:
        while True:
            yield first

    config = FitConfig(steps=STEPS, batch_size=ROWS, log_every=1, optimiser=AdamW(rate=3e-3, weight_decay=0.0))
    learner = build(module, recipe(name, source, gentle=True), source, 0)
    losses = [line["loss"] for line in fit(learner, again, config).history]
    assert sum(losses[-5:]) < sum(losses[:5]), losses

    config = replace(config, steps=4, save_every=2, keep_last=9)
    whole = build(module, made, source, 0)
    fit(whole, loader, config, out=tmp_path)
    last = tmp_path / "checkpoints" / "step-00000004"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    resumed = build(module, made, source, 1)  # other weights, which must not matter
    fit(resumed, loader, config, out=tmp_path, resume=True)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())

    encoder = whole.encoders()[modality].eval()
    together, _ = vectors(encoder, Loader(source, ROWS), ITEMS, lambda x: x)
    alone, _ = vectors(encoder, Loader(source, 1), ITEMS, lambda x: x)
    assert together.shape == (ITEMS, encoder.dim)
    assert np.ptp(together, 0).max() > 0
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("name", "modality"), REFUSED)
def test_what_it_cannot_learn_from_is_refused_with_the_reason(name: str, modality: str) -> None:
    module = catalogue.load(name)
    method = catalogue.method_class(module)
    assert method is not None
    source = data(modality, method)
    why = why_not(method, source.modalities)
    assert why
    assert method.__name__ in why
    with pytest.raises(RequestError, match=f"^{method.__name__} "):
        recipe_for(module, source.spec, len(source), len(source.classes))
