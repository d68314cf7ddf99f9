"""MP3: positions are told from content and context alone."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged
from headwater.methods.pretext import mp3
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import RandomMask, where_hidden
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig
from tests.small import audio, batch, step, vit


def build(**changes: object) -> mp3.MP3:
    torch.manual_seed(0)
    method = replace(mp3.TINY, **{"positions": 16, **changes}).build({"image": vit(position="none")})
    for p in method.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.3)  # so that what does not depend on something does not for a reason
    return method


def shuffled(method: mp3.MP3, x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The picture with its patches at other places."""
    tokenizer = method.encoder.tokenizer
    return tokenizer.unpatch(tokenizer.patches(x)[:, order], (4, 4))


def test_shuffled_patches_give_the_same_logits_shuffled():
    method, x = build(), batch().x["image"]
    order = torch.randperm(16)
    context = where_hidden(RandomMask(0.5)(8, (16,), Rng(0)))
    for given, turned in ((None, None), (context, context[:, order])):
        a, b = method.logits(x, given), method.logits(shuffled(method, x, order), turned)
        torch.testing.assert_close(a[:, order], b)
        labels = torch.arange(16).expand(8, -1)
        torch.testing.assert_close(F.cross_entropy(a.mT, labels), F.cross_entropy(b.mT, labels[:, order]))


def test_what_is_outside_the_context_changes_only_its_own_logits():
    method, x = build(), batch().x["image"]
    context = torch.ones(8, 16, dtype=torch.bool)
    context[:, [2, 7]] = False
    plain = method.logits(x, context)
    for changed, others in ((2, False), (3, True)):
        patches = method.encoder.tokenizer.patches(x).clone()
        patches[:, changed] += 1.0
        away = (method.logits(method.encoder.tokenizer.unpatch(patches, (4, 4)), context) - plain).abs().amax((0, 2))
        assert away[changed] > 1e-3
        rest = away[[i for i in range(16) if i != changed]]
        assert (rest > 1e-4).all() if others else (rest == 0).all()


@pytest.mark.parametrize(("ratio", "size"), [(0.0, 16), (0.5, 8), (0.75, 4), (0.3, 12)])
def test_the_context_has_the_size_that_the_ratio_leaves(ratio, size):
    method, seen = build(ratio=ratio), []
    plain = method.logits
    method.logits = lambda x, context=None: seen.append(context) or plain(x, context)
    method(batch(), step())
    (context,) = seen
    if ratio:
        assert (context.sum(1) == size).all()
        assert size == 16 - int(ratio * 16)
    else:
        assert context is None
        torch.testing.assert_close(plain(batch().x["image"]), plain(batch().x["image"], torch.ones(8, 16).bool()))


def test_masked_keys_are_keys_left_out():
    """The same numbers from attention over gathered keys and values, block by block."""
    method, x = build(), batch().x["image"]
    mask = RandomMask(0.75)(8, (4, 4), Rng(0))
    h = method.encoder.tokenizer(x).x
    for block in method.encoder.trunk.blocks:
        q, k, v = block.attention.split(block.norm1(h), None)
        at = mask.keep[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        h = h + block.attention.mix(q, k.gather(2, at), v.gather(2, at), None)
        h = h + block.mlp(block.norm2(h))
    want = method.place(method.norm(method.encoder.trunk.norm(h)))
    torch.testing.assert_close(method.logits(x, ~where_hidden(mask)), want, rtol=1e-4, atol=1e-4)


def test_equal_patches_get_equal_logits():
    method, x = build(), batch().x["image"].clone()
    x[:, :, 4:8, 8:12] = x[:, :, :4, :4]
    logits = method.logits(x)
    torch.testing.assert_close(logits[:, 0], logits[:, 6])
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_knowing_nothing_costs_log_n_whatever_the_most_positions():
    method = build(positions=40)
    nn.init.zeros_(method.place.weight)
    nn.init.zeros_(method.place.bias)
    out = method(batch(), step())
    assert float(out.value.detach()) == pytest.approx(math.log(16)) == float(out.metrics["chance"])
    assert method.logits(batch().x["image"]).shape == (8, 16, 16)


def test_a_logit_means_the_position_of_its_number():
    method, x = build(), batch().x["image"]
    patches = torch.zeros(8, 16, 48)
    patches[..., :16] = torch.eye(16)  # every patch says where it stands
    x = method.encoder.tokenizer.unpatch(patches, (4, 4))
    for block in method.encoder.trunk.blocks:
        for last in (block.attention.out, block.mlp[2]):
            nn.init.zeros_(last.weight)
    with torch.no_grad():
        method.encoder.tokenizer.embed.weight.copy_(torch.eye(16, 48))
        method.place.weight.copy_(9 * torch.eye(16))
    out = method(Batch({"image": x}), step())
    assert out.metrics["accuracy"] == 1.0
    assert out.value < 0.01


def test_padding_never_counts():
    method = build()
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(4, 3, 16, 16)
    extent = torch.tensor([[16, 16], [8, 16], [16, 4], [12, 8]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, 7.0)
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()) for v in (values, garbage))
    assert a.value.isfinite()
    torch.testing.assert_close(a.value, b.value)
    torch.testing.assert_close(a.metrics["accuracy"], b.metrics["accuracy"])


def test_the_loss_is_the_cross_entropy_of_each_real_token_with_its_own_position():
    method = build()
    method.config = replace(method.config, view=lambda x, rng: x)
    said = torch.randn(4, 16, 16)
    method.logits = lambda x, context=None: said
    extent = torch.tensor([[16, 16], [8, 16], [16, 4], [12, 8]])
    x = Ragged(torch.rand(4, 3, 16, 16), extent)
    valid = method.encoder.tokenizer.valid(x)
    labels = torch.arange(16).expand(4, -1)
    out = method(Batch({"image": x}), step())
    torch.testing.assert_close(out.value, F.cross_entropy(said[valid], labels[valid]))
    torch.testing.assert_close(out.metrics["accuracy"], (said.argmax(2) == labels)[valid].float().mean())


def test_padding_is_never_looked_at():
    method, x = build(), batch().x["image"]
    padded = Ragged(x, torch.tensor([[8, 16]]).expand(8, -1))
    for context in (None, torch.ones(8, 16, dtype=torch.bool)):
        alone = method.logits(x[:, :, :8])
        torch.testing.assert_close(method.logits(padded, context)[:, :8, :8], alone)


@pytest.mark.parametrize("more", [{}, {"position": "none", "class_token": True}, {"position": "none", "registers": 1}])
def test_encoders_that_are_told_positions_are_refused(more):
    with pytest.raises(RequestError, match="nope-micro"):
        mp3.TINY.build({"image": vit(**more)})


@pytest.mark.parametrize("more", [{"rotary": True}, {"causal": True}])
def test_trunks_that_are_told_positions_are_refused(more):
    tokenizer = GridTokenizerConfig(modality="image", channels=3, patch=(4, 4))
    trunk = TransformerConfig(dim=16, depth=1, heads=2, **more)
    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=trunk, position="none").build()
    with pytest.raises(RequestError, match="nope-micro"):
        mp3.TINY.build({"image": encoder})


def test_too_many_patches_are_refused_with_the_setting_that_helps():
    method = build(positions=9)
    with pytest.raises(RequestError, match=r"method\.positions=16"):
        method(batch(), step())


def test_sounds_have_positions_too():
    torch.manual_seed(0)
    method = replace(mp3.TINY, view=lambda x, rng: x).build({"audio": audio(position="none")})
    assert method(batch(), step()).value.isfinite()
