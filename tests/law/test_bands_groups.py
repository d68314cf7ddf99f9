"""Groups of bands as tokens, masks from filtered noise, and the generated fields."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.api import catalogue
from headwater.api.pretrain import build
from headwater.api.recipe import recipe_for
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Ragged
from headwater.data.generated.fields import BANDS, CLASSES, field
from headwater.data.loader import Loader
from headwater.data.source import Subset
from headwater.engine.fit import FitConfig, fit
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.losses import standardise_patches
from headwater.parts.masks import RandomMask, TubeMask, where_hidden
from headwater.parts.noise_masks import COLOURS, NoiseMask
from headwater.parts.positions import sincos
from headwater.parts.tokens import BandsTokenizer, BandsTokenizerConfig, GridTokenizerConfig, coordinates
from headwater.parts.transformer import TransformerConfig

GROUPS = ((0, 1, 6), (2, 3), (4, 5))
SIZES = [(0, 3), (1, 2), (2, 2)]  # of each group


def tokenizer(dim: int = 24) -> BandsTokenizer:
    torch.manual_seed(0)
    made = BandsTokenizerConfig(groups=GROUPS, patch=4).build(dim)
    assert isinstance(made, BandsTokenizer)
    made.normalise.set(torch.randn(7), 0.5 + torch.rand(7))
    return made


def tiles(b: int = 2, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.randn(b, 7, height, width, generator=torch.Generator().manual_seed(1))


def test_a_token_is_its_groups_linear_map_of_its_patch() -> None:
    made, x = tokenizer(), tiles()
    tokens = made(x)
    assert made.grid(x) == (3, 2, 3)
    assert torch.equal(tokens.place[0], coordinates((3, 2, 3), "cpu"))
    assert torch.equal(made.places(x)[0], tokens.place[0])
    for g, group in enumerate(GROUPS):
        alone = GridTokenizerConfig(modality="image", channels=len(group), patch=(4, 4)).build(24)
        alone.normalise.set(made.normalise.mean[list(group)], made.normalise.std[list(group)])
        alone.embed.load_state_dict(made.embed[g].state_dict())
        torch.testing.assert_close(tokens.x.unflatten(1, (3, 6))[:, g], alone(x[:, list(group)]).x)


def test_a_place_knows_its_group() -> None:
    place = tokenizer().places(tiles())
    codes = sincos(place, 96)[0].unflatten(0, (3, 6))
    for part, same in (((..., slice(0, 64)), True), ((..., slice(64, 96)), False)):  # column and row, then the group
        assert torch.equal(codes[0][part], codes[1][part]) == same
    assert torch.equal(codes[1, 0, 64:], codes[1, 5, 64:])


def test_unpatch_is_the_inverse_and_other_groups_are_unknown() -> None:
    made, x = tokenizer(), tiles()
    patches = made.patches(x)
    assert patches.shape == (2, 18, 7 * 16)
    known = ~patches.unflatten(1, (3, 6)).unflatten(3, (16, 7)).isnan()
    for g, group in enumerate(GROUPS):
        assert known[:, g].all(dim=(0, 1, 2)).nonzero()[:, 0].tolist() == sorted(group)
        assert known[:, g].any(dim=2).sum(-1).unique().tolist() == [len(group)]
    torch.testing.assert_close(made.unpatch(patches, made.grid(x)), x)
    torch.testing.assert_close(made.unpatch(patches.nan_to_num(9.0), made.grid(x)), x)


def test_the_error_is_a_mean_over_the_bands_of_the_group() -> None:
    made, x = tokenizer(), tiles()
    target = made.patches(x)
    off = torch.zeros(7)
    off[2] = 3.0
    guess = target.nan_to_num(5.0) + off.repeat(16)
    error = made.distance(guess, target).unflatten(1, (3, 6))
    torch.testing.assert_close(error[:, 1], torch.full((2, 6), 9.0 / 2))  # one of two bands is wrong by 3
    assert error[:, [0, 2]].abs().max() < 1e-9
    standard = standardise_patches(target).unflatten(1, (3, 6))
    for g, size in SIZES:
        rows = standard[:, g]
        assert (~rows.isnan()).sum(-1).unique().tolist() == [16 * size]
        assert rows.nanmean(-1).abs().max() < 1e-5


def test_padding_changes_nothing() -> None:
    encoder = TokenEncoderConfig(
        tokenizer=BandsTokenizerConfig(groups=GROUPS, patch=4), trunk=TransformerConfig(dim=24, depth=2, heads=2)
    ).build()
    x = tiles(1, 8, 8)
    seen = []
    for padding in (99.0, -5.0):
        dense = torch.full((2, 7, 12, 16), padding)
        dense[0, :, :8, :8], dense[1, :, :11, :14] = x[0], 0.5
        ragged = Ragged(dense, torch.tensor([[8, 8], [11, 14]]))
        assert encoder.tokenizer.valid(ragged).sum(1).tolist() == [12, 36]
        seen.append(encoder(ragged).pooled)
        torch.testing.assert_close(seen[-1][:1], encoder(x).pooled)
    assert torch.equal(*seen)


@pytest.mark.parametrize("groups", [(), ((0, 1), ()), ((0, 1), (1, 2)), ((0, 2),), ((1, 2),)])
def test_groups_hold_each_band_once(groups: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(RequestError, match="must hold each band once"):
        BandsTokenizerConfig(groups=groups, patch=4)


def test_sizes_that_do_not_divide_name_a_patch_that_does() -> None:
    with pytest.raises(RequestError, match=r"\(9, 12\) does not divide into patches of 4; a patch of 3 would"):
        tokenizer()(tiles(1, 9, 12))


def facts(channels: int, bands: tuple[str, ...] = ()) -> Mapping[str, object]:
    return {"channels": channels, "size": (32, 32)} | ({"bands": bands} if bands else {})


@pytest.mark.parametrize(
    ("known", "groups"),
    [
        (facts(10, BANDS), ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))),
        (facts(3, ("B01", "b04", "B8A")), ((1,), (2,), (0,))),
        (facts(10), ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9))),
        (facts(3, ("B2", "B3", "nir")), ((0, 1, 2),)),
        (facts(1), ((0,),)),
    ],
)
def test_groups_follow_the_names_of_bands(known: Mapping[str, object], groups: tuple[tuple[int, ...], ...]) -> None:
    config = named("vit-micro/groups", "image", known)
    assert config.tokenizer == BandsTokenizerConfig(groups=groups, patch=4)
    assert from_json(to_json(config)) == config


def test_consistent_masks_hide_the_same_places_in_all_groups_and_independent_ones_do_not() -> None:
    grid = (3, 4, 4)
    independent, consistent = (
        where_hidden(mask(0.75)(50, grid, Rng(0))).view(50, 3, 16) for mask in (RandomMask, TubeMask)
    )
    assert consistent.sum((1, 2)).unique().tolist() == independent.sum((1, 2)).unique().tolist() == [36]
    assert torch.equal(consistent, consistent[:, :1].expand_as(consistent))
    assert not torch.equal(independent, independent[:, :1].expand_as(independent))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("grid", [(14, 14), (3, 7, 9), (40,), (1, 1, 12)])
def test_noise_masks_hide_an_exact_share_of_every_grid(colour: str, grid: tuple[int, ...]) -> None:
    n = math.prod(grid)
    mask = NoiseMask(0.75, colour)(6, grid, Rng(0))
    assert mask.drop.shape == (6, int(0.75 * n))
    assert torch.equal(torch.cat([mask.keep, mask.drop], 1).sort(1).values, torch.arange(n).expand(6, -1))
    assert len(where_hidden(mask).unique(dim=0)) > 3
    halves = [NoiseMask(0.75, colour)(3, grid, Rng(0, shard=s, shards=2)) for s in range(2)]
    assert torch.equal(torch.cat([where_hidden(h) for h in halves]), where_hidden(mask))
    valid = torch.ones(6, n, dtype=torch.bool)
    valid[:, n // 2 :] = False
    hidden = where_hidden(NoiseMask(0.5, colour)(6, grid, Rng(0), valid))
    assert (hidden & valid).sum(1).unique().tolist() == [(n // 2) * int(0.5 * n) // n]


def test_the_lowest_noise_is_hidden() -> None:
    for colour in COLOURS:
        mask = NoiseMask(0.6, colour)
        noise, hidden = mask.noise(4, (9, 9), Rng(5)).flatten(1), where_hidden(mask(4, (9, 9), Rng(5)))
        assert (noise.masked_fill(~hidden, -9).amax(1) <= noise.masked_fill(hidden, 9).amin(1)).all()


def power(colour: str) -> torch.Tensor:
    """The mean power of the noise at low, middle and high frequencies along a row."""
    noise = NoiseMask(0.5, colour).noise(200, (24, 24), Rng(1))
    spectrum = torch.fft.rfft(noise, dim=2).abs().square().mean((0, 1))
    return torch.stack([spectrum[1:3].mean(), spectrum[3:6].mean(), spectrum[9:].mean()])


def test_each_colour_has_its_frequencies() -> None:
    red, green, blue, purple = map(power, COLOURS)
    assert red[0] > 2 * red[1] > 20 * red[2]
    assert green[1] > 1.1 * green[0]
    assert green[1] > 3 * green[2]
    assert blue[2] > 1.2 * blue[1] > 1.2 * blue[0]
    parts = [NoiseMask(0.5, c).noise(3, (8, 8), Rng(2)) for c in ("green", "purple")]
    white = Rng(2).randn(3, 18, 18)[:, 5:-5, 5:-5]
    torch.testing.assert_close(parts[0] + parts[1], white)
    assert purple[2] > purple[1]


def test_coarser_noise_leaves_hidden_places_farther_from_what_is_seen() -> None:
    place = coordinates((14, 14), "cpu")
    away = torch.cdist(place, place)

    def distance(mask: NoiseMask | RandomMask) -> float:
        hidden = where_hidden(mask(60, (14, 14), Rng(0)))
        return float(torch.stack([away[h][:, ~h].amin(1).mean() for h in hidden]).mean())

    red, green, blue, purple = (distance(NoiseMask(0.75, c)) for c in COLOURS)
    white = distance(RandomMask(0.75))
    assert red > 1.7 * green
    assert green > 1.05 * white
    assert white > purple > blue


def test_along_groups_of_bands_noise_is_drawn_anew() -> None:
    noise = NoiseMask(0.5, "red").noise(300, (2, 8, 8), Rng(0))
    between = torch.corrcoef(noise[:, :, 4, 4].T)[0, 1]
    beside = torch.corrcoef(torch.stack([noise[:, 0, 4, 4], noise[:, 0, 4, 5]]))[0, 1]
    assert abs(between) < 0.2 < 0.6 < beside


def test_what_noise_masks_refuse() -> None:
    for wrong, why in (
        ({"colour": "pink"}, "one of red, green, blue, purple; got 'pink'"),
        ({"blur": (2.0, 1.0)}, "narrower, wider"),
        ({"ratio": 1.0}, "strictly between 0 and 1"),
    ):
        with pytest.raises(RequestError, match=why):
            NoiseMask(**{"ratio": 0.5, **wrong})


def test_fields_are_ten_bands_whose_class_is_most_of_the_tile() -> None:
    source = hw.open("fields")
    assert source.spec["image"]["channels"] == 10
    assert source.spec["image"]["bands"] == BANDS
    assert source.classes == tuple(CLASSES)
    assert np.bincount(source.labels).min() > 90
    for i in (0, 7, 999):
        tile, shares = field(i)
        assert torch.equal(source.read(i)["image"], torch.from_numpy(tile.astype(np.float32) / np.float32(65535)))
        assert shares.argmax() == source.labels[i]
        assert shares.sum() == pytest.approx(1)
        assert (shares > 0).sum() <= 2


@pytest.mark.parametrize("method", ["mae", "simclr"])
@pytest.mark.parametrize("encoder", ["vit-micro", "vit-micro/groups"])
def test_methods_learn_from_fields_and_resume_to_the_same_bits(method: str, encoder: str, tmp_path: Path) -> None:
    source, module = Subset(hw.open("fields"), range(32)), catalogue.load(method)
    recipe = recipe_for(module, source.spec, len(source), len(source.classes), encoder)
    config = recipe.encoder["image"]
    thin = replace(config, trunk=TransformerConfig(dim=24, depth=1, heads=2))
    recipe = replace(recipe, encoder={"image": thin}, method=replace(recipe.method))
    steps = FitConfig(steps=2, batch_size=8, save_every=1, keep_last=9)
    whole = build(module, recipe, source, 0)
    before = {k: v.clone() for k, v in whole.state_dict().items()}
    fit(whole, Loader(source, 8), steps, out=tmp_path)
    last = tmp_path / "checkpoints" / "step-00000002"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    resumed = build(module, recipe, source, 1)
    fit(resumed, Loader(source, 8), steps, out=tmp_path, resume=True)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
    trained = [k for k, _ in whole.encoder.named_parameters()]
    assert not [k for k in trained if torch.equal(before[f"encoder.{k}"], whole.state_dict()[f"encoder.{k}"])]


def test_noise_masks_and_consistent_ones_train_mae_on_groups() -> None:
    source, module = Subset(hw.open("fields"), range(16)), catalogue.load("mae")
    recipe = recipe_for(module, source.spec, len(source), len(source.classes), "vit-micro/groups")
    thin = replace(recipe.encoder["image"], trunk=TransformerConfig(dim=24, depth=1, heads=2))
    for mask in (NoiseMask(0.75), TubeMask(0.75)):
        made = replace(recipe, encoder={"image": thin}, method=replace(recipe.method, mask=mask))
        learner = build(module, made, source, 0)
        losses = [
            line["loss"]
            for line in fit(learner, Loader(source, 8), FitConfig(steps=2, batch_size=8, log_every=1)).history
        ]
        assert all(map(math.isfinite, losses))
