"""UMD: hidden patches are restored, seen noise is told, and clean samples stand at time 0."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask
from headwater.methods.reconstruct import umd
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.diffusion import DDIM
from headwater.parts.dit import Clock
from headwater.parts.tokens import take
from headwater.parts.views import CentreCrop
from tests.small import batch, dit, step, vit

SIZE = (4, 4)


def build(open: bool = True, **changes: object) -> umd.UMD:
    """`open`: the gates that zero weights keep closed at first are given weights."""
    torch.manual_seed(0)
    method = replace(umd.TINY, view=CentreCrop(16, 1.0), **changes).build({"image": dit()})
    if open:
        for p in method.parameters():
            nn.init.normal_(p, std=0.2)
    return method


def called(method: umd.UMD) -> list[tuple[int, Mask, Tensor]]:
    """How many samples, which mask and which times each part of the loss was made of."""
    found: list[tuple[int, Mask, Tensor]] = []
    rebuild = method.rebuild

    def noting(patches: Tensor, grid: tuple[int, ...], mask: Mask, time: Tensor) -> tuple[Tensor, Tensor]:
        found.append((len(patches), mask, time))
        return rebuild(patches, grid, mask, time)

    method.rebuild = noting
    method(batch(), step())
    return found


@pytest.mark.parametrize(("clean", "counts"), [(0.5, [4, 4]), (0.3, [2, 6]), (0.05, [8]), (1.0, [8]), (0.0, [8])])
def test_so_many_samples_are_clean_and_they_alone_are_at_time_zero(clean, counts):
    parts = called(build(clean=clean))
    assert [n for n, _, _ in parts] == counts
    first = parts[0]
    if int(8 * clean):
        assert first[1].keep.shape[1] == int(16 * 0.25)
        assert (first[2] == 0).all()
    if counts != [8] or clean < 0.5:
        _, mask, time = parts[-1]
        assert mask.keep.shape[1] == int(16 * (1 - 0.375)) == 10
        assert (time >= 1).all()
        assert len(time.unique()) > 1


def test_the_last_time_is_the_last_of_the_schedule():
    method = build(clean=0.0)
    step().rng.randint(1000, 8)
    times = torch.cat([called(method)[0][2]])
    assert times.max() <= method.config.schedule.steps
    assert times.min() >= 1


def loss_with(method: umd.UMD, change: object) -> Tensor:
    """The loss when what is said of values and noise is changed first."""
    rebuild = method.rebuild
    method.rebuild = lambda patches, grid, mask, time: change(*rebuild(patches, grid, mask, time), mask, time)
    value = method(batch(), step()).value
    method.rebuild = rebuild
    return value


def at(x: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(1, index[..., None].expand(-1, -1, x.shape[2]), 5.0)


def test_only_hidden_values_and_seen_noise_count():
    method = build()
    plain = method(batch(), step()).value
    free = loss_with(method, lambda said, heard, mask, time: (said + at(said, mask.keep), heard + at(heard, mask.drop)))
    torch.testing.assert_close(free, plain)
    assert loss_with(method, lambda said, heard, mask, time: (said + at(said, mask.drop), heard)) > plain + 1
    assert loss_with(method, lambda said, heard, mask, time: (said, heard + at(heard, mask.keep))) > plain + 1
    clean = loss_with(method, lambda said, heard, mask, time: (said, heard + 5 * (time == 0).float()[:, None, None]))
    torch.testing.assert_close(clean, plain)  # of clean samples nobody asks for noise


@pytest.mark.parametrize("clean", [0.5, 0.25])
def test_the_parts_count_by_how_many_samples_each_has(clean):
    method = build(clean=clean)
    x = batch().x["image"]
    patches = method.encoder.tokenizer.patches(x)
    draw = step().rng
    t, noise = draw.randint(1000, 8), draw.randn(8, 16, 48)
    hidden, veiled = method.draw(8, 16, 0.75, draw), method.draw(8, 16, 0.375, draw)
    rows = [i for i in range(8) if int((i + 1) * clean) > int(i * clean)]
    rest = [i for i in range(8) if i not in rows]
    assert len(rows) == int(8 * clean)
    said, _ = method.rebuild(patches[rows], SIZE, Mask(hidden.keep[rows], hidden.drop[rows]), torch.zeros(len(rows)))
    mae = (take(said, hidden.drop[rows]) - take(patches[rows], hidden.drop[rows])).square().mean()
    noised = method.config.schedule.noised(patches[rest], t[rest], noise[rest])
    said, heard = method.rebuild(noised, SIZE, Mask(veiled.keep[rest], veiled.drop[rest]), t[rest] + 1)
    dit = (take(said, veiled.drop[rest]) - take(patches[rest], veiled.drop[rest])).square().mean()
    dit = (dit + (take(heard, veiled.keep[rest]) - take(noise[rest], veiled.keep[rest])).square().mean()) / 2
    want = (len(rows) * mae + len(rest) * dit) / 8
    torch.testing.assert_close(method(batch(), step()).value, want)


def test_with_nothing_hidden_values_and_noise_of_all_patches_count():
    method = build(clean=0.0, noised_ratio=0.0)
    parts = called(method)
    assert parts[0][1].keep.shape == (8, 16)
    assert parts[0][1].drop.shape == (8, 0)
    plain = method(batch(), step()).value
    assert plain.isfinite()
    assert loss_with(method, lambda said, heard, mask, time: (said + 5, heard)) > plain + 1
    assert loss_with(method, lambda said, heard, mask, time: (said, heard + 5)) > plain + 1


def test_hidden_patches_are_not_seen():
    method = build()
    patches = method.encoder.tokenizer.patches(batch().x["image"])
    mask = method.draw(8, 16, 0.5, Rng(0))
    other = patches + at(patches, mask.drop)
    time = torch.full((8,), 3)
    for a, b in zip(method.rebuild(patches, SIZE, mask, time), method.rebuild(other, SIZE, mask, time), strict=True):
        torch.testing.assert_close(a, b)


def test_at_first_the_time_changes_nothing_and_later_it_does():
    patches, mask = torch.randn(4, 16, 48, generator=torch.Generator().manual_seed(0)), build().draw(4, 16, 0.5, Rng(0))
    for opened in (False, True):
        method = build(open=opened)
        early, late = (method.rebuild(patches, SIZE, mask, torch.full((4,), t))[0] for t in (1, 900))
        assert torch.allclose(early, late) is not opened
    assert not torch.allclose(*Clock(16)(torch.tensor([0.0, 1.0])).detach())
    half = Clock(16).bfloat16()(torch.tensor([999.0, 1000.0])).detach()
    assert not torch.equal(*half)


def test_features_are_the_mean_of_four_class_tokens_at_time_zero():
    method = build()
    x = batch().x["image"]
    features = method.encoder(x)
    assert features.prefix.shape == (8, 4, 16)
    torch.testing.assert_close(features.pooled, features.prefix.mean(1))
    torch.testing.assert_close(features.pooled, method.encoder(x, time=torch.zeros(8)).pooled)
    assert not torch.allclose(features.pooled, method.encoder(x, time=torch.ones(8)).pooled)
    taps = method.encoder.trace(x)
    torch.testing.assert_close(method.encoder.trunk.body.norm(taps[-1].out)[:, 4:], features.tokens)


def test_the_decoder_hears_one_vector_of_the_sample():
    method = build()
    entered: list[Tensor] = []
    method.decoder.body.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    patches = method.encoder.tokenizer.patches(batch().x["image"])
    mask = method.draw(8, 16, 0.75, Rng(0))
    method.rebuild(patches, SIZE, mask, torch.zeros(8))
    seen = method.encoder(batch().x["image"], keep=mask.keep)
    assert entered[0].shape == (8, 17, 16)
    torch.testing.assert_close(entered[0][:, 0], seen.pooled)


def test_samples_come_in_the_units_of_the_data():
    method = build()
    method.encoder.tokenizer.normalise.set(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.1]))
    point = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = method.encoder.tokenizer.patches(point)
    schedule = method.config.schedule

    def oracle(patches: Tensor, grid: tuple[int, ...], mask: Mask, time: Tensor) -> tuple[Tensor, Tensor]:
        assert mask.keep.shape == (3, 16)
        return patches, schedule.noise(patches, time - 1, wanted.expand_as(patches))

    method.rebuild = oracle
    found = method.sample(3, (16, 16), Rng(0), DDIM(steps=20, limit=9.0))
    torch.testing.assert_close(found, point.expand_as(found), atol=1e-3, rtol=0)


def test_another_encoder_is_refused_and_its_own_is_known_by_name():
    with pytest.raises(RequestError, match="--encoder dit-micro"):
        umd.TINY.build({"image": vit()})
    made = named("dit-base/4", "image", {"channels": 3, "size": (64, 64)})
    assert from_json(to_json(made)) == made
    assert (made.trunk.dim, made.trunk.depth, made.registers, made.pool) == (768, 12, 3, "prefix")
    with pytest.raises(RequestError, match="clean is a share"):
        umd.Config(clean=1.5)
