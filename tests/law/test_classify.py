from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.core.verbs import Encoder
from headwater.methods.adapt import lora
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.views import CentreCrop
from tests.small import batch, convnet, step, vit

CONFIG = classify.Config(view=CentreCrop(16, 1.0), classes=4)


def build(encoder: Encoder, **changes: float) -> classify.Classify:
    torch.manual_seed(0)
    return replace(CONFIG, **changes).build({"image": encoder})


def train(method: classify.Classify, steps: int = 3) -> None:
    method.train()
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        method(batch(), step()).value.backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_samples_without_a_label_do_not_count(smoothing):
    method = build(vit(), label_smoothing=smoothing)
    x, y = batch().x["image"], torch.tensor([0, -1, 2, 3, -1, -1, 1, 0])
    out = method(Batch({"image": x}, y), step())
    logits = method.head(method.encoder(x[y >= 0]).pooled)
    torch.testing.assert_close(out.value, F.cross_entropy(logits, y[y >= 0], label_smoothing=smoothing))
    hits = (logits.argmax(1) == y[y >= 0]).float().mean()
    torch.testing.assert_close(out.metrics["accuracy"], hits)


def test_a_batch_without_any_label_teaches_nothing():
    method = build(vit())
    out = method(Batch(batch().x, torch.full((8,), -1)), step()).value
    out.backward()
    assert float(out.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_data_without_labels_is_refused():
    with pytest.raises(RequestError, match="labels"):
        build(vit())(Batch(batch().x), step())


def test_a_frozen_encoder_stays_as_it_is_with_its_batch_norm_statistics():
    encoder = convnet().requires_grad_(False)
    method = build(encoder)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    head = method.head.weight.clone()
    train(method)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert not torch.equal(method.head.weight, head)


def test_an_encoder_that_trains_has_its_batch_norms_train():
    method = build(convnet())
    before = {k: v.clone() for k, v in method.encoder.state_dict().items() if "running_mean" in k}
    train(method, 1)
    assert all(not torch.equal(method.encoder.state_dict()[k], v) for k, v in before.items())


def test_of_an_adapted_encoder_only_the_new_weights_train():
    method = build(lora.TINY.build().adapt(vit()))
    method(batch(), step()).value.backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None}
    new = {f"encoder.{n}" for n in surgery.weights(method.encoder)}
    assert new and reached == new | {"head.weight", "head.bias"}


def test_predict_gives_probabilities():
    method = build(vit()).eval()
    p = method.predict(batch(), step())
    torch.testing.assert_close(p.sum(1), torch.ones(8))
    assert torch.equal(p.argmax(1), method.head(method.encoder(batch().x["image"]).pooled).argmax(1))
