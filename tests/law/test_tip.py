"""TIP: rows with gaps and pictures meet, match, and fill in each other's gaps."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features
from headwater.methods.align import tip
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.negatives import hard_negatives
from headwater.parts.tablecells import Restorer, chosen, dealt
from headwater.parts.tokens import Normalise, TableTokenizerConfig
from headwater.parts.transformer import Transformer
from headwater.parts.views import CentreCrop
from tests.small import TRUNK, batch, convnet, step, table, vit

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
NAN = float("nan")


def build(**changes: object) -> tip.TIP:
    torch.manual_seed(0)
    method = replace(tip.TINY, view=CentreCrop(16, 1.0), **changes).build({"image": vit(), "table": table()})
    for p in method.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.2)  # so that what does not depend on something does not for a reason
    return method


def rows(b: int = 8) -> torch.Tensor:
    x = batch(b).x["table"]
    assert isinstance(x, torch.Tensor)
    return x.clone()


def test_a_missing_cell_touches_no_other_column_and_an_empty_row_is_finite() -> None:
    method, x = build(), rows()
    x[:, 2] = x[:, 4] = NAN
    there = torch.tensor([0, 1, 3, 5])
    found = method.row(x)
    alone = method.table(x, keep=there.expand(8, -1))  # as if the two columns did not exist
    torch.testing.assert_close(found.tokens[:, there], alone.tokens, **CLOSE)
    torch.testing.assert_close(found.pooled, alone.pooled, **CLOSE)
    before = found.tokens.detach().clone()
    with torch.no_grad():
        method.special.normal_()
    after = method.row(x)
    assert torch.equal(after.tokens[:, there], before[:, there])
    assert torch.equal(after.pooled, found.pooled)
    assert not torch.isclose(after.tokens[:, 2], before[:, 2]).all()  # but its own place knows that it is missing
    assert method.row(torch.full_like(x, NAN)).tokens.isfinite().all()


def test_what_is_under_the_mask_does_not_reach_the_encoder() -> None:
    method, seen = build(), []
    method.table.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = batch()
    method(x, step())
    compared, told = seen
    assert not compared.isnan().any()  # cells are dealt, none is hidden where row and picture are compared
    assert (told.isnan().sum(1) == 3).all()  # half of six columns
    truth = rows()
    assert torch.equal(told[~told.isnan()], truth[~told.isnan()])  # nothing is dealt where cells are restored


@pytest.mark.parametrize(("share", "n", "hits"), [(0.5, 7, 4), (0.5, 6, 3), (0.3, 10, 3), (0.0, 4, 0), (1.0, 4, 4)])
def test_so_many_columns_are_chosen(share: float, n: int, hits: int) -> None:
    hit = chosen(torch.zeros(50, n), share, Rng(0))
    assert (hit.sum(1) == hits).all()
    assert hits in (0, n) or len(hit.unique(dim=0)) > 3


def test_dealt_cells_come_from_their_column_and_gaps_stay_gaps() -> None:
    x = torch.arange(400.0).view(100, 4)
    x[::3, 1] = NAN
    found = dealt(x, 0.5, step())
    assert torch.equal(found.isnan(), x.isnan())
    moved = (found != x) & ~x.isnan()
    assert 0.35 < float(moved.float().mean()) < 0.5  # half, but for one's own cells and for gaps that were drawn
    for column in range(4):
        assert torch.isin(found[moved[:, column], column], x[:, column]).all()
    assert torch.equal(dealt(x, 0.0, step()).nan_to_num(-1), x.nan_to_num(-1))


def restorer() -> tuple[Restorer, Normalise]:
    """Two columns of words between two of numbers."""
    torch.manual_seed(0)
    normalise = Normalise(4)
    normalise.set(torch.tensor([1.0, 0.0, 0.0, -2.0]), torch.tensor([2.0, 1.0, 1.0, 3.0]))
    return Restorer(9, torch.tensor([0, 3, 2, 0])), normalise


def test_only_hidden_cells_cost_and_numbers_and_words_half_each() -> None:
    part, normalise = restorer()
    x = torch.tensor([[-3.0, 2.0, 0.0, -5.0], [3.0, 0.0, 1.0, 4.0], [NAN, 1.0, NAN, 1.0]])
    hidden = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]]).bool()
    tokens = torch.randn(3, 4, 9, requires_grad=True)
    value = part(tokens, x, normalise, hidden, lambda t: t)
    told = part.number(tokens)[..., 0]
    numbers = ((told[0, 0] + 2) ** 2 + (told[1, 3] - 2) ** 2) / 2
    words = part.word(tokens).log_softmax(-1)  # over all five words of both columns
    torch.testing.assert_close(value, (numbers - (words[0, 1, 2] + words[1, 2, 4]) / 2) / 2)
    value.backward()
    asked = hidden & ~x.isnan()
    assert (tokens.grad[~asked] == 0).all()
    assert (tokens.grad[asked] != 0).any(1).all()


def test_a_perfect_guess_costs_nothing_and_says_the_row() -> None:
    part, normalise = restorer()
    x = torch.tensor([[-3.0, 2.0, 0.0, 4.0], [3.0, 0.0, 1.0, -11.0]])
    tokens = torch.zeros(2, 4, 9)  # what each says: a number, then the score of each of the five words
    tokens[:, :, 0] = normalise(x)
    tokens[:, 1, 1:6] = 50.0 * F.one_hot(x[:, 1].long(), 5)
    tokens[:, 2, 1:6] = 50.0 * F.one_hot(x[:, 2].long() + 3, 5)
    with torch.no_grad():
        for layer, first in ((part.number, 0), (part.word, 1)):
            layer.weight.copy_(torch.eye(9)[first : first + len(layer.weight)])
            layer.bias.zero_()
    assert part(tokens, x, normalise, torch.ones(2, 4).bool(), lambda t: t) < 1e-6
    torch.testing.assert_close(part.cells(tokens, normalise), x)
    tokens[:, 1, 5] = 99.0  # a word of the other column is none of this one's
    assert torch.equal(part.cells(tokens, normalise)[:, 1], x[:, 1])


def test_a_word_never_met_is_no_target_and_nothing_hidden_costs_nothing() -> None:
    part, normalise = restorer()
    tokens, x = torch.randn(1, 4, 9), torch.tensor([[0.0, 3.0, 2.0, 0.0]])  # one beyond the last of each
    at = torch.tensor([[False, True, True, False]])
    assert part(tokens, x, normalise, at, lambda t: t) == 0
    assert part(tokens, x - 3, normalise, ~at & False, lambda t: t) == 0


def test_negatives_are_others_the_likelier_the_more_alike() -> None:
    logits = torch.full((1000, 1000), -60.0)
    logits[:, :4] = torch.tensor([5.0, 4.0, 3.0, -30.0])
    drawn = hard_negatives(logits, Rng(0))
    assert (drawn != torch.arange(1000)).all()
    chance = (logits.softmax(1) + 1e-4).fill_diagonal_(0.0)
    expected = (chance / chance.sum(1, keepdim=True)).sum(0)
    for column in range(3):
        assert abs(int((drawn == column).sum()) - float(expected[column])) < 5 * float(expected[column]) ** 0.5
    assert 60 < (drawn > 2).sum() < 130  # even the least alike are drawn now and then: 997 times 1e-4 of 1.1
    with pytest.raises(RequestError, match="Take larger batches"):
        hard_negatives(torch.zeros(1, 1), Rng(0))


def test_true_pairs_come_first_then_wrong_rows_then_wrong_pictures() -> None:
    method, given = build(), []
    fusion = method.fusion.forward
    method.fusion.forward = lambda a, b: given.append((a, b)) or fusion(a, b)
    seen = method.image(batch().x["image"])
    row = method.row(rows())
    a, b = torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    value = method.matching(seen, row, F.normalize(a, dim=1), F.normalize(b, dim=1), step())
    told, pictures = method.columns(row), method.look(seen.tokens)
    ((left, right),) = given

    def origin(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return (part[:, None] - whole[None]).abs().amax((2, 3)).argmin(1)

    own = torch.arange(8)
    which = [(origin(x, told), origin(y, pictures)) for x, y in zip(left.split(8), right.split(8), strict=True)]
    assert torch.equal(which[0][0], own) and torch.equal(which[0][1], own)
    assert (which[1][0] != own).all() and torch.equal(which[1][1], own)
    assert torch.equal(which[2][0], own) and (which[2][1] != own).all()
    logits = method.belong(fusion(left, right)[:, 0])
    torch.testing.assert_close(value, F.cross_entropy(logits, torch.tensor([1] * 8 + [0] * 16)))
    value.backward()
    assert a.grad is None and b.grad is None  # which negatives are drawn is no matter of learning


def copied(theirs: nn.Module, ours: nn.Module, extra: dict[str, str]) -> None:
    """The weights of one of our blocks in a layer of torch."""
    weights = {f"self_attn.{k}": v for k, v in (("in_proj_weight", "qkv.weight"), ("in_proj_bias", "qkv.bias"))}
    weights = {k: f"attention.{v}" for k, v in weights.items()}
    pairs = {"self_attn.out_proj": "attention.out", "norm1": "norm1", "linear1": "mlp.0", "linear2": "mlp.2", **extra}
    weights |= {f"{k}.{end}": f"{v}.{end}" for k, v in pairs.items() for end in ("weight", "bias")}
    state = ours.state_dict()
    theirs.load_state_dict({k: state[v] for k, v in weights.items() if v in state}, strict=False)


def test_with_no_gap_the_row_is_read_as_by_torchs_own_blocks() -> None:
    method = build()
    trunk = method.table.get_submodule("trunk")
    assert isinstance(trunk, Transformer)
    seen: list[torch.Tensor] = []
    trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = method.row(rows())
    (x,) = seen
    for block in trunk.blocks:
        theirs = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).eval()
        copied(theirs, block, {"norm2": "norm2"})
        x = theirs(x)
    torch.testing.assert_close(found.tokens, trunk.norm(x), **CLOSE)


def test_the_fusion_is_that_of_torchs_own_decoder_on_a_memory_with_norms() -> None:
    method = build()
    x, memory = torch.randn(3, 7, 16), torch.randn(3, 5, 16)
    told = x
    for block in method.fusion.blocks:
        theirs = nn.TransformerDecoderLayer(16, 2, 64, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).eval()
        copied(theirs, block, {"norm2": "norm2", "norm3": "norm3", "multihead_attn.out_proj": "cross.out"})
        with torch.no_grad():
            theirs.multihead_attn.in_proj_weight.copy_(torch.cat([block.cross.q.weight, block.cross.kv.weight]))
            theirs.multihead_attn.in_proj_bias.copy_(torch.cat([block.cross.q.bias, block.cross.kv.bias]))
        told = theirs(told, block.norm_memory(memory))
    torch.testing.assert_close(method.fusion(x, memory), method.fusion.norm(told), **CLOSE)


def test_the_joint_vector_knows_the_picture_by_cross_attention_alone() -> None:
    method, x = build().eval(), batch()
    other = Batch({**x.x, "image": 1 - x.x["image"]})
    assert not torch.allclose(method.fused(x), method.fused(other), atol=1e-2)
    for block in method.fusion.blocks:
        nn.init.zeros_(block.cross.out.weight)
        nn.init.zeros_(block.cross.out.bias)
    assert torch.equal(method.fused(x), method.fused(other))


def test_the_loss_is_the_mean_of_three_and_the_first_is_clips() -> None:
    method, x = build().eval(), batch()
    loss = method(x, step())
    assert {*loss.metrics} == {"contrast", "match", "restored"}
    torch.testing.assert_close(loss.value, torch.stack([*loss.metrics.values()]).mean())
    quiet = build(deal=0.0).eval()
    a, b = (F.normalize(quiet.project[m](e(x.x[m]).pooled), dim=1) for m, e in quiet.encoders().items())
    logits, own = a @ b.T / 0.1, torch.arange(8)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(quiet(x, step()).metrics["contrast"], expected, **CLOSE)
    assert not torch.isclose(loss.metrics["contrast"], expected)  # for there cells were dealt


def test_gaps_are_filled_and_nothing_else_changes() -> None:
    method, x = build().eval(), rows()
    gaps = torch.rand(8, 6, generator=torch.Generator().manual_seed(5)) < 0.4
    x[gaps] = NAN
    found = method.filled(Batch({**batch().x, "table": x}))
    assert torch.equal(found[~gaps], x[~gaps])
    assert found.isfinite().all()
    for column, words in ((4, 3), (5, 2)):
        codes = found[gaps[:, column], column]
        assert torch.isin(codes, torch.arange(float(words))).all()


def test_each_cell_is_told_from_the_token_of_its_own_column() -> None:
    method, x = build().eval(), rows()
    method.fusion.forward = lambda tokens, memory: tokens  # as if the picture said nothing
    asked = []
    plain = method.restore.forward
    method.restore.forward = lambda *given: asked.append(given) or plain(*given)
    method(batch(), step())
    ((tokens, table, _, hidden, _),) = asked
    assert torch.equal(table, x)
    alone = method.read(method.row(x.masked_fill(hidden, NAN)).tokens)
    torch.testing.assert_close(tokens, alone, **CLOSE)
    x[hidden] = NAN
    found = method.filled(Batch({**batch().x, "table": x}))
    torch.testing.assert_close(found[hidden], method.restore.cells(alone, method.normalise())[hidden], **CLOSE)


@pytest.mark.parametrize("categories", [(), (3, 2)])
def test_tables_of_one_kind_of_column_have_the_head_they_need(categories: tuple[int, ...]) -> None:
    tokenizer = TableTokenizerConfig(columns=2, categories=categories)
    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK).build()
    method = tip.TINY.build({"image": vit(), "table": encoder})
    assert (method.restore.number is None, method.restore.word is None) == (bool(categories), not categories)
    x = Batch({"image": batch().x["image"], "table": rows()[:, 4:]})
    assert method(x, step()).value.isfinite()
    assert method.filled(x).shape == (8, 2)


def test_missing_cells_are_never_asked_for() -> None:
    method, x = build(), rows()
    x[:, :3] = NAN
    x[:, 4] = NAN
    asked: list[torch.Tensor] = []
    plain = method.restore.forward
    method.restore.forward = lambda tokens, truth, n, hidden, gather: (
        asked.append(hidden & ~truth.isnan()) or plain(tokens, truth, n, hidden, gather)
    )
    loss = method(Batch({**batch().x, "table": x}), step())
    assert loss.value.isfinite()
    assert not asked[0][:, [0, 1, 2, 4]].any() and asked[0].any()


def test_published_defaults() -> None:
    config = tip.Config()
    assert (config.deal, config.hide, config.projection, config.temperature) == (0.3, 0.5, 128, 0.1)
    assert (config.fusion.dim, config.fusion.depth, config.fusion.heads) == (512, 4, 8)


def test_it_takes_a_picture_and_a_row_of_tokens() -> None:
    with pytest.raises(RequestError, match="images and one of table rows made of tokens; got image: TokenEncoder"):
        tip.TINY.build({"image": vit()})
    assert isinstance(tip.TINY.build({"table": table(), "image": convnet()}).row(rows()), Features)


def test_the_measured_shapes_are_about_their_pictures() -> None:
    data = hw.open("measured-shapes")
    assert data.modalities == ("image", "table") and len(data) == 3000
    names = data.spec["table"]["names"]
    pictures, cells = data.parts["image"].tensors["image"].float(), data.parts["table"].tensors["table"]
    assert torch.equal(pictures[7].byte(), hw.open("shapes").read(7)["image"])
    assert 0.09 < float(cells.isnan().float().mean()) < 0.11
    ground = cells[:, names.index("ground")]
    seen = pictures[:, :, 0].mean((1, 2))  # a shape never reaches the first row
    known = ~ground.isnan()
    assert float(torch.corrcoef(torch.stack([ground[known], seen[known]]))[0, 1]) > 0.98
    edge, label = cells[:, names.index("edge")], torch.from_numpy(data.labels)
    straight = ~torch.isin(label, torch.tensor([0, 5]))
    known = ~edge.isnan()
    assert 0.93 < float((edge[known] == straight[known]).float().mean()) < 0.97
