"""ECG-JEPA: blocks of time of exact length, latent targets from a slow teacher, and no look at what is hidden."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask, Step
from headwater.methods.distill import ecg_jepa
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.intervals import IntervalMask
from headwater.parts.masks import where_hidden
from headwater.parts.tokens import SeriesTokenizerConfig, coordinates, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views.kit import series as kit
from tests.small import batch, series, step


def build(**changes: object) -> ecg_jepa.ECGJEPA:
    torch.manual_seed(0)
    return replace(ecg_jepa.TINY, **changes).build({"series": series()})


def runs(row: list[bool]) -> list[int]:
    """The lengths of the stretches that are hidden."""
    found, length = [], 0
    for hidden in [*row, False]:
        length = length + 1 if hidden else 0
        found = [*found, 1] if length == 1 else [*found[:-1], length] if length else found
    return found


def test_every_mask_keeps_the_same_share_rounded_up_and_hides_the_rest():
    shares = set()
    for seed in range(20):
        mask = ecg_jepa.Config().mask(6, (200,), Rng(seed))
        assert torch.equal(torch.cat([mask.keep, mask.drop], 1).sort(1).values, torch.arange(200).expand(6, -1))
        shares.add(mask.keep.shape[1])
    assert 30 <= min(shares) < max(shares) <= 50
    assert IntervalMask((0.2, 0.2), 3)(2, (41,), Rng(0)).keep.shape == (2, 9)


def test_what_is_hidden_are_blocks_never_shorter_than_the_least():
    hidden = where_hidden(ecg_jepa.Config().mask(300, (200,), Rng(0)))
    lengths = [runs(row) for row in hidden.tolist()]
    assert min(min(row) for row in lengths) >= 10
    assert {len(row) for row in lengths} >= {1, 2, 3, 4}
    first = [row.index(True) for row in hidden.tolist()]
    assert 0 in first
    assert max(first) > 20  # blocks do not all begin where the record does


def test_a_share_too_small_for_a_whole_block_is_one_block():
    hidden = where_hidden(IntervalMask((0.8, 0.8), 10)(50, (20,), Rng(0)))
    assert all(runs(row) == [4] for row in hidden.tolist())


def test_hidden_time_is_hidden_in_all_channels():
    hidden = where_hidden(IntervalMask((0.3, 0.3), 3)(16, (4, 20), Rng(0))).view(16, 4, 20)
    assert (hidden == hidden[:, :1]).all()
    assert (hidden.sum(2) == 14).all()


def test_shards_draw_what_one_process_would():
    whole = IntervalMask((0.2, 0.4), 3)(6, (40,), Rng(3))
    parts = [IntervalMask((0.2, 0.4), 3)(3, (40,), Rng(3, shard=k, shards=2)) for k in range(2)]
    assert torch.equal(whole.drop, torch.cat([p.drop for p in parts]))


@pytest.mark.parametrize(
    "call", [lambda: IntervalMask((0.0, 0.5)), lambda: IntervalMask((0.6, 0.5)), lambda: IntervalMask(least=0)]
)
def test_masks_that_cannot_be_are_refused(call):
    with pytest.raises(RequestError, match="IntervalMask"):
        call()


def test_the_teacher_follows_by_the_closed_form():
    method = build()
    start = [p.clone() for p in method.teacher.parameters()]
    assert not any(p.requires_grad for p in method.teacher.parameters())
    want = start
    for k, progress in enumerate((0.0, 1.0)):
        with torch.no_grad():
            for p in method.encoder.parameters():
                p.add_(k + 1.0)
        m = (0.99, 0.999)[k]
        want = [m * w + (1 - m) * p for w, p in zip(want, method.encoder.parameters(), strict=True)]
        method.after_step(step(progress=progress), {})
    for a, b in zip(method.teacher.parameters(), want, strict=True):
        torch.testing.assert_close(a, b.detach())
    assert method.encoders()["series"] is method.teacher.encoder()


class Listed:
    """One mask for all samples, in the order given."""

    def __init__(self, keep: list[int], drop: list[int]) -> None:
        self.keep, self.drop = keep, drop

    def __call__(self, b: int, grid: tuple[int, ...], rng: Rng, valid: torch.Tensor | None = None) -> Mask:
        return Mask(torch.tensor(self.keep).expand(b, -1), torch.tensor(self.drop).expand(b, -1))


def test_the_order_in_which_places_are_listed_does_not_matter():
    a, b = (
        build(mask=Listed(keep, drop))(batch(), step()).value
        for keep, drop in (([0, 3, 5], [1, 2, 4, 6, 7]), ([5, 0, 3], [7, 2, 1, 4, 6]))
    )
    torch.testing.assert_close(a, b)


def test_the_student_sees_nothing_of_what_is_hidden_and_the_teacher_everything():
    method = build(mask=Listed([0, 3, 5], [1, 2, 4, 6, 7]))
    for p in method.predictor.parameters():
        nn.init.normal_(p, std=0.3)
    x = batch().x["series"].requires_grad_()
    mask = method.config.mask(8, (8,), Rng(0))
    seen = method.encoder(x, keep=mask.keep).tokens
    guess = method.predictor(seen, mask.keep, mask.drop[:, None], coordinates((8,), "cpu")[None])
    assert guess.shape == (8, 5, 16)  # as many as are hidden
    (slope,) = torch.autograd.grad(guess.square().sum(), x)
    by_patch = slope.unflatten(2, (8, 4)).abs().amax((0, 1, 3))
    assert (by_patch[[1, 2, 4, 6, 7]] == 0).all()
    assert (by_patch[[0, 3, 5]] > 0).all()
    x.grad = None
    method(Batch({"series": x}), step()).value.backward()  # the teacher's part of which has no gradient
    by_patch = x.grad.unflatten(2, (8, 4)).abs().amax((0, 1, 3))
    assert (by_patch[[1, 2, 4, 6, 7]] == 0).all()
    assert (by_patch[[0, 3, 5]] > 0).all()
    x = x.detach()
    other = x.clone()
    other[:, :, 4:8] += 1.0
    assert not torch.allclose(method.target(x)[:, 0], method.target(other)[:, 0])


def test_the_loss_is_the_mean_absolute_distance_from_the_teacher_as_it_is():
    method = build()
    nn.init.zeros_(method.predictor.widen.weight)
    nn.init.zeros_(method.predictor.widen.bias)
    mask = method.config.mask(8, (8,), step().rng)
    want = take(method.teacher.encoder()(batch().x["series"]).tokens, mask.drop).abs().mean()
    torch.testing.assert_close(method(batch(), step()).value, want)


def test_missing_stretches_never_count():
    torch.manual_seed(0)
    encoder = TokenEncoderConfig(
        tokenizer=SeriesTokenizerConfig(channels=2, patch=4, gaps=True),
        trunk=TransformerConfig(dim=16, depth=2, heads=2),
    ).build()
    method = ecg_jepa.TINY.build({"series": encoder})
    x = torch.randn(4, 2, 32)
    x[1, :, 8:24], x[2, :, :20], x[3] = torch.nan, torch.nan, torch.nan
    said = method.teacher.encoder()(x)
    nn.init.zeros_(method.predictor.widen.weight)
    nn.init.zeros_(method.predictor.widen.bias)
    mask = method.config.mask(4, (8,), step().rng, encoder.tokenizer.valid(x))
    real = said.valid.gather(1, mask.drop)
    want = take(said.tokens, mask.drop)[real].abs().mean()
    torch.testing.assert_close(method(Batch({"series": x}), step()).value, want)


def test_records_are_taken_as_they_are():
    assert ecg_jepa.Config().viewed(kit(5000)) == ecg_jepa.Config()


def test_its_blocks_are_those_of_torch_without_biases():
    trunk = TransformerConfig(dim=32, depth=2, heads=4, qkv_bias=False)
    encoder = TokenEncoderConfig(tokenizer=SeriesTokenizerConfig(channels=12, patch=25), trunk=trunk).build().eval()
    theirs = [nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", 1e-6, True, True, bias=False) for _ in range(2)]
    x = torch.randn(3, 12, 5000)
    with torch.no_grad():
        for block, layer in zip(encoder.trunk.blocks, theirs, strict=True):
            layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
            for mine, other in (
                (block.attention.out, layer.self_attn.out_proj), (block.mlp[0], layer.linear1), (block.mlp[2], layer.linear2),
                (block.norm1, layer.norm1), (block.norm2, layer.norm2),
            ):  # fmt: skip
                assert not mine.bias.any()
                other.weight.copy_(nn.init.normal_(mine.weight, std=0.2))
        tokens = encoder.embed(x).x
        assert tokens.shape == (3, 200, 32)
        for layer in theirs:
            tokens = layer(tokens)
        torch.testing.assert_close(encoder(x).tokens, encoder.trunk.norm(tokens), rtol=1e-4, atol=1e-5)


def test_features_keep_their_spread():
    """What a collapse would lose: see the claim, where the gradient through both branches loses it."""
    method = build()
    optimiser = torch.optim.AdamW(method.parameters(), 1e-3)

    def spread() -> torch.Tensor:
        return method.encoders()["series"](batch(64).x["series"]).pooled.std(0).mean()

    before = spread()
    for k in range(40):
        out = method(batch(seed=k), Step(Rng(k), k / 40))
        optimiser.zero_grad()
        out.value.backward()
        optimiser.step()
        method.after_step(Step(Rng(k), k / 40), {})
    assert spread() > 0.1 * before
