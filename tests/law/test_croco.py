"""CroCo: what is hidden of one view is found in the other, which the decoder only reads."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask, Ragged
from headwater.methods.reconstruct import croco
from headwater.parts.crossdecoder import CrossBlock, CrossDecoder
from headwater.parts.masks import RandomMask
from headwater.parts.positions import sincos
from headwater.parts.tokens import coordinates, put, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import CentreCrop
from tests.small import batch, step, vit

STILL = CentreCrop(16, 1.0)
PLACES = coordinates((4, 4), "cpu")[None]


def build(**changes: object) -> croco.CroCo:
    torch.manual_seed(0)
    method = replace(croco.TINY, view=STILL, **changes).build({"image": vit()})
    for p in method.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.2)  # so that what does not depend on something does not for a reason
    return method


def said(method: croco.CroCo, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    mask = method.config.mask(len(first), (4, 4), step().rng)
    return method.complete(first, mask, method.encoder(second), PLACES)


def pair(b: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return batch(b).x["image"], batch(b, seed=5).x["image"]


def test_the_published_mask_hides_176_of_196():
    assert croco.Config().mask(3, (14, 14), Rng(0)).drop.shape == (3, 176)


def test_a_guess_of_zero_costs_one_value_less_than_all():
    """By the unbiased variance, over pixels and channels at once: (n - 1) / n."""
    method = build()
    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    torch.testing.assert_close(method(batch(), step()).value, torch.tensor(47 / 48), rtol=1e-3, atol=0)


def test_seen_patches_cost_nothing():
    method, kept = build(), []
    plain = method.complete

    def complete(*given: object) -> torch.Tensor:
        kept.append(plain(*given).detach().requires_grad_())
        return kept[-1]

    method.complete = complete
    method(batch(), step()).value.backward()
    mask = method.config.mask(8, (4, 4), step().rng)
    assert (take(kept[0].grad, mask.keep) == 0).all()
    assert (take(kept[0].grad, mask.drop) != 0).any(2).all()


def test_both_views_go_through_one_encoder_and_train_it():
    method, seen = build(), []
    method.encoder.register_forward_hook(lambda _, args, named, out: seen.append((args[0], named)), with_kwargs=True)
    method(batch(), step())
    assert [named.get("keep") is None for _, named in seen] == [True, False]  # the second view whole, the first in part
    first, second = pair()
    second = second.requires_grad_()
    said(method, first, second).square().sum().backward()
    assert second.grad.abs().amax((1, 2, 3)).min() > 0


def test_the_answer_depends_on_the_other_view_and_on_nothing_hidden():
    method = build()
    first, second = pair()
    first.requires_grad_()
    second.requires_grad_()
    said(method, first, second).square().sum().backward()
    mask = method.config.mask(8, (4, 4), step().rng)
    by_patch = method.encoder.tokenizer.patches(first.grad).abs().amax(2)
    assert (by_patch.gather(1, mask.drop) == 0).all()
    assert (by_patch.gather(1, mask.keep) > 0).all()
    assert (method.encoder.tokenizer.patches(second.grad).abs().amax(2) > 0).all()

    for block in method.decoder.blocks:
        nn.init.zeros_(block.cross.out.weight)
        nn.init.zeros_(block.cross.out.bias)
    first, second = pair()
    assert torch.equal(said(method, first, second), said(method, first, 1 - second))


def test_the_order_of_the_memory_does_not_matter_but_its_places_do():
    method = build()
    first, second = pair()
    mask = method.config.mask(8, (4, 4), step().rng)
    other = method.encoder(second)
    order = torch.randperm(16)
    turned = replace(other, tokens=other.tokens[:, order])
    plain = method.complete(first, mask, other, PLACES)
    torch.testing.assert_close(method.complete(first, mask, turned, PLACES[:, order]), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(method.complete(first, mask, turned, PLACES), plain, atol=1e-2)


def test_the_memory_is_the_same_in_every_block():
    torch.manual_seed(0)
    decoder, seen = CrossDecoder(TransformerConfig(dim=16, depth=3, heads=2)), []
    for block in decoder.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    memory = torch.randn(2, 5, 16)
    decoder(torch.randn(2, 4, 16), memory)
    assert len(seen) == 3
    assert all(m is memory for m in seen)


def test_a_block_is_self_attention_cross_attention_and_mlp_in_this_order():
    """By torch's own attention: each with a norm before it, the memory with one of its own."""
    torch.manual_seed(0)
    block = CrossBlock(TransformerConfig(dim=16, depth=1, heads=2))
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    own, cross = (nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))
    with torch.no_grad():
        own.in_proj_weight.copy_(block.attention.qkv.weight)
        own.in_proj_bias.copy_(block.attention.qkv.bias)
        cross.in_proj_weight.copy_(torch.cat([block.cross.q.weight, block.cross.kv.weight]))
        cross.in_proj_bias.copy_(torch.cat([block.cross.q.bias, block.cross.kv.bias]))
        for theirs, ours in ((own, block.attention), (cross, block.cross)):
            theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    h = block.norm1(x)
    want = x + own(h, h, h)[0]
    m = block.norm_memory(memory)
    want = want + cross(block.norm2(want), m, m)[0]
    want = want + block.mlp(block.norm3(want))
    torch.testing.assert_close(block(x, memory, None, None), want, rtol=1e-4, atol=1e-5)


def test_padding_of_the_memory_is_not_heard():
    torch.manual_seed(0)
    decoder = CrossDecoder(TransformerConfig(dim=16, depth=2, heads=2))
    x, memory = torch.randn(2, 4, 16), torch.randn(2, 5, 16)
    known = torch.tensor([[True, True, True, False, False], [False] * 5])
    alone = decoder(x[:1], memory[:1, :3])
    torch.testing.assert_close(decoder(x, memory, None, known)[:1], alone)
    assert decoder(x, memory, None, known).isfinite().all()


def test_places_of_hidden_patches_hold_the_mask_token():
    method, entered = build(), []
    method.decoder.register_forward_pre_hook(lambda _, args: entered.append(args[:2]))
    first, second = pair()
    said(method, first, second)
    mask = method.config.mask(8, (4, 4), step().rng)
    tokens, memory = entered[0]
    table = sincos(PLACES, 16).expand(8, -1, -1)
    want = put(
        method.narrow(method.encoder(first, keep=mask.keep).tokens), mask.keep, method.mask_token.expand(8, 16, -1)
    )
    torch.testing.assert_close(tokens, want + table)
    torch.testing.assert_close(memory, method.narrow(method.encoder(second).tokens) + table)


def test_two_views_side_by_side_are_the_halves_of_a_picture():
    x = torch.rand(8, 3, 16, 32)
    method, seen = build(side_by_side=True), []
    method.encoder.register_forward_hook(lambda _, args, named, out: seen.append(args[0]), with_kwargs=True)
    method(Batch({"image": x}), step())
    assert torch.equal(seen[0], x[..., 16:])
    assert torch.equal(seen[1], x[..., :16])
    with pytest.raises(RequestError, match="33 pixels wide"):
        croco.halves(torch.rand(2, 3, 16, 33))
    with pytest.raises(RequestError, match="differ in size"):
        croco.halves(Ragged(torch.rand(2, 3, 16, 16), torch.tensor([[16, 16], [8, 16]])))


def test_views_of_one_picture_are_drawn_independently():
    torch.manual_seed(0)
    method = croco.TINY.build({"image": vit()})
    seen: list[torch.Tensor] = []
    method.encoder.register_forward_hook(lambda _, args, named, out: seen.append(args[0]), with_kwargs=True)
    method(batch(), step())
    assert not torch.allclose(seen[0], seen[1])


def test_padding_never_counts():
    method = build(mask=RandomMask(0.5))
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(4, 3, 16, 16)
    extent = torch.tensor([[16, 16], [8, 16], [16, 4], [12, 8]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, 7.0)
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()).value for v in (values, garbage))
    assert a.isfinite()
    torch.testing.assert_close(a, b)
    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    out = method(Batch({"image": Ragged(values, extent)}), step()).value
    torch.testing.assert_close(out, torch.tensor(47 / 48), rtol=1e-3, atol=0)


def test_padding_is_never_looked_at():
    method = build()
    first, second = pair()
    extent = torch.tensor([[8, 16]]).expand(8, -1)
    keep, drop = torch.tensor([0, 3]).expand(8, -1), torch.tensor([1, 2, 4, 5, 6, 7]).expand(8, -1)
    beyond = torch.arange(8, 16).expand(8, -1)
    alone = method.complete(first[:, :, :8], Mask(keep, drop), method.encoder(second[:, :, :8]), PLACES[:, :8])
    other = method.encoder(Ragged(second, extent))
    padded = method.complete(Ragged(first, extent), Mask(torch.cat([keep, beyond], 1), drop), other, PLACES)
    torch.testing.assert_close(padded[:, :8], alone, rtol=1e-4, atol=1e-4)
