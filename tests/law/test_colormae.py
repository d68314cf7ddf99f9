"""ColorMAE: MAE whose masks are noise of a colour; the spectra of the colours are tested where the masks are."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headwater.claims.colormae import left_open
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.methods.reconstruct import colormae
from headwater.parts.masks import RandomMask
from headwater.parts.noise_masks import COLOURS, NoiseMask
from headwater.parts.views import CentreCrop
from tests.law.test_mae import carry, like_the_reference, reference
from tests.small import batch, vit

STILL = CentreCrop(16, 1.0)


def seen_by(method: colormae.ColorMAE, x: Batch, step: Step) -> Tensor:
    kept: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, args, named: kept.append(named["keep"]), with_kwargs=True)
    method(x, step)
    return kept[0]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("b", [1, 7])
def test_the_encoder_sees_the_quarter_where_noise_is_highest(colour, b):
    torch.manual_seed(0)
    method = replace(colormae.TINY, view=STILL, mask=NoiseMask(0.75, colour)).build({"image": vit()})
    kept = seen_by(method, batch(b), Step(Rng(4)))
    assert kept.shape == (b, 16 - int(0.75 * 16))
    noise = method.config.mask.noise(b, (4, 4), Rng(4)).flatten(1)
    shown = torch.zeros(b, 16, dtype=torch.bool).scatter(1, kept, True)
    assert (noise.masked_fill(~shown, 9).amin(1) >= noise.masked_fill(shown, -9).amax(1)).all()


def test_masks_know_nothing_of_the_data_and_change_with_the_step():
    method = replace(colormae.TINY, view=STILL).build({"image": vit()})
    first = seen_by(method, batch(seed=1), Step(Rng(4)))
    assert torch.equal(first, seen_by(method, batch(seed=2), Step(Rng(4))))
    assert not torch.equal(first, seen_by(method, batch(seed=1), Step(Rng(5))))


def test_the_published_mask_is_green_and_hides_three_quarters():
    mask = colormae.Config().mask(3, (14, 14), Rng(0))
    assert mask.keep.shape == (3, 49)
    assert torch.equal(mask.drop, NoiseMask(0.75, "green")(3, (14, 14), Rng(0)).drop)


def test_at_an_equal_count_the_colour_says_how_much_can_be_guessed():
    """The best guess of a random field of short or long memory, without any training."""
    for length, step in ((2.0, 0.03), (4.0, 0.03)):
        masks = [NoiseMask(0.75, "red"), NoiseMask(0.75, "green"), RandomMask(0.75)]
        red, green, white = (left_open(mask, Rng(0), length, 40) for mask in masks)
        purple, blue = (left_open(NoiseMask(0.75, c), Rng(0), length, 40) for c in ("purple", "blue"))
        assert red > green + 4 * step
        assert green > white + step
        assert white > purple + 0.002
        assert purple > blue + 0.002


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
@pytest.mark.parametrize("colour", COLOURS)
def test_it_equals_the_reference_that_keeps_the_smallest_of_minus_the_noise(colour):
    theirs = reference(standardise=True)
    mask = NoiseMask(0.75, colour)
    method = like_the_reference(colormae.Config, mask=mask)
    carry(theirs, method)
    x = torch.rand(5, 3, 32, 32)
    want = theirs(pixel_values=x, noise=-mask.noise(5, (4, 4), Rng(3)).flatten(1)).loss
    torch.testing.assert_close(method(Batch({"image": x}), Step(Rng(3))).value, want, rtol=1e-5, atol=0)
