"""SparK: holes stay holes through every layer, and with everything seen the network is the ordinary one."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch
from headwater.methods.reconstruct import spark
from headwater.parts.convnet import ChannelNorm, ConvNeXtConfig, ResNetConfig, applied, at
from headwater.parts.views import CentreCrop
from tests.small import batch, convnet, step, vit

KINDS = {
    "basic": ResNetConfig(widths=(8, 16), depths=(1, 2), stem_stride=1),
    "bottleneck": ResNetConfig(widths=(8, 16), depths=(2, 1), stem_stride=2, bottleneck=True),
    "convnext": ConvNeXtConfig(widths=(8, 16), depths=(1, 2), stem_stride=2, layer_scale=0.5),
}


def drawn(module: nn.Module) -> nn.Module:
    """Weights of which none is zero or one: biases and norms would hide leaks."""
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


def units(grid: tuple[int, ...], b: int = 3) -> Tensor:
    seen = torch.rand(b, *grid, generator=torch.Generator().manual_seed(1)) < 0.5
    seen.flatten(1)[:, 0], seen.flatten(1)[:, -1] = True, False
    return seen


def pictures(side: int = 16, b: int = 3) -> Tensor:
    return torch.rand(b, 3, side, side, generator=torch.Generator().manual_seed(2))


def build(**changes: object) -> spark.SparK:
    torch.manual_seed(0)
    return replace(spark.TINY, view=CentreCrop(16, 1.0), **changes).build({"image": convnet()})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_with_everything_seen_it_is_the_dense_network(kind, training):
    config = KINDS[kind]
    sparse = drawn(config.build()).train(training)
    dense = copy.deepcopy(sparse)
    x = pictures()
    side = 16 // config.stride
    ours = sparse.maps(x, torch.ones(3, side, side, dtype=torch.bool))
    theirs = dense.maps(x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for (name, a), b in zip(sparse.state_dict().items(), dense.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(dense.body(dense.normalise(x)), theirs[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_those_of_the_stages_and_empty_where_it_is_hidden(kind):
    config = KINDS[kind]
    encoder = drawn(config.build())
    side = 16 // config.stride
    seen = units((side, side))
    maps = encoder.maps(pictures(), seen)
    assert [m.shape[1:] for m in maps] == [(w, 2 * side // 2**i, 2 * side // 2**i) for i, w in enumerate(config.widths)]
    for found in maps:
        where = at(seen, found)[:, None].expand_as(found)
        assert (found[~where] == 0).all()
        assert (found[where] != 0).float().mean() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_pixels_change_no_map(kind):
    config = KINDS[kind]
    encoder = drawn(config.build())
    side = 16 // config.stride
    seen, x = units((side, side)), pictures()
    other = torch.where(at(seen, x)[:, None], x, torch.full_like(x, 9.0))
    for a, b in zip(encoder.maps(x, seen), copy.deepcopy(encoder).maps(other, seen), strict=True):
        assert torch.equal(a, b)


def test_batch_statistics_are_those_of_seen_positions():
    norm = nn.BatchNorm2d(5, affine=False)
    x = torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 7
    seen = units((4, 4), 4)
    out = applied(norm, x, seen)
    where = at(seen, x)
    real = out.movedim(1, -1)[where]
    torch.testing.assert_close(real.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(real.var(0, correction=0), torch.ones(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.movedim(1, -1)[where].mean(0))
    assert (out.movedim(1, -1)[~where] == 0).all()
    per_position = ChannelNorm(5)
    torch.testing.assert_close(applied(per_position, x, seen), per_position(x) * where[:, None])


@pytest.mark.parametrize(("layers", "share"), [(1, 0.565), (2, 0.538), (4, 0.485), (8, 0.380), (16, 0.175)])
def test_dense_convolutions_fill_the_holes_and_sparse_ones_leave_them(layers, share):
    """At 224 pixels and units of 32, 20 of 49 seen; shares of empty positions after k layers, averaged over masks."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 0.2)
    b = 40
    seen = build().draw(torch.zeros(b, 3, 14, 14), Rng(0))
    x = at(seen, torch.zeros(b, 1, 224, 224))[:, None].float()
    dense, sparse = x, x
    with torch.no_grad():
        for _ in range(layers):
            dense, sparse = conv(dense), applied(conv, sparse, seen)
    assert float((sparse == 0).float().mean()) == pytest.approx(29 / 49)
    assert float((dense == 0).float().mean()) == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize(("side", "ratio", "kept"), [(32, 0.6, 102), (8, 0.6, 6), (14, 0.6, 20)])
def test_as_many_units_are_seen_as_the_paper_rounds_to(side, ratio, kept):
    seen = build(ratio=ratio).draw(torch.zeros(5, 3, side, side), Rng(0))
    assert seen.shape == (5, side // 2, side // 2)
    assert seen.flatten(1).sum(1).tolist() == [kept] * 5


def test_units_that_do_not_divide_or_cannot_be_hidden_are_refused():
    with pytest.raises(RequestError, match="must divide"):
        build().draw(torch.zeros(1, 3, 17, 16), Rng(0))
    with pytest.raises(RequestError, match="some hidden"):
        build(ratio=0.001).draw(torch.zeros(1, 3, 16, 16), Rng(0))
    with pytest.raises(RequestError, match="does not divide into"):
        at(torch.ones(1, 3, 3, dtype=torch.bool), torch.zeros(1, 2, 8, 8))


def test_encoders_without_scales_are_refused():
    with pytest.raises(RequestError, match="got a TokenEncoder"):
        spark.TINY.build({"image": vit()})
    with pytest.raises(RequestError, match="got a ConvNet with 1"):
        spark.TINY.build({"image": ResNetConfig(widths=(8,), depths=(1,), stem_stride=1).build()})


def test_seen_units_cost_nothing_and_targets_are_standardised():
    method = build()
    x = batch().x["image"]
    seen = method.draw(x, step().rng)
    method.rebuild = lambda x, seen: torch.zeros_like(x) + 1e6 * at(seen, x)[:, None]
    value = method(batch(), step()).value
    patches = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(3)
    patches = (patches - patches.mean(3, keepdim=True)) / (patches.var(3, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(value, patches[~seen].square().mean())  # a guess of zero is the mean of each unit
    torch.testing.assert_close(patches.var(3), torch.ones(8, 8, 8), atol=1e-2, rtol=0)


def test_a_perfect_guess_costs_nothing():
    method = build()
    x = batch().x["image"]

    def told(x: Tensor, seen: Tensor) -> Tensor:
        cells = x.unflatten(3, (8, 2)).unflatten(2, (8, 2))  # b c h u w v
        mean, var = cells.mean((1, 3, 5), keepdim=True), cells.permute(0, 2, 4, 1, 3, 5).flatten(3).var(3)
        deviation = (var + 1e-6).sqrt()[:, None, :, None, :, None]
        return ((cells - mean) / deviation).flatten(4, 5).flatten(2, 3)

    method.rebuild = told
    assert float(method(Batch({"image": x}), step()).value) < 1e-8


def test_holes_are_filled_with_the_vector_of_their_scale_before_decoding():
    method = build()
    entered: list[Tensor] = []
    fill = method.densify[0]
    fill.project.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    method(batch(), step())
    seen = method.draw(batch().x["image"], step().rng)
    holes = entered[0].movedim(1, -1)[~seen]
    torch.testing.assert_close(holes, fill.stand_in.expand_as(holes))
    real = entered[0].movedim(1, -1)[seen]
    torch.testing.assert_close(real.mean(0), torch.zeros(16), atol=1e-4, rtol=0)


def test_all_stages_that_the_decoder_has_blocks_for_take_part():
    encoder = ConvNeXtConfig(widths=(8, 16, 24), depths=(1, 1, 1), stem_stride=2).build()
    method = spark.Config(view=CentreCrop(16, 1.0), width=24).build({"image": encoder})
    assert [type(f.norm).__name__ for f in method.densify] == ["ChannelNorm"] * 3
    assert isinstance(method.densify[0].project, nn.Identity)  # as wide as the decoder already
    assert [f.project.kernel_size for f in method.densify[1:]] == [(3, 3), (3, 3)]
    assert method.decoder.widths == [24, 12, 6, 3]
    method(batch(), step()).value.backward()
    assert all(f.stand_in.grad.abs().sum() > 0 for f in method.densify)
    assert len(build().densify) == 1  # the other stage is as fine as the input
