"""The memory of a training step, counted."""

import torch

from headwater.engine.memory import of_a_step
from headwater.methods.adapt import lora
from headwater.methods.supervise import classify
from tests.small import batch, convnet, step, vit


def test_what_is_counted() -> None:
    made = classify.TINY.build({"image": vit()})
    weights = sum(p.nbytes for p in made.parameters()) + sum(b.nbytes for b in made.buffers())
    trained = sum(p.nbytes for p in made.parameters())
    few, many = (of_a_step(made, batch(b), step()) - weights - 3 * trained for b in (8, 32))
    assert few > 8 * 16 * 64 * 4 and 3.5 < many / few < 4.1  # more than the widest layer; in step with the batch


def test_a_frozen_encoder_needs_less_and_nothing_is_changed() -> None:
    made = classify.TINY.build({"image": convnet()})
    before = {n: v.clone() for n, v in made.state_dict().items()}
    whole = of_a_step(made, batch(), step())
    assert all(torch.equal(v, before[n]) for n, v in made.state_dict().items())
    assert all(p.grad is None for p in made.parameters())
    made.encoder.requires_grad_(False)
    assert of_a_step(made, batch(), step()) < whole / 2
    adapted = classify.TINY.build({"image": lora.TINY.build().adapt(vit())})
    assert of_a_step(adapted, batch(), step()) < of_a_step(classify.TINY.build({"image": vit()}), batch(), step())
