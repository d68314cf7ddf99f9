"""POA: slices of one network, in place and cut out; what trains what, and when."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Step
from headwater.methods.distill import dinov2, poa
from headwater.parts.elastic import Slice, Walk, encode, extract, kept_blocks, rounds, slices, weights, widened
from headwater.parts.encoders import TokenEncoder, TokenEncoderConfig
from headwater.parts.losses import koleo, sinkhorn
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import Transformer, TransformerConfig
from tests.small import batch, convnet, crate, step, vit

TRUNK = TransformerConfig(dim=24, depth=4, heads=3, layer_scale=0.5)
LARGE = TransformerConfig(dim=1024, depth=24, heads=16)


def network(**more: object) -> TokenEncoder:
    torch.manual_seed(0)
    tokenizer = GridTokenizerConfig(modality="image", channels=3, patch=(4, 4))
    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK, **more).build()
    for p in encoder.parameters():
        nn.init.normal_(p, std=0.3)
    return encoder


def build(**changes: object) -> poa.POA:
    torch.manual_seed(0)
    return replace(poa.TINY, **changes).build({"image": vit()})


def by_hand(trunk: Transformer, x: torch.Tensor, w: int, blocks: list[int]) -> torch.Tensor:
    """The sub-network, written out: scale what enters each linear map, then take the first rows and columns."""
    full = trunk.config.dim

    def norm(layer, v):
        return nn.functional.layer_norm(v, (w,), layer.weight[:w], layer.bias[:w], layer.eps)

    def linear(layer, v, out):
        return nn.functional.linear(
            v * (layer.in_features / v.shape[-1]), layer.weight[:out, : v.shape[-1]], layer.bias[:out]
        )

    for i in blocks:
        b = trunk.blocks[i]
        h, heads, qkv = norm(b.norm1, x) * full / w, w // 8, b.attention.qkv
        rows = [slice(g * full, g * full + w) for g in range(3)]
        mapped = [nn.functional.linear(h, qkv.weight[r, :w], qkv.bias[r]) for r in rows]
        q, k, v = (m.unflatten(2, (heads, 8)).transpose(1, 2) for m in mapped)
        mixed = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + b.scale1.gamma[:w] * linear(b.attention.out, mixed, w)
        x = x + b.scale2.gamma[:w] * linear(b.mlp[2], nn.functional.gelu(linear(b.mlp[0], norm(b.norm2, x), 4 * w)), w)
    return norm(trunk.norm, x)


@pytest.mark.parametrize(
    ("width", "depth", "blocks"), [(8, 2, [0, 3]), (16, 3, [0, 1, 3]), (24, 1, [0]), (16, 4, [0, 1, 2, 3])]
)
def test_a_slice_is_the_first_channels_of_some_blocks(width, depth, blocks):
    encoder, x = network(), batch().x["image"]
    got = encode(encoder, Slice(width, depth), x)
    want = by_hand(encoder.trunk, encoder.embed(x).x[..., :width], width, blocks)
    torch.testing.assert_close(got.tokens, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.pooled, got.tokens.mean(1))


@pytest.mark.parametrize("more", [{}, {"class_token": True, "registers": 2, "pool": "class"}])
def test_the_whole_slice_is_the_network(more):
    encoder, x = network(**more), batch().x["image"]
    hidden, stand_in = torch.rand(8, 16) < 0.3, torch.randn(24)
    a, b = encode(encoder, Slice(24, 4), x, hidden, stand_in), encoder(x, hidden=hidden, stand_in=stand_in)
    torch.testing.assert_close(a.tokens, b.tokens)
    torch.testing.assert_close(a.pooled, b.pooled)


@pytest.mark.parametrize("more", [{}, {"class_token": True, "pool": "class", "position": "learned", "grid": (4, 4)}])
def test_a_slice_cut_out_gives_what_it_gives_in_place(more):
    encoder, x = network(**more), batch().x["image"]
    encoder.tokenizer.normalise.set(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4]))
    for to in (Slice(8, 2), Slice(16, 3), Slice(24, 4)):
        alone = extract(encoder, to, (4, 4))
        assert (alone.dim, len(alone.trunk.blocks)) == (to.width, to.depth)
        torch.testing.assert_close(alone(x).pooled, encode(encoder, to, x).pooled)
        assert all(p.requires_grad and p.is_leaf for p in alone.parameters())
    with pytest.raises(RequestError, match="grid"):
        extract(network(), Slice(8, 2))


def test_gradients_stay_within_the_slice():
    encoder = network()
    encode(encoder, Slice(16, 2), batch().x["image"]).pooled.square().sum().backward()
    for i in (1, 2):  # blocks that are skipped
        assert all(p.grad is None or not p.grad.any() for p in encoder.trunk.blocks[i].parameters())
    first = encoder.trunk.blocks[0]
    qkv = first.attention.qkv.weight.grad.unflatten(0, (3, 24))
    assert qkv[:, :16, :16].abs().amax((1, 2)).min() > 0
    assert not qkv[:, 16:].any()
    assert not qkv[:, :, 16:].any()
    up = first.mlp[0].weight.grad
    assert up[:64, :16].any(1).all()
    assert not up[64:].any()
    assert not up[:, 16:].any()
    assert not encoder.tokenizer.embed.weight.grad[16:].any()


def test_the_published_space_has_143_networks():
    found = slices(LARGE, poa.Config().least)
    assert len(found) == 11 * 13 == len(set(found))
    assert found[0] == Slice(384, 12)
    assert found[-1] == Slice(1024, 24)
    assert {s.width for s in found} == {*range(384, 1025, 64)}


def test_blocks_are_spread_evenly_with_the_first_and_the_last():
    assert kept_blocks(24, 24) == [*range(24)]
    for n in range(12, 24):
        found = kept_blocks(24, n)
        assert found == [int(k * 23 / (n - 1)) for k in range(n)]
        assert (found[0], found[-1], len({*found})) == (0, 23, n)
    assert kept_blocks(4, 1) == [0]


def test_small_networks_come_up_to_nine_times_as_often_and_the_whole_never():
    found = slices(LARGE, (0.375, 0.5))
    times = Counter(rounds(found, 3, random.Random(0)))
    assert set(times) == {*range(142)}
    assert times[0] == 9
    assert times[found.index(Slice(384, 24))] == times[found.index(Slice(1024, 12))] == 3
    assert times[found.index(Slice(1024, 23))] == 1


def test_a_walk_visits_all_and_begins_anew_in_another_order():
    torch.manual_seed(0)
    walk = Walk(slices(LARGE, (0.375, 0.5)), 3)
    n, draw = len(walk.order), random.Random(1)
    seen = []
    for _ in range(2 * n):
        seen.append(walk.now())
        walk.go_on(draw)
    assert Counter(seen[:n]) == Counter(seen[n:])
    assert seen[:n] != seen[n:]
    assert Slice(1024, 24) not in seen
    again = Walk(walk.slices, 3)
    again.load_state_dict(walk.state_dict())
    assert again.now() == walk.now()


def test_the_walk_goes_on_after_each_step_and_not_before():
    method = build()
    before = int(method.walk.at)
    method(batch(), step())
    assert int(method.walk.at) == before
    method.after_step(step(), {})
    assert int(method.walk.at) == (before + 1) % len(method.walk.order)


def terms(method: poa.POA, **changes: object) -> dict[str, float]:
    out = method(batch(), step())
    return {"value": float(out.value.detach()), **{k: float(v) for k, v in out.metrics.items()}}


def test_the_loss_is_put_together_as_the_paper_says():
    t = terms(build())
    assert t["value"] == pytest.approx(0.8 * t["student"] + 0.2 * (t["slice"] + t["same"]) + 0.1 * t["koleo"], rel=1e-5)


def listened(method: poa.POA) -> list[torch.Tensor]:
    """Collects what the student and then its slice make of all views; their gradients are kept."""
    said, plain = [], method.branch

    def marked(*given):
        pooled, patches = plain(*given)
        pooled.retain_grad()
        said.append(pooled)
        return pooled, patches

    method.branch = marked
    return said


def test_without_its_weight_only_koleo_is_left_of_the_slice():
    method = build(student_weight=1.0, koleo_weight=0.0)
    said = listened(method)
    for weight in (0.0, 0.1):
        said.clear()
        method.config = replace(method.config, koleo_weight=weight)
        method(batch(), step()).value.backward()
        assert said[0].grad.any()
        assert said[1].grad.any() == (weight > 0)
    large = said[1].detach()[:16].requires_grad_()
    half = 0.1 / 2 * sum(koleo(crop, lambda x: x) for crop in large.chunk(2))
    (want,) = torch.autograd.grad(half, large)
    torch.testing.assert_close(said[1].grad[:16], want, rtol=1e-3, atol=1e-6)


def test_the_student_does_not_learn_from_what_it_teaches_its_slice():
    method = build(koleo_weight=0.0)
    said = listened(method)
    method(batch(), step()).value.backward()
    much = said[0].grad / 0.8
    said.clear()
    method.config = replace(method.config, student_weight=0.4)
    method(batch(), step()).value.backward()
    torch.testing.assert_close(much, said[0].grad / 0.4, rtol=1e-3, atol=1e-7)


def test_the_slice_says_of_each_view_what_the_student_says_large_and_small_alike():
    method = build()
    said = listened(method)
    out = method(batch(), step())
    want = []
    for head in method.heads:
        a, b = (head(x.detach()) / 0.1 for x in said)
        error = -(a.softmax(-1) * b.log_softmax(-1)).sum(-1)
        want.append(error[:16].mean() + error[16:].mean())  # two large crops of eight samples, two small ones
    torch.testing.assert_close(out.metrics["same"], sum(want).detach() / 2)


def test_nothing_is_hidden_before_patches_count():
    method = build(patches_from=0.5)
    said = listened(method)
    for progress in (0.4, 0.6):
        method(batch(), step(progress=progress))
    with torch.no_grad():
        method.mask_token.add_(1)
    for progress in (0.4, 0.6):
        method(batch(), step(progress=progress))
    assert torch.equal(said[0], said[4])
    assert not torch.equal(said[2], said[6])


def test_alone_the_student_learns_as_in_dinov2_with_shared_heads():
    method = build(student_weight=1.0, koleo_weight=0.0, prototypes=(12,), patches_from=0.0, head_norm=False)
    names = ("views", "mask", "hidden", "bottleneck", "teacher_temperature", "freeze", "koleo_weight")
    config = dinov2.Config(prototypes=12, shared_head=True, **{n: getattr(method.config, n) for n in names})
    plain = config.build({"image": method.encoder})
    plain.heads.sample, plain.mask_token = method.heads[0], method.mask_token
    plain.teacher = method.teacher
    plain.teacher_heads.copy.sample = method.teacher_heads[0].copy
    for progress in (0.1, 0.6):
        ours, theirs = (m(batch(), step(progress=progress)).value for m in (method, plain))
        torch.testing.assert_close(ours, theirs)


def test_patches_count_from_their_time_on_and_prototypes_stand_still_before_theirs():
    method = build(patches_from=0.5, freeze=0.5)
    plain = method.branch
    early, late = (method(batch(), step(progress=p)) for p in (0.4, 0.6))
    method.branch = lambda *given: tuple(x * n for x, n in zip(plain(*given), (1, 0), strict=True))
    without = [method(batch(), step(progress=p)) for p in (0.4, 0.6)]
    assert torch.equal(early.value, without[0].value)
    assert not torch.equal(late.value, without[1].value)
    early.value.backward()
    assert not any(head.prototypes.grad.any() for head in method.heads)


def test_prototypes_are_used_equally_and_rows_sum_to_one():
    q = sinkhorn(torch.randn(64, 8), 0.5, step(), rounds=50)
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    torch.testing.assert_close(q.sum(0), torch.full((8,), 8.0), rtol=1e-3, atol=1e-3)


def test_features_of_a_slice_reach_a_map_made_for_the_whole_scaled():
    x, layer = torch.randn(5, 16), nn.Linear(24, 3)
    want = nn.functional.linear(x * 24 / 16, layer.weight[:, :16], layer.bias)
    torch.testing.assert_close(layer(widened(x, 24)), want)


def test_teachers_are_whole_and_follow():
    method = build(momentum=lambda progress: 0.75)
    with torch.no_grad():
        for p in [*method.encoder.parameters(), *method.heads.parameters()]:
            p.add_(1.0)
    method.after_step(Step(Rng(0), 0.5), {})
    for slow, fast in ((method.teacher, method.encoder), (method.teacher_heads[1], method.heads[1])):
        for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(a, b.detach() - 0.75)
    assert method.encoders()["image"] is method.teacher.encoder()


def test_weights_of_a_slice_are_no_copies():
    trunk = network().trunk
    assert all(w.requires_grad for w in weights(trunk, Slice(8, 2)).values())


def gated() -> TokenEncoder:
    made = network().config
    return replace(made, trunk=replace(TRUNK, activation="swiglu")).build()


ODD = [convnet, crate, gated, lambda: vit(relative="shared", grid=(4, 4)), lambda: vit(pool="attention")]


@pytest.mark.parametrize("make", ODD)
def test_what_cannot_be_cut_is_refused(make):
    with pytest.raises(RequestError, match=r"plain transformer|POA cuts"):
        poa.TINY.build({"image": make()})
    with pytest.raises(RequestError, match="smaller than the whole"):
        replace(poa.TINY, least=(1.0, 1.0)).build({"image": vit()})
