"""SSAST: what is hidden and only that is matched and restored, among the patches of one sound."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged
from headwater.methods.reconstruct import ssast
from headwater.parts.bands import ClusterMask
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import RandomMask, where_hidden
from headwater.parts.positions import sincos
from headwater.parts.tokens import SpectrogramTokenizerConfig, coordinates, take
from headwater.parts.views.kit import audio as kit
from tests.small import TRUNK, audio, batch, step


def build(**changes: object) -> ssast.SSAST:
    torch.manual_seed(0)
    return replace(ssast.TINY, **changes).build({"audio": audio()})


def test_the_published_mask_hides_400_of_512_patches_in_clusters():
    mask = ssast.Config().mask(4, (64, 8), Rng(0))
    assert mask.drop.shape == (4, 400)
    assert torch.equal(torch.cat([mask.keep, mask.drop], 1).sort(1).values, torch.arange(512).expand(4, -1))


def test_what_is_hidden_lies_in_whole_clusters_but_for_the_last_one():
    hidden = where_hidden(ClusterMask(0.4, (3, 3))(32, (20, 12), Rng(0))).view(32, 20, 12)
    blocks = hidden.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).all(3)  # where a whole cluster begins
    inside = torch.zeros_like(hidden)
    for i in range(3):
        for j in range(3):
            inside[:, i : i + 18, j : j + 10] |= blocks
    inner = hidden & ~inside
    inner[:, [0, 1, -2, -1]], inner[:, :, [0, 1, -2, -1]] = False, False  # at the edges clusters are cut off
    assert inner.flatten(1).sum(1).max() < 9
    assert inner.float().mean() < 0.02


def test_token_and_patch_of_one_number_are_the_same_place():
    encoder = audio()
    tokenizer, x = encoder.tokenizer, batch().x["audio"]
    with torch.no_grad():
        tokenizer.cut.embed.weight.copy_(torch.eye(16, 8))
        tokenizer.cut.embed.bias.zero_()
        torch.testing.assert_close(tokenizer(x).x[..., :8], tokenizer.patches(x))


@pytest.mark.parametrize("among", ["guesses", "patches"])
def test_the_contrast_is_zero_when_sure_and_log_n_when_ignorant(among):
    patches = torch.eye(5).expand(2, -1, -1)
    for scale in (1.0, 4.0, 50.0):
        error, hit = ssast.contrast(scale * patches, patches, None, among)
        assert hit.all()
        torch.testing.assert_close(error, torch.full((2, 5), math.log(1 + 4 * math.exp(-scale))))
    error, _ = ssast.contrast(torch.ones(2, 5, 5), torch.ones(2, 5, 5), None, among)
    torch.testing.assert_close(error, torch.full((2, 5), math.log(5)))


def test_both_directions_are_those_of_code_and_paper_and_agree_on_symmetric_scores():
    a, p = torch.randn(3, 6, 4), torch.randn(3, 6, 4)
    scores = p @ a.mT
    code = -(scores.diagonal(0, 1, 2) - scores.logsumexp(2))  # softmax over the guesses for each patch
    paper = -(scores.diagonal(0, 1, 2) - scores.logsumexp(1))  # over the patches for each guess
    torch.testing.assert_close(ssast.contrast(a, p, None, "guesses")[0], code)
    torch.testing.assert_close(ssast.contrast(a, p, None, "patches")[0], paper)
    assert not torch.allclose(code, paper)
    both = [ssast.contrast(p, p, None, among)[0] for among in ("guesses", "patches")]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("among", ["guesses", "patches"])
def test_what_is_padding_is_no_choice(among):
    a, p = torch.randn(3, 6, 4), torch.randn(3, 6, 4)
    counted = torch.tensor([[True] * 6, [True, False, True, True, False, False], [False] * 6])
    error, hit = ssast.contrast(a, p, counted, among)
    for i, real in enumerate(counted[:2]):
        alone = ssast.contrast(a[i : i + 1, real], p[i : i + 1, real], None, among)
        torch.testing.assert_close(error[i, real], alone[0][0])
        assert torch.equal(hit[i, real], alone[1][0])
    assert error.isfinite().all()


def test_the_parts_of_the_loss_and_their_weight():
    method = build(restore_weight=7.0)
    for head in (method.match, method.restore):
        nn.init.zeros_(head[2].weight)
        nn.init.zeros_(head[2].bias)
    out = method(batch(), step())
    rng = step().rng
    _, second = (method.config.mask(8, (4, 4), rng) for _ in range(2))
    target = take(method.encoder.tokenizer.patches(batch().x["audio"]) / 2, second.drop)
    torch.testing.assert_close(out.metrics["contrast"], torch.tensor(math.log(10)))
    torch.testing.assert_close(out.value, math.log(10) + 7.0 * target.square().mean())


def test_each_loss_has_a_mask_of_its_own():
    method, seen = build(), []
    method.encoder.register_forward_hook(lambda _, args, named, out: seen.append(named["hidden"]), with_kwargs=True)
    method(batch(), step())
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_patches_that_are_seen_enter_no_target_and_targets_get_no_gradient():
    method = build()
    plain, said = method.target, []

    def changed(given: Batch) -> torch.Tensor:
        out = plain(given).detach().requires_grad_()
        said.append(out)
        return out

    method.target = changed
    method(batch(), step()).value.backward()
    rng = step().rng
    for target, mask in zip(said, (method.config.mask(8, (4, 4), rng) for _ in range(2)), strict=True):
        assert (take(target.grad, mask.keep) == 0).all()
        assert (take(target.grad, mask.drop) != 0).any(2).all()
    assert not plain(batch()).requires_grad  # real targets are plain numbers


def test_hidden_values_are_not_encoded_and_class_tokens_shift_nothing():
    torch.manual_seed(0)
    encoder = audio(class_token=True, registers=1)
    for block in encoder.trunk.blocks:  # what goes in comes out, but for the last norm
        for last in (block.attention.out, block.mlp[2]):
            nn.init.zeros_(last.weight)
    method = ssast.TINY.build({"audio": encoder})
    method.target = lambda given: coordinates((4, 4), "cpu").expand(8, -1, -1)
    said, target, _ = method.hide(batch(), step())
    mask = method.config.mask(8, (4, 4), step().rng)

    place = coordinates((4, 4), "cpu")[mask.drop]
    assert torch.equal(target, place)  # and each token stands beside the patch of its own place
    torch.testing.assert_close(said, encoder.trunk.norm(method.mask_token + sincos(place, 16)))


def test_padding_never_counts():
    torch.manual_seed(0)
    method = build()
    sound = 0.1 * torch.randn(4, 1, 800)
    extent = torch.tensor([[800], [440], [520], [210]])
    inside = torch.arange(800) < extent
    a, b = (
        method(Batch({"audio": Ragged(torch.where(inside[:, None], sound, other), extent)}), step())
        for other in (0.0, 9.0)
    )
    assert a.value.isfinite()
    torch.testing.assert_close(a.value, b.value)
    torch.testing.assert_close(a.metrics["accuracy"], b.metrics["accuracy"])


def test_sounds_are_taken_as_they_are():
    assert ssast.Config().viewed(kit(8000)) == ssast.Config()


def test_frames_of_all_pitches_are_its_other_model():
    """Its frame model: patches of all mel bins and two frames, hidden one by one."""
    tokenizer = SpectrogramTokenizerConfig(rate=8000, patch=(2, 16), mels=16)

    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK).build()
    method = ssast.Config(mask=RandomMask(0.5)).build({"audio": encoder})
    out = method(batch(), step())
    assert out.value.isfinite()
    assert method.hide(batch(), step())[0].shape == (8, 2, 16)
