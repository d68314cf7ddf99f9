"""MaskAlign: what is seen is aligned with what a frozen teacher makes of it, layer by layer."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged
from headwater.methods.distill import maskalign
from headwater.parts.encoders import TokenEncoder
from headwater.parts.frozen import Frozen, looked_at
from headwater.parts.masks import RandomMask, WeightedMask
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import CentreCrop
from tests.small import batch, convnet, step, vit

DEEP = TransformerConfig(dim=24, depth=4, heads=2)


def drawn(encoder: TokenEncoder, seed: int) -> TokenEncoder:
    torch.manual_seed(seed)
    for p in encoder.trunk.parameters():
        nn.init.normal_(p, std=0.3)
    return encoder


def build(teacher: TokenEncoder | None = None, class_token: bool = True, **changes: object) -> maskalign.MaskAlign:
    config = replace(maskalign.TINY, view=CentreCrop(16, 1.0), **changes)
    student = drawn(vit(class_token=class_token), 0)
    torch.manual_seed(2)
    return config.build({"image": student}, teacher or drawn(vit(class_token=class_token), 1))


def other_teacher(patch: int = 4) -> TokenEncoder:
    config = vit(patch=patch, class_token=True).config
    return drawn(replace(config, trunk=DEEP).build(), 3)


def test_the_mix_begins_near_the_layer_of_the_same_number():
    method = build()
    torch.testing.assert_close(method.weights.data, torch.eye(2) + 0.01)
    torch.testing.assert_close(build(top=1).weights.data, torch.tensor([[0.01, 1.01]]))
    torch.testing.assert_close(build(other_teacher(), top=3).weights.data, torch.full((3, 2), 0.5))  # of unequal depth
    assert build(other_teacher(), top=9).weights.shape == (4, 2)  # it has no more


def test_the_identity_mixes_nothing():
    plain, mixed = build(mix=False), build()
    with torch.no_grad():
        mixed.weights.copy_(torch.eye(2))
    plain.load_state_dict(mixed.state_dict(), strict=False)
    torch.testing.assert_close(plain(batch(), step()).value, mixed(batch(), step()).value)
    with torch.no_grad():
        mixed.weights.copy_(torch.eye(2) + 0.01)
    assert plain(batch(), step()).value != mixed(batch(), step()).value


def test_targets_are_the_teachers_tokens_at_the_seen_places_standardised():
    method = build()
    x = batch().x["image"]
    told = method.teacher.trace(x)
    mask = RandomMask(0.5)(8, (4, 4), Rng(0))
    for target, tap in zip(method.target(told, mask), told, strict=True):
        torch.testing.assert_close(target.mean(2), torch.zeros(8, 9), atol=1e-5, rtol=0)
        torch.testing.assert_close(target.var(2, correction=0), torch.ones(8, 9), atol=1e-3, rtol=0)
        torch.testing.assert_close(target[:, 0], F.layer_norm(tap.out[:, 0], (16,)))
        torch.testing.assert_close(target[:, 1:], F.layer_norm(take(tap.out[:, 1:], mask.keep), (16,)))


def test_the_loss_is_zero_at_the_target_and_else_the_square_of_small_differences():
    method = build()
    target = [torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    method.target = lambda taps, mask: target
    method.guess = lambda x, mask: target
    assert method(batch(), step()).value == 0
    method.guess = lambda x, mask: [target[0] + 0.5, target[1] - 0.25]
    torch.testing.assert_close(method(batch(), step()).value, torch.tensor((0.25 + 0.0625) / 2))


def test_a_student_that_is_its_teacher_and_sees_everything_is_right_but_for_the_mix():
    teacher = drawn(vit(class_token=True), 1)
    method = build(teacher, mix=False, mask=RandomMask(0.5))
    method.encoder.load_state_dict(teacher.state_dict())
    x, whole = batch().x["image"], torch.arange(16).expand(8, -1)
    for head in method.heads:
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    mask = replace_keep(whole)
    for guess, target in zip(method.guess(x, mask), method.target(method.teacher.trace(x), mask), strict=True):
        torch.testing.assert_close(F.layer_norm(guess, (16,)), target)


def replace_keep(keep: Tensor) -> maskalign.Mask:
    return maskalign.Mask(keep, keep[:, :0])


@pytest.mark.parametrize(("n", "ratio", "kept"), [(16, 0.7, 4), (196, 0.7, 58), (10, 0.9, 1), (16, 0.5, 8)])
def test_as_many_are_seen_as_in_the_authors_code(n, ratio, kept):
    mask = WeightedMask(ratio).pick(torch.ones(3, n), Rng(0))
    assert mask.keep.shape == (3, kept)
    assert mask.drop.shape == (3, n - kept)


def test_what_matters_stays_and_equal_weights_are_equal_chances():
    weight = torch.ones(4000, 8)
    weight[:, 3] = 1e-6
    keep = WeightedMask(0.5).pick(weight, Rng(0)).keep
    share = torch.nn.functional.one_hot(keep, 8).sum(1).float().mean(0)
    assert share[3] < 1e-3
    torch.testing.assert_close(share[[0, 1, 2, 4, 5, 6, 7]], torch.full((7,), 4 / 7), atol=0.03, rtol=0)
    even = torch.nn.functional.one_hot(WeightedMask(0.5).pick(torch.ones(4000, 8), Rng(1)).keep, 8).sum(1).float()
    torch.testing.assert_close(even.mean(0), torch.full((8,), 0.5), atol=0.03, rtol=0)


def test_one_is_drawn_in_proportion_to_its_weight():
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(20_000, -1)
    first = WeightedMask(0.75).pick(weight, Rng(0)).keep[:, 0]
    torch.testing.assert_close(first.bincount() / len(first), torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015, rtol=0)


def test_it_looks_where_the_class_token_of_the_last_layer_does():
    teacher = drawn(vit(class_token=True), 1)
    x = batch().x["image"]
    tap = teacher.trace(x)[-1]
    block = teacher.trunk.blocks[-1]
    theirs = nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(block.attention.qkv.weight)
        theirs.in_proj_bias.copy_(block.attention.qkv.bias)
    entering = block.norm1(teacher.trace(x)[-2].out)
    _, weight = theirs(entering, entering, entering, average_attn_weights=True)
    torch.testing.assert_close(looked_at(tap, 1, None), weight[:, 0, 1:])
    bare = drawn(vit(), 1).trace(x)[-1]
    torch.testing.assert_close(looked_at(bare, 0, None).sum(1), torch.ones(8))
    some = torch.ones(8, 16, dtype=torch.bool)
    some[:, 10:] = False
    told = looked_at(tap, 1, some)
    assert (told[:, 10:] == 0).all()
    assert (told[:, :10] > 0).all()


def test_the_student_does_not_see_what_is_masked_and_the_teacher_does():
    method = build()
    x = batch().x["image"]
    mask = RandomMask(0.5)(8, (4, 4), Rng(0))
    tokenizer = method.encoder.tokenizer
    patches = tokenizer.patches(x)
    noise = torch.randn(8, 8, 48, generator=torch.Generator().manual_seed(5))
    other = tokenizer.unpatch(patches.scatter(1, mask.drop[..., None].expand_as(noise), noise), (4, 4))
    for a, b in zip(method.guess(x, mask), method.guess(other, mask), strict=True):
        torch.testing.assert_close(a, b)
    a, b = (method.target(method.teacher.trace(picture), mask)[-1] for picture in (x, other))
    assert not torch.allclose(a, b, atol=0.05)


def test_the_loss_is_of_the_patches_that_are_drawn():
    method = build()
    x = batch().x["image"]
    mask = method.config.mask.pick(looked_at(method.teacher.trace(x)[-1], 1, None), step().rng)
    pairs = zip(method.guess(x, mask), method.target(method.teacher.trace(x), mask), strict=True)
    want = sum(2 * F.smooth_l1_loss(guess, target) for guess, target in pairs) / 2
    torch.testing.assert_close(method(batch(), step()).value, want)


def test_gradient_reaches_the_student_the_mix_and_the_heads_alone():
    method = build().train()
    method(batch(), step()).value.backward()
    assert method.encoder.trunk.norm.weight.grad is None
    assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())
    assert not method.teacher.encoder.training
    assert method.encoder.training
    assert method.weights.grad.abs().min() > 0
    assert all(head.weight.grad.abs().sum() > 0 for head in method.heads)
    assert not any(p is q for p in method.encoder.parameters() for q in build(method.encoder).teacher.parameters())


def test_a_teacher_with_other_patches_sees_pictures_at_another_size():
    teacher = other_teacher(patch=5)
    method = build(teacher, top=3)
    x = batch().x["image"]
    tokenizer = method.encoder.tokenizer
    sized = method.teacher.sized(x, tokenizer)
    torch.testing.assert_close(sized, F.interpolate(x, size=(20, 20), mode="bicubic", align_corners=False))
    assert build().teacher.sized(x, tokenizer) is x
    assert method(batch(), step()).value.isfinite()
    assert [head.out_features for head in method.heads] == [24, 24, 24]
    told = method.teacher.trace(sized)
    mask = RandomMask(0.5)(8, (4, 4), Rng(0))
    for target, tap in zip(method.target(told, mask), told[1:], strict=True):  # the last three of four
        torch.testing.assert_close(target[:, 0], F.layer_norm(tap.out[:, 0], (24,)))
    method.config = replace(method.config, view=lambda x, rng: x)
    with pytest.raises(RequestError, match="unequal sizes"):
        method(Batch({"image": Ragged(x, torch.full((8, 2), 16))}), step())


def test_padding_never_counts():
    method = build()
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    extent = torch.tensor([[16, 16], [8, 16], [16, 4], [9, 9]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, torch.full_like(values, 77.0))
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()).value for v in (values, garbage))
    torch.testing.assert_close(a, b)


def test_teachers_whose_layers_cannot_be_aimed_at_are_refused():
    with pytest.raises(RequestError, match="teacher is a ConvNet"):
        maskalign.TINY.build({"image": vit()}, convnet())
    with pytest.raises(RequestError, match="as deep as its teacher"):
        build(other_teacher(), mix=False)
    frozen = Frozen(convnet())
    x = batch().x["image"]
    torch.testing.assert_close(
        frozen.train()(x).pooled, frozen.encoder.eval()(x).pooled
    )  # any encoder can teach otherwise


def test_a_run_teaches_a_run(tmp_path):
    first = hw.pretrain("mae", "digits", out=tmp_path / "a", steps=1, batch_size=8, workers=1)
    taught = {
        name: hw.pretrain("maskalign", "digits", out=tmp_path / name, steps=1, batch_size=8, workers=1, set=given)
        for name, given in (("b", [f"method.teacher={first.path}"]), ("c", []))
    }
    loss = {name: run.outcome.history[-1]["loss"] for name, run in taught.items()}
    assert loss["b"] != loss["c"]
    with pytest.raises(RequestError, match="no encoder at"):
        hw.pretrain("maskalign", "digits", out=tmp_path / "d", steps=1, workers=1, set=["method.teacher=nowhere"])
