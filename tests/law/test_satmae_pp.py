"""SatMAE++: groups of bands, and finer pictures grown from what the decoder says."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.api import catalogue
from headwater.api.recipe import recipe_for
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data import open as open_data
from headwater.methods.reconstruct import satmae_pp
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import RandomMask, TubeMask, where_hidden
from headwater.parts.tokens import BandsTokenizer, BandsTokenizerConfig, take
from headwater.parts.upsampling import Upsampler
from headwater.parts.views import CentreCrop
from tests.law.test_mae import ByNoise, carry, like_the_reference, reference
from tests.small import TRUNK

GROUPS = ((0, 2), (1, 3, 4))


def build(**changes: object) -> satmae_pp.SatMAE:
    torch.manual_seed(0)
    encoder = TokenEncoderConfig(tokenizer=BandsTokenizerConfig(groups=GROUPS, patch=4), trunk=TRUNK).build()
    encoder.tokenizer.normalise.set(torch.randn(5), 0.5 + torch.rand(5))
    config = replace(satmae_pp.TINY, view=CentreCrop(32, 1.0))
    return replace(config, **changes).build({"image": encoder})


def tiles(size: int = 32, b: int = 6) -> Batch:
    return Batch({"image": torch.rand(b, 5, size, size, generator=torch.Generator().manual_seed(0))})


def step() -> Step:
    return Step(Rng(3))


def test_pictures_grow_by_doublings():
    torch.manual_seed(0)
    grower = Upsampler(5, 2, 20)
    x = torch.randn(3, 5, 8, 12)
    twice, four = grower(x)
    assert twice.shape == (3, 5, 16, 24)
    assert four.shape == (3, 5, 32, 48)
    with torch.no_grad():
        grower.shown[0].weight.add_(1.0)  # the second doubling goes on from features, not from the first picture
    assert not torch.equal(grower(x)[0], twice)
    assert torch.equal(grower(x)[1], four)


@pytest.mark.parametrize(("mask", "together"), [(RandomMask(0.75), False), (TubeMask(0.75), True)])
def test_a_quarter_of_all_tokens_is_seen_and_groups_hide_alone_or_together(mask, together):
    method = build(mask=mask)
    kept: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, args, named: kept.append(named["keep"]), with_kwargs=True)
    method(tiles(), step())
    assert kept[0].shape == (6, int(2 * 16 * 0.25))
    seen = torch.zeros(6, 32, dtype=torch.bool).scatter(1, kept[0], True).view(6, 2, 16)
    assert torch.equal(seen[:, 0], seen[:, 1]) == together


def test_the_encoder_sees_the_picture_shrunk_by_means_of_four():
    method = build(levels=2, view=CentreCrop(64, 1.0))
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = tiles(64)
    method(x, step())
    want = F.interpolate(x.x["image"], scale_factor=0.5, mode="bilinear", align_corners=False)
    want = F.interpolate(want, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0], want)


def pieces(method: satmae_pp.SatMAE, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The error of the hidden and the L1 of every finer picture, put together anew."""
    pyramid = [x]
    for _ in range(method.levels):
        pyramid.append(F.interpolate(pyramid[-1], scale_factor=0.5, mode="bilinear", align_corners=False))
    low, mask = pyramid[-1], method.config.mask(len(x), method.encoder.tokenizer.grid(pyramid[-1]), step().rng)
    tokenizer = method.encoder.tokenizer
    guess = method.to_patch(method.decode(method.encoder(low, keep=mask.keep), mask, tokenizer.places(low), None))
    real, side = method.normalise(low), low.shape[-1] // 4
    hidden = where_hidden(mask).view(len(x), 2, side, side)
    errors = []  # per group and patch, over its own bands alone
    shown = method.normalise(tokenizer.unpatch(guess, tokenizer.grid(low)))
    for g, group in enumerate(GROUPS):
        square = (shown - real)[:, list(group)].square()
        errors.append(F.avg_pool2d(square, 4).mean(1)[hidden[:, g]])
    grown = method.upsampler(shown)
    finer = [F.l1_loss(a, method.normalise(b)) for a, b in zip(grown, pyramid[-2::-1], strict=True)]
    return torch.cat(errors).mean(), finer


@pytest.mark.parametrize("levels", [1, 2])
def test_the_loss_weighs_both_errors(levels):
    method = build(levels=levels, view=CentreCrop(16 << levels, 1.0))
    x = tiles(16 << levels)
    hidden, finer = pieces(method, x.x["image"])
    out = method(x, step())
    torch.testing.assert_close(out.metrics["hidden"], hidden.detach())
    torch.testing.assert_close(out.value, 0.6 * hidden + 0.4 * sum(finer) / levels)


def test_what_is_said_of_seen_tokens_counts_in_the_finer_pictures_alone():
    method = build()
    x = tiles()
    before = method(x, step()).metrics
    seen = method.config.mask(6, (2, 4, 4), step().rng).keep
    plain = method.decode
    method.decode = lambda *args: (
        lambda d: d.scatter_add(1, seen[..., None].expand(-1, -1, 16), 1 + 0 * take(d, seen))
    )(plain(*args))
    after = method(x, step()).metrics
    assert torch.equal(before["hidden"], after["hidden"])
    assert not torch.isclose(before["finer"], after["finer"])


def test_the_finer_pictures_teach_the_encoder():
    method, other = build(), build()
    hidden, finer = pieces(method, tiles().x["image"])
    (0.6 * hidden + 0.4 * sum(finer)).backward()
    other(tiles(), step()).value.backward()
    for a, b in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    method.zero_grad()
    pieces(method, tiles().x["image"])[1][0].backward()
    assert isinstance(method.encoder.tokenizer, BandsTokenizer)
    for embed in method.encoder.tokenizer.embed:
        assert embed.weight.grad.abs().sum() > 0


def test_only_the_rows_of_its_own_bands_say_something_of_a_group():
    """One linear map holds the head of every group."""
    method = build(mask=TubeMask(0.75))
    x = tiles()
    with torch.no_grad():
        method.to_patch.weight.view(16, 5, 16)[:, [1, 3, 4]] = 0.0
        method.to_patch.bias.view(16, 5)[:, [1, 3, 4]] = 0.0
    low = F.avg_pool2d(x.x["image"], 2)
    mask = method.config.mask(6, (2, 4, 4), step().rng)
    tokenizer = method.encoder.tokenizer
    guess = method.to_patch(method.decode(method.encoder(low, keep=mask.keep), mask, tokenizer.places(low), None))
    shown = method.normalise(tokenizer.unpatch(guess, (2, 4, 4)))
    assert (shown[:, [1, 3, 4]].abs() < 1e-6).all()
    assert (shown[:, [0, 2]].abs() > 1e-3).any()


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
def test_without_finer_pictures_and_groups_it_is_mae():
    theirs = reference(standardise=False)
    noise = torch.rand(5, 16)
    method = like_the_reference(satmae_pp.Config, mask=ByNoise(noise), levels=0)
    carry(theirs, method)
    x = torch.rand(5, 3, 32, 32)
    want = theirs(pixel_values=x, noise=noise).loss
    torch.testing.assert_close(method(Batch({"image": x}), Step(Rng(0))).value, want, rtol=1e-5, atol=0)


def test_the_recipe_begins_with_groups_and_looks_finer_than_the_encoder_sees():
    source = open_data("fields")
    made = recipe_for(catalogue.load("satmae-pp"), source.spec, len(source), 0)
    assert made.size == 32
    assert made.method.view.size == 64
    assert made.encoder["image"].tokenizer.groups == ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
    large = {"image": {**source.spec["image"], "size": (120, 130)}}
    made = recipe_for(catalogue.load("satmae-pp"), large, 100, 0)
    assert (made.size, made.method.view.size) == (96, 384)
    assert made.encoder["image"].trunk.dim == 384


def test_what_it_refuses():
    with pytest.raises(RequestError, match=r"share 1\.5"):
        replace(satmae_pp.TINY, share=1.5)
