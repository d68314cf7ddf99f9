"""T-JEPA: sets of columns keep apart, the prediction knows the context alone, and the teacher the whole row."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.methods.distill import t_jepa
from headwater.parts.architectures import named
from headwater.parts.schedules import Constant
from headwater.parts.subsets import Subsets
from headwater.parts.tokens import take
from tests.small import batch, step, table, tjepa

ROWS = batch().x["table"]


def build(**changes: object) -> t_jepa.TJEPA:
    torch.manual_seed(0)
    method = replace(t_jepa.TINY, **changes).build({"table": tjepa()})
    for p in method.teacher.parameters():  # a teacher that is not the student
        nn.init.normal_(p, std=0.2)
    return method


def drawn(method: t_jepa.TJEPA) -> tuple[Tensor, Tensor]:
    """The columns of the context and of the targets, as the step of the tests draws them."""
    return method.config.subsets(len(ROWS), (6,), step().rng)


@pytest.mark.parametrize("columns", [4, 9, 50])
def test_targets_lie_outside_the_context_and_all_rows_have_as_many(columns: int):
    sizes = set()
    for seed in range(30):
        context, asked = Subsets(3, (0.1, 0.6), (0.2, 0.7))(7, (columns,), Rng(seed))
        k, m = context.shape[1], asked.shape[2]
        assert asked.shape[:2] == (7, 3)
        assert max(1, int(0.1 * columns)) <= k <= max(1, int(0.6 * columns))
        assert max(1, int(0.2 * columns)) <= m <= max(1, int(0.7 * columns)) and k + m <= columns
        for row in range(7):
            seen = set(context[row].tolist())
            assert len(seen) == k
            for some in asked[row].tolist():
                assert len(set(some)) == m and not seen & set(some)
        sizes.add((k, m))
    assert len(sizes) > (1 if columns == 4 else 5)
    assert {c for s in range(40) for c in Subsets()(4, (9,), Rng(s))[1].flatten().tolist()} == set(range(9))


def test_two_machines_draw_what_one_does():
    whole = Subsets()(8, (20,), Rng(3))
    halves = [Subsets()(4, (20,), Rng(3, shard=i, shards=2)) for i in range(2)]
    for a, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert torch.equal(a, torch.cat(parts))


def test_subsets_that_cannot_be_are_refused():
    with pytest.raises(RequestError, match=r"Subsets.context is a \(low, high\) pair"):
        Subsets(context=(0.5, 0.2))
    with pytest.raises(RequestError, match="exceed all of them"):
        Subsets(context=(0.6, 0.7), target=(0.5, 0.6))
    with pytest.raises(RequestError, match="1 position cannot be split"):
        Subsets()(2, (1,), Rng(0))


def test_the_prediction_knows_the_context_alone_and_the_target_all_of_the_row():
    method = build()
    context, asked = drawn(method)
    said, told = method.guess(ROWS, context, asked, None), method.target(ROWS)
    hidden = torch.ones_like(ROWS, dtype=torch.bool).scatter(1, context, False)
    numbers = torch.arange(6) < 4  # cells of words hold codes
    other = torch.where(hidden & numbers, ROWS + 3, ROWS)
    assert torch.equal(method.guess(other, context, asked, None), said)
    assert not torch.allclose(take(method.target(other), context), take(told, context), atol=1e-3)
    assert not torch.allclose(method.guess(torch.where(hidden, ROWS, 1 - ROWS), context, asked, None), said, atol=1e-3)


def test_of_every_set_each_column_is_predicted_and_no_set_knows_the_others():
    method = build()
    context, asked = drawn(method)
    b, t, m = asked.shape
    said = method.guess(ROWS, context, asked, None)
    assert said.shape == (b, t * m, 16) and t == 4
    torch.testing.assert_close(method.guess(ROWS, context, asked[:, 1:2], None), said.unflatten(1, (t, m))[:, 1])
    turned = method.guess(ROWS, context, asked.flip(2), None).unflatten(1, (t, m)).flip(2).flatten(1, 2)
    torch.testing.assert_close(turned, said, rtol=1e-4, atol=1e-5)
    if m > 1:
        assert not torch.allclose(said[:, 0], said[:, 1], atol=1e-4)  # mask tokens say which column they stand for


def test_rows_are_told_apart_and_the_order_of_the_context_says_nothing():
    method = build()
    context, asked = drawn(method)
    said = method.guess(ROWS, context, asked, None)
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    torch.testing.assert_close(method.guess(ROWS[order], context[order], asked[order], None), said[order])
    torch.testing.assert_close(method.guess(ROWS, context.flip(1), asked, None), said, rtol=1e-4, atol=1e-5)


def test_the_regularisation_token_is_seen_always_and_stands_before_the_columns():
    method = build()
    context, asked = drawn(method)
    given: list[tuple[Tensor, ...]] = []
    method.predictor.register_forward_pre_hook(lambda _, args: given.append(args))
    method.guess(ROWS, context, asked, None)
    tokens, at, wanted, places, _ = given[0]
    assert tokens.shape[1] == context.shape[1] + 1
    assert places[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(at, torch.cat([torch.zeros(8, 1, dtype=torch.int64), context + 1], 1))
    assert torch.equal(wanted, asked + 1)
    whole = method.encoder(ROWS)
    assert whole.tokens.shape[1] + whole.prefix.shape[1] == 6 + 1
    seen = method.encoder(ROWS, keep=context)
    torch.testing.assert_close(tokens, torch.cat([seen.prefix, seen.tokens], 1))
    torch.testing.assert_close(places[:, asked[0, 0] + 1][0, :, 0], asked[0, 0] + 1.0)
    with torch.no_grad():
        method.encoder.prefix.add_(1.0)
    assert not torch.allclose(method.encoder(ROWS, keep=context).tokens, seen.tokens, atol=1e-3)


def test_the_loss_is_the_mean_square_over_what_is_asked_and_there():
    method = build()
    for rows in (
        ROWS,
        torch.where(torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.3, torch.nan, ROWS),
    ):
        context, asked = drawn(method)
        valid = ~rows.isnan()
        said = method.guess(rows, context, asked, valid)
        told = method.teacher.copy(rows).tokens
        errors = [
            (said[i, j] - told[i, c]).square().mean()
            for i in range(8)
            for j, c in enumerate(asked[i].flatten().tolist())
            if valid[i, c]
        ]
        loss = method(Batch({"table": rows}), step())
        torch.testing.assert_close(loss.value, torch.stack(errors).mean())
        assert loss.metrics["teacher_spread"] > 0


def test_the_teacher_follows_by_the_formula_and_gets_no_gradient():
    method = build(momentum=Constant(0.9))
    method(batch(), step()).value.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    name = "trunk.blocks.0.mlp.0.weight"
    want = method.teacher.copy.state_dict()[name].clone()
    for _ in range(2):
        with torch.no_grad():
            for p in method.encoder.parameters():
                p.add_(torch.randn_like(p))
        want = 0.9 * want + 0.1 * method.encoder.state_dict()[name]
        method.after_step(step(), {})
    torch.testing.assert_close(method.teacher.copy.state_dict()[name], want)
    still = build()  # whose momentum grows to 1
    before = still.teacher.copy.state_dict()[name].clone()
    still.after_step(step(progress=1.0), {})
    assert torch.equal(still.teacher.copy.state_dict()[name], before)
    assert still.encoders()["table"] is still.teacher.copy


@torch.no_grad()
def test_its_encoder_is_torchs_post_norm_transformer_over_tokens_and_one_more():
    config = named("tjepa-micro", "table", {"columns": 5})
    assert config.registers == 1
    encoder = config.build().eval()
    for p in encoder.parameters():
        nn.init.normal_(p, std=0.1)
    x = torch.randn(4, 5)
    width, heads = config.trunk.dim, config.trunk.heads
    tokens = torch.cat([encoder.prefix.expand(4, -1, -1), encoder.embed(x).x], 1)
    for block in encoder.trunk.blocks:
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=False)
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        pairs = [
            (layer.self_attn.out_proj, block.attention.out),
            (layer.linear1, block.mlp[0]),
            (layer.linear2, block.mlp[2]),
            (layer.norm1, block.norm1),
            (layer.norm2, block.norm2),
        ]
        for a, b in pairs:
            a.load_state_dict(b.state_dict())
        tokens = layer.eval()(tokens)
    found = encoder(x)
    torch.testing.assert_close(torch.cat([found.prefix, found.tokens], 1), tokens, rtol=1e-4, atol=1e-5)


def test_without_such_a_token_it_still_runs():
    method = t_jepa.TINY.build({"table": table()})
    assert method(batch(), Step(Rng(0))).value.isfinite()
