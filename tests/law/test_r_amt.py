"""Regularised mask tuning: bits over frozen weights, a gradient that passes the threshold, and what is dropped of it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.methods.adapt import r_amt
from headwater.methods.adapt.r_amt import Masked, Regularised, agreement, regular
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.bits import packed, unpacked
from headwater.parts.heads import CosineHead
from headwater.parts.transformer import Attention, TransformerConfig
from tests.small import batch, convnet, step, vit

X = batch().x["image"]


def adapted(base: Encoder | None = None) -> Encoder:
    """With a third of the weights off."""
    torch.manual_seed(1)
    encoder = r_amt.TINY.build().adapt(vit() if base is None else base)
    with torch.no_grad():
        for _, module in surgery.adapted(encoder):
            assert isinstance(module, Masked)
            module.mask[torch.rand_like(module.mask) < 1 / 3] = 0.004
    return encoder


def regularised(**named: object) -> Regularised:
    torch.manual_seed(0)
    encoder = vit()
    features = encoder(X).pooled.detach()
    adapter = r_amt.Config(**named).build()
    made = classify.TINY.build({"image": adapter.adapt(encoder)})
    aim = adapter.objective(made, features, batch().y)
    assert isinstance(aim, Regularised)
    return aim


def test_it_starts_as_exactly_the_base_with_every_weight_on() -> None:
    encoder = vit()
    before = encoder(X).pooled
    changed = r_amt.TINY.build().adapt(encoder)
    assert torch.equal(changed(X).pooled, before)
    assert all(bool(m.on().all()) for _, m in surgery.adapted(changed) if isinstance(m, Masked))
    trained = {n: p.shape for n, p in changed.named_parameters() if p.requires_grad}
    assert set(trained) == set(surgery.weights(changed)) and len(trained) == 4


def test_masked_attention_with_all_on_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours = Attention(TransformerConfig(dim=16, depth=1, heads=4))
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        for a, b in ((ours.qkv.weight, theirs.in_proj_weight), (ours.qkv.bias, theirs.in_proj_bias)):
            b.copy_(a)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    ours.qkv, ours.out = Masked(ours.qkv, r_amt.TINY), Masked(ours.out, r_amt.TINY)
    x = torch.randn(2, 5, 16)
    told = ours.mix(*ours.split(x, None), None)
    torch.testing.assert_close(told, theirs(x, x, x, need_weights=False)[0], atol=1e-6, rtol=1e-5)


def test_the_gradient_passes_the_threshold_as_if_it_were_not_there() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)
    weight, x = linear.weight.detach().clone(), torch.randn(7, 5)
    map_ = Masked(linear.requires_grad_(False), r_amt.TINY)
    with torch.no_grad():
        map_.mask[0] = 0.001
    map_(x).pow(2).sum().backward()
    used = (weight * map_.on()).requires_grad_(True)
    (x @ used.T + linear.bias).pow(2).sum().backward()
    assert used.grad is not None and map_.mask.grad is not None
    torch.testing.assert_close(map_.mask.grad, used.grad * weight)
    assert (map_.mask.grad[0] != 0).all()  # what is off can come back
    map_.eval()
    torch.testing.assert_close(map_(x), x @ used.T + linear.bias)


def test_agreement_and_what_it_drops() -> None:
    a = torch.tensor([1.0, 1e-6, -2.0, 1.0, 1.0, 1.0, -1e-30])
    b = torch.tensor([3.0, 1e-3, -1e-4, -1.0, 0.0, -3.0, -1e-30])
    torch.testing.assert_close(agreement(a, b), torch.tensor([1.0, 1.0, 1.0, 0.5, 1.0, 0.25, 1.0]))
    g = torch.Generator().manual_seed(0)
    p, q, chance = torch.randn(3, 100_000, generator=g)
    chance = chance.abs() % 1
    share = agreement(p, q)
    assert share.min() >= 0 and share.max() <= 1
    assert torch.equal(regular(p, q, chance, 0.0), p) and torch.equal(regular(p, p, chance, 1.0), p)
    kept = regular(p, q, torch.full_like(p, 0.6), 1.0) != 0
    assert torch.equal(kept, share > 0.6)
    torch.testing.assert_close(regular(p, q, torch.full_like(p, 0.6), 0.3)[~kept], 0.7 * p[~kept])
    assert float(
        regular(a[3:4].expand(100_000), b[3:4], torch.rand(100_000, generator=g), 1.0).mean()
    ) == pytest.approx(0.5, abs=0.01)


def vit_as_it_was(aim: Regularised) -> Encoder:
    encoder = copy.deepcopy(aim.classifier.encoder)
    for _, m in surgery.adapted(encoder):
        assert isinstance(m, Masked)
        nn.init.constant_(m.mask, 0.01)
    return encoder.requires_grad_(False)


@pytest.mark.parametrize("dropping", [0.0, 1.0])
def test_only_the_task_moves_the_masks_and_the_other_gradient_decides(dropping: float) -> None:
    aim = regularised(dropping=dropping)
    with torch.no_grad():  # away from the start, where the two say the same
        for _, m in surgery.adapted(aim.classifier):
            assert isinstance(m, Masked)
            m.mask[::3] = 0.004
    masks = [m.mask for _, m in surgery.adapted(aim.classifier) if isinstance(m, Masked)]
    x = aim.classifier.seen(batch(), step())
    logits = aim.classifier.head(aim.classifier.encoder(x).pooled)
    norms = torch.stack([m.norm() for m in masks]).sum()
    task = torch.nn.functional.cross_entropy(logits, batch().y) + 1e-4 * norms
    wanted = torch.autograd.grad(task, masks, retain_graph=True)
    known = aim.classifier.head(vit_as_it_was(aim)(x).pooled)
    staying = torch.autograd.grad(-(known.softmax(1) * logits.log_softmax(1)).sum(1).mean(), masks)
    loss = aim.loss(batch(), step())
    torch.testing.assert_close(loss.value, task)
    loss.value.backward()
    dropped = total = 0
    for mask, told, stay in zip(masks, wanted, staying, strict=True):
        assert mask.grad is not None
        gone = mask.grad == 0
        torch.testing.assert_close(mask.grad[~gone], told[~gone], atol=1e-7, rtol=1e-4)
        assert not bool((gone & (told * stay > 0)).any())  # what agrees is never dropped
        dropped, total = dropped + int(gone.sum()), total + gone.numel()
    assert (0.005 < dropped / total < 0.6) if dropping else dropped == 0
    assert all(p.grad is None for n, p in aim.named_parameters() if not n.endswith("mask"))


def test_weights_stay_as_they_are_and_the_loss_changes_nothing() -> None:
    aim = regularised()
    before = {n: v.clone() for n, v in aim.state_dict().items()}
    taught = torch.optim.Adam([p for p in aim.parameters() if p.requires_grad], lr=1e-3)
    for i in range(12):
        taught.zero_grad()
        aim.loss(batch(), step(seed=i)).value.backward()
        taught.step()
    changed = {n for n, v in aim.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {n for n in before if n.endswith("mask")}
    off = [float((~m.on()).float().mean()) for _, m in surgery.adapted(aim.classifier) if isinstance(m, Masked)]
    assert 0.01 < sum(off) / len(off) < 0.99
    again = [aim.loss(batch(), step()).value for _ in range(2)]
    assert torch.equal(*again)


def test_it_starts_as_the_nearest_class_mean() -> None:
    aim = regularised()
    with torch.no_grad():
        features = aim.classifier.encoder(X).pooled
        told = aim.classifier.head(features)
        centred = features - features.mean(0)
        means = torch.stack([centred[batch().y == k].mean(0) for k in range(4)])
        want = 10 * torch.nn.functional.cosine_similarity(centred[:, None], means[None], dim=2)
    torch.testing.assert_close(told, want, atol=1e-4, rtol=1e-4)
    with pytest.raises(RequestError, match="1 of 5 classes have no sample"):
        CosineHead.of_means(features, batch().y, 5)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 75])
def test_bits_are_packed_and_unpacked(count: int) -> None:
    on = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.5
    assert packed(on).numel() == -(-count // 8) and torch.equal(unpacked(packed(on), count), on)


def test_merging_keeps_the_function_and_the_bits_alone_restore_it() -> None:
    base = vit()
    one, other = adapted(copy.deepcopy(base)), r_amt.TINY.build().adapt(copy.deepcopy(base))
    told = one(X).pooled
    saved = surgery.weights(one)
    assert {v.dtype for v in saved.values()} == {torch.uint8}
    assert sum(v.nbytes for v in saved.values()) == 2 * (16 * 48 + 16 * 16) // 8
    assert not torch.allclose(other(X).pooled, told)
    surgery.restore(other, saved)
    assert torch.equal(other(X).pooled, told)
    merged = surgery.merge(one)
    assert set(merged.state_dict()) == set(base.state_dict()) and torch.equal(merged(X).pooled, told)


def test_what_tuning_changes_is_for_the_better(tmp_path: Path) -> None:
    hw.pretrain("simclr", "digits", out=tmp_path / "run", encoder="vit-micro/4", steps=40, batch_size=64, device="cpu")
    said = []
    for steps in (1, 120):  # after one, all weights are on still
        out = tmp_path / f"after-{steps}"
        made = hw.adapt("r-amt", tmp_path / "run", "digits", out=out, steps=steps, batch_size=32, device="cpu")
        said.append(made["rows"][1]["accuracy"])
    assert said[1] > said[0] + 0.05


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match="R-AMT found no linear map named qkv or out in this ConvNet"):
        r_amt.TINY.build().adapt(convnet())
    with pytest.raises(RequestError, match=r"found no linear map named out_proj.*embed, out, qkv"):
        r_amt.Config(where=("out_proj",)).build().adapt(vit(pool="attention"))  # which its pooling never calls
    with pytest.raises(RequestError, match="above threshold"):
        r_amt.Config(start=0.001)
    with pytest.raises(RequestError, match=r"between 0 and 1; got 1\.5"):
        r_amt.Config(dropping=1.5)
