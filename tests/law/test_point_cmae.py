"""Point-CMAE: two branches hide alike, restore alike, and agree on what was hidden in both."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask
from headwater.methods.reconstruct import point_cmae
from headwater.parts.losses import chamfer
from headwater.parts.masks import RandomMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from tests.small import batch, points, step

CLOUDS = batch().x["points"]


def build(**changes: object) -> point_cmae.PointCMAE:
    torch.manual_seed(0)
    method = replace(point_cmae.TINY, **changes).build({"points": points()})
    method.config = replace(method.config, view=lambda x, rng: x)
    return method


def drawn(method: point_cmae.PointCMAE) -> list[Mask]:
    """The masks of the step of the tests."""
    rng = step().rng
    return [method.config.mask(len(CLOUDS), (8,), rng) for _ in range(2)]


def test_as_published_38_of_64_groups_are_hidden_in_each_branch():
    rng, config = Rng(0), point_cmae.Config()
    a, b = (where_hidden(config.mask(200, (64,), rng)) for _ in range(2))
    assert (a.sum(1) == 38).all() and (b.sum(1) == 38).all()
    assert 22 < float((a & b).sum(1).float().mean()) < 23.2  # 38 * 38 / 64 of them in both


def test_the_loss_is_both_restorations_and_the_agreement_on_what_was_hidden_twice():
    for match in ("group", "cloud"):
        method = build(match=match, contrast=0.7)
        masks, tokenizer, encoder = drawn(method), method.encoder.tokenizer, method.encoder
        centre, groups = tokenizer.grouped(CLOUDS)
        told, ways = [], torch.zeros(())
        for decoder, mask in zip(method.decoders, masks, strict=True):
            said = decoder(encoder(CLOUDS, keep=mask.keep).tokens, mask, (centre + 1) * 8)
            guess = decoder.guess(decoder.trunk.norm(said)).unflatten(2, (6, 3))
            for way in (2, 3):
                square = torch.cdist(guess, groups).square().amin(way)
                ways = ways + square.mean(2)[where_hidden(mask)].mean()
            told.append(F.normalize(said, dim=2))
        apart = []
        for i in range(8):
            for j in {*masks[0].drop[i].tolist()} & {*masks[1].drop[i].tolist()}:
                others = told[1][i, [j]] if match == "group" else told[1][i]
                apart.append(1 - (others @ told[0][i, j]).mean())
        loss = method(Batch({"points": CLOUDS}), step())
        torch.testing.assert_close(loss.value, 1000 * ways + 0.7 * torch.stack(apart).mean(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loss.metrics["apart"], torch.stack(apart).mean())


def test_a_group_that_one_branch_saw_is_not_matched():
    method = build(restore=0.0)
    masks = drawn(method)
    said: list[Tensor] = []

    def keep(_: object, __: object, out: Tensor) -> None:
        out.retain_grad()
        said.append(out)

    for decoder in method.decoders:
        decoder.register_forward_hook(keep)
    method(Batch({"points": CLOUDS}), step()).value.backward()
    twice = where_hidden(masks[0]) & where_hidden(masks[1])
    assert 0 < int(twice.sum()) < twice.numel()
    for told in said:
        assert not told.grad[~twice].any()
        assert told.grad[twice].any(1).all()


def test_where_both_branches_are_alike_nothing_is_apart():
    method = build()
    mask = drawn(method)[0]
    method.decoders[1].load_state_dict(method.decoders[0].state_dict())
    told = method.told(CLOUDS, [mask, mask])
    assert method.apart(*told).abs().max() < 1e-6
    other = method.told(CLOUDS, drawn(method))
    assert method.apart(*other).abs().max() > 1e-3


def test_nothing_hidden_twice_costs_nothing():
    method = build(restore=0.0)
    halves = [[True] * 4 + [False] * 4, [False] * 4 + [True] * 4]
    order = [torch.tensor(h).float().argsort().expand(8, -1) for h in halves]
    masks = iter([Mask(o[:, :4], o[:, 4:]) for o in order])
    method.config = replace(method.config, mask=lambda *_: next(masks))
    assert float(method(Batch({"points": CLOUDS}), step()).value.detach()) == 0


def test_one_encoder_serves_both_branches():
    method = build()
    masks = drawn(method)
    there = method.told(CLOUDS, masks)
    first, second = (d.state_dict() for d in method.decoders)
    first, second = ({k: v.clone() for k, v in s.items()} for s in (first, second))
    method.decoders[0].load_state_dict(second)
    method.decoders[1].load_state_dict(first)
    back = method.told(CLOUDS, masks[::-1])
    torch.testing.assert_close(back[::-1], there)
    assert not torch.allclose(there[0], there[1], atol=1e-3)


def test_seen_and_hidden_groups_return_to_their_places():
    method = build()
    decoder, mask = method.decoders[0], drawn(method)[0]
    decoder.trunk.blocks = torch.nn.ModuleList()
    decoder.narrow = torch.nn.Identity()
    index = torch.arange(8.0).expand(8, -1)[..., None].expand(-1, -1, 16)
    torch.nn.init.constant_(decoder.mask_token, -1.0)
    out = decoder(take(index, mask.keep), mask, method.encoder.tokenizer.places(CLOUDS))
    assert torch.equal(out, torch.where(where_hidden(mask)[..., None], -1.0, index))


def test_decoders_are_told_the_places_before_every_block():
    method = build(decoder=TransformerConfig(dim=16, depth=2, heads=2))
    decoder, mask = method.decoders[0], drawn(method)[0]
    places = method.encoder.tokenizer.places(CLOUDS)
    given: list[Tensor] = []
    for block in decoder.trunk.blocks:
        block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    seen = method.encoder(CLOUDS, keep=mask.keep).tokens
    decoder(seen, mask, places)
    first = decoder.trunk.blocks[0](given[0], None, None)
    centre = method.encoder.tokenizer.grouped(CLOUDS)[0]
    torch.testing.assert_close(given[1], first + decoder.place(centre))


def test_chamfers_distance_is_that_of_sets():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 5, 3, generator=g), torch.randn(3, 7, 3, generator=g)
    square = torch.cdist(a, b).square()
    torch.testing.assert_close(chamfer(a, b), square.amin(2).mean(1) + square.amin(1).mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chamfer(a, b), chamfer(b, a))
    torch.testing.assert_close(chamfer(a + 2, b + 2), chamfer(a, b), rtol=1e-4, atol=1e-5)
    assert not chamfer(a, a.flip(1)).any()
    assert (chamfer(a, b) > 0).all()


def test_the_order_of_the_points_says_nothing():
    tokenizer = build().encoder.tokenizer
    order = torch.randperm(CLOUDS.shape[2], generator=torch.Generator().manual_seed(0))
    a, b = tokenizer(CLOUDS), tokenizer(CLOUDS[:, :, order])
    torch.testing.assert_close(a.x, b.x)
    torch.testing.assert_close(a.place, b.place)


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_masks_of_any_ratio_serve(ratio: float):
    assert build(mask=RandomMask(ratio=ratio))(batch(), step()).value.isfinite()


def test_the_decoders_share_no_weights():
    first, second = ({id(p) for p in d.parameters()} for d in build().decoders)
    assert len(first) == len(second) and not first & second
