"""What every method that learns by gradient must do. A new one gets all of this by existing."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from headwater.api import catalogue
from headwater.core.types import Batch
from headwater.core.verbs import Method
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW
from headwater.parts.ema import Ema
from tests import small
from tests.contract.methods import METHODS, build


def quiet(method: Method) -> dict[str, torch.Tensor]:
    """Batch-norm statistics are the one thing a forward pass may change."""
    return {k: v.clone() for k, v in method.state_dict().items() if "running_" not in k and "num_batches" not in k}


def same(_start: int) -> Iterator[Batch]:
    while True:
        yield small.batch()


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_a_finite_scalar_and_repeats(name: str) -> None:
    method = build(name)
    a, b = (method(small.batch(), small.step()).value for _ in range(2))
    assert a.shape == () and a.isfinite() and torch.equal(a, b)


@pytest.mark.parametrize("name", METHODS)
def test_loss_changes_no_state(name: str) -> None:
    method = build(name)
    before = quiet(method)
    method(small.batch(), small.step()).value.backward()
    assert all(torch.equal(before[k], v) for k, v in quiet(method).items())


@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_every_trained_parameter(name: str) -> None:
    method = build(name)
    method(small.batch(), small.step(progress=1.0)).value.backward()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", METHODS)
def test_teachers_are_frozen_and_not_touched_by_the_optimiser(name: str) -> None:
    teachers = [m for m in build(name).modules() if isinstance(m, Ema)]
    assert not any(p.requires_grad for m in teachers for p in m.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_it_learns(name: str) -> None:
    outcome = fit(
        build(name), same, FitConfig(steps=60, batch_size=8, optimiser=AdamW(rate=3e-3, weight_decay=0.0), log_every=1)
    )
    losses = [line["loss"] for line in outcome.history]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


@pytest.mark.parametrize("name", METHODS)
def test_resumed_in_the_middle_it_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    config = FitConfig(steps=6, batch_size=8, log_every=1, save_every=3, keep_last=9)
    whole = build(name)
    fit(whole, same, config, out=tmp_path)
    for later in ("step-00000006",):
        for file in (tmp_path / "checkpoints" / later).iterdir():
            file.unlink()
        (tmp_path / "checkpoints" / later).rmdir()
    resumed = build(name)
    with torch.no_grad():
        for p in resumed.parameters():
            p.add_(1.0)  # whatever it starts from must not matter
    fit(resumed, same, config, out=tmp_path, resume=True)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_it_hands_on_encoders_of_what_it_was_given(name: str) -> None:
    method = build(name)
    for modality, encoder in method.encoders().items():
        assert encoder.modality == modality
        features = encoder.eval()(small.batch().x[modality])
        assert features.pooled.shape == (8, encoder.dim)


@pytest.mark.parametrize("name", METHODS)
def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    for modality, encoder in build(name).encoders().items():
        x = small.batch().x[modality]
        encoder.eval()
        together = encoder(x).pooled
        shuffled = encoder(small.some(x, [0, *range(len(x) - 1, 0, -1)])).pooled
        alone = encoder(small.some(x, [0])).pooled
        assert torch.equal(together[0], shuffled[0])
        torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", catalogue.names())
def test_the_paper_is_named_and_the_docstring_says_the_idea(name: str) -> None:
    module = catalogue.load(name)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", module.PAPER.arxiv) and module.PAPER.title
    assert module.__doc__ and len(module.__doc__.splitlines()[0]) <= 120


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_has_the_four_lines(name: str) -> None:
    doc = catalogue.load(name).__doc__ or ""
    found = re.findall(r"^ *(corrupt|encode|predict|target)  +\S", doc, flags=re.MULTILINE)
    assert found == ["corrupt", "encode", "predict", "target"]


@pytest.mark.parametrize("name", catalogue.names())
def test_every_knob_is_read(name: str) -> None:
    module = catalogue.load(name)
    if not hasattr(module, "Config"):
        return
    source = inspect.getsource(module)
    dead = [f.name for f in dataclasses.fields(module.Config) if not re.search(rf"\.{f.name}\b", source)]
    assert not dead
