"""Mirror-BERT: dropout and one masked stretch are all that sets two readings apart; the loss is the reference's."""

import math

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features, Ragged
from headwater.methods.agree import mirror_bert
from headwater.parts.dropping import Dropout, dropped
from headwater.parts.encoders import TokenEncoder, TokenEncoderConfig
from headwater.parts.losses import nt_xent
from headwater.parts.spans import without_stretch
from headwater.parts.tokens import TextTokenizerConfig
from tests.small import TRUNK, batch, crate, step, t5

BARE = Dropout(0.0)


def build(**changes: object) -> mirror_bert.MirrorBERT:
    torch.manual_seed(0)
    encoder = TokenEncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=32), trunk=TRUNK).build()
    return mirror_bert.Config(**{"span": 2, "least": 3, **changes}).build({"text": encoder})


def rows(x: Ragged) -> list[list[int]]:
    return [v[:n].tolist() for v, n in zip(x.values, x.extent[:, 0].tolist(), strict=True)]


def said(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    method = build(temperature=temperature)
    method.readings = lambda x, rng: (a, b)
    return float(method(batch(), step()).value.detach())


def test_one_text_has_nobody_to_be_taken_for() -> None:
    assert said(torch.randn(1, 16), torch.randn(1, 16), 0.04) == 0


@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_equal_readings_of_unrelated_texts_cost_what_the_others_weigh(temperature: float) -> None:
    z = torch.eye(16)[:6]
    want = math.log1p((2 * 6 - 2) * math.exp(-1 / temperature))
    assert said(z, z, temperature) == pytest.approx(want, rel=1e-4, abs=1e-7)
    assert said(3 * z, 0.1 * z, temperature) == pytest.approx(want, rel=1e-4, abs=1e-7)  # lengths do not matter


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
def test_it_equals_the_reference_and_counts_the_negatives_of_the_same_reading_too() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    a, b = torch.randn(7, 16), torch.randn(7, 16)
    both = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

    def theirs(a: torch.Tensor, b: torch.Tensor, directions: tuple[str, ...]) -> float:
        loss = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=1 / 0.2, directions=directions)
        return float(loss.compute_loss_from_embeddings([a, b], torch.arange(7)))

    inner = ("query_to_doc", "query_to_query")  # of one reading against both; ours asks both readings
    want = (theirs(a, b, inner) + theirs(b, a, inner)) / 2
    assert float(nt_xent(a, b, 0.2, lambda x: x)) == pytest.approx(want, rel=1e-5)
    across = (theirs(a, b, both[:1]) + theirs(b, a, both[:1])) / 2
    assert across < want - 0.1
    assert said(a, b, 0.2) == pytest.approx(want, rel=1e-5)


def test_without_noise_both_readings_are_the_same_bits() -> None:
    x = batch().x["text"]
    a, b = build(dropout=BARE, span=0).readings(x, Rng(0))
    assert torch.equal(a, b)
    noisy = build(span=0)
    a, b = noisy.readings(x, Rng(0))
    assert not torch.isclose(a, b).all(1).any()
    a, b = noisy.eval().readings(x, Rng(0))
    assert torch.equal(a, b)
    assert torch.equal(a, noisy.encoder(x).pooled)
    masked = build(dropout=BARE)
    a, b = masked.readings(x, Rng(0))
    assert torch.equal(a, masked.encoder(x).pooled) and not torch.isclose(a, b).all(1).any()


def test_dropout_falls_on_the_embedding_and_on_what_each_branch_adds_and_leaves_no_trace() -> None:
    method, drops = build(dropout=Dropout(0.25), span=0), []
    encoder = method.encoder
    assert isinstance(encoder, TokenEncoder)
    x = torch.randint(32, (500, 5))

    def watch(module: nn.Module, given: object, out: torch.Tensor) -> None:
        drops.append(float((out == 0).float().mean()))

    with method.config.dropout.within(encoder, Rng(0)):
        handles = [m.register_forward_hook(watch) for m in (encoder.input_norm, *(b.mlp for b in encoder.trunk.blocks))]
        handles += [b.attention.out.register_forward_hook(watch) for b in encoder.trunk.blocks]
        encoder(x)
        for handle in handles:
            handle.remove()
    assert len(drops) == 5 and all(abs(share - 0.25) < 0.02 for share in drops)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in encoder.modules()]
    assert sum(hooks) == 0
    with pytest.raises(ZeroDivisionError), method.config.dropout.within(encoder, Rng(0)):
        raise ZeroDivisionError
    assert not any(len(m._forward_hooks) for m in encoder.modules())


def test_dropped_numbers_are_made_up_for_and_each_sample_has_its_own() -> None:
    x = torch.ones(4000, 3, 2)
    found = dropped(x, 0.3, Rng(0), (3, 2))
    assert sorted(found.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert abs(found.mean() - 1) < 0.01
    assert len(dropped(x, 0.5, Rng(0), (3, 2)).flatten(1).unique(dim=0)) == 2**6


def test_whole_heads_are_dropped_and_the_others_made_up_for() -> None:
    method = build(dropout=Dropout(rate=0.0, heads=0.4), span=0)
    encoder, seen = method.encoder, []
    first = encoder.trunk.blocks[0].attention.out
    x = torch.randint(32, (600, 5))
    first.register_forward_pre_hook(lambda m, given: seen.append(given[0].unflatten(2, (2, 8))))
    encoder(x)
    first._forward_pre_hooks.clear()
    with method.config.dropout.within(encoder, Rng(0)):
        first.register_forward_pre_hook(lambda m, given: seen.append(given[0].unflatten(2, (2, 8))))
        encoder(x)
    before, after = seen
    factor = (after / before).transpose(1, 2).flatten(2)  # [sample head numbers]
    assert torch.isclose(factor, factor[..., :1], atol=1e-4).all()
    assert sorted(factor[..., 0].round(decimals=3).abs().unique().tolist()) == pytest.approx([0.0, 1.667])
    assert abs((factor[..., 0] == 0).float().mean() - 0.4) < 0.04
    a, b = build(dropout=Dropout(rate=0.0, heads=1e-9), span=0).readings(x, Rng(0))
    torch.testing.assert_close(a, b)


def test_one_stretch_becomes_one_mask_on_one_side_and_short_texts_stay() -> None:
    extent = torch.tensor([[40], [31], [30], [9]]).repeat(300, 1)
    x = Ragged(torch.arange(100, 140).expand(1200, -1).masked_fill(torch.arange(40) >= extent, 0), extent)
    masked, hidden = without_stretch(x, 5, 30, Rng(0))
    starts = [set(), set()]
    for i, (text, left, mark) in enumerate(zip(rows(x), rows(masked), hidden, strict=True)):
        if i % 4 > 1:  # fewer than 30 before the end
            assert left == text and not mark.any()
            continue
        assert int(mark.sum()) == 1
        at = int(mark.nonzero())
        assert left[:at] == text[:at] and left[at + 1 :] == text[at + 5 :]
        assert left[-1] == text[-1] and at + 1 < len(left)
        starts[i % 4].add(at)
    assert starts[0] == set(range(35)) and starts[1] == set(range(26))


def test_the_mask_is_the_vocabularys_own_where_it_has_one() -> None:
    method = build(dropout=BARE, mask=7)
    assert method.mask_token is None
    x = batch().x["text"]
    masked, hidden = without_stretch(Ragged(x, torch.full((8, 1), 5)), 2, 3, Rng(4))
    words = Ragged(masked.values.masked_fill(hidden, 7), masked.extent)
    torch.testing.assert_close(method.readings(x, Rng(4))[1], method.encoder(words).pooled)


def test_t5_is_read_with_dropout_too_and_what_has_no_blocks_is_refused() -> None:
    method = mirror_bert.TINY.build({"text": t5()})
    a, b = method.readings(batch().x["text"], Rng(0))
    assert not torch.isclose(a, b).all(1).any()
    with pytest.raises(RequestError, match="blocks of a transformer"):
        mirror_bert.TINY.build({"text": crate()})
    with pytest.raises(RequestError, match="rate=1"):
        Dropout(1.0)
    with pytest.raises(RequestError, match="span of 5"):
        mirror_bert.Config(least=4)


def test_padding_and_company_change_no_reading() -> None:
    method = build(dropout=BARE, span=0)
    ids = torch.randint(32, (3, 9))
    extent = torch.tensor([[9], [5], [2]])
    a, _ = method.readings(Ragged(ids, extent), Rng(0))
    alone = method.readings(ids[1:2, :5], Rng(0))[0]
    torch.testing.assert_close(a[1:2], alone)
    assert isinstance(method.encoder(ids), Features)
    assert method(Batch({"text": Ragged(ids, extent)}), step()).value.isfinite()
