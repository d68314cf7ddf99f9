"""UL2: spans go out and come back whole, seven ways, each in its mode; equal to T5 in transformers."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.methods.reconstruct import ul2
from headwater.parts.seq2seq import T5Encoder
from headwater.parts.spans import Spans, hidden_spans, partition
from tests.law.huggingface import written
from tests.small import convnet, step, t5

KINDS = ul2.Config().denoisers
SENTINELS, FIRST = 100, 32
END, MODES = FIRST + SENTINELS, ("NLG", "NLU", "S2S")


def build(**changes: object) -> ul2.UL2:
    torch.manual_seed(0)
    return ul2.Config(**changes).build({"text": t5()})


def texts(b: int = 7, n: int = 60, seed: int = 0) -> Ragged:
    """Texts of 3 to n tokens; the last of each is 1, as it is of no other."""
    g = torch.Generator().manual_seed(seed)
    extent = torch.randint(3, n + 1, (b, 1), generator=g)
    extent[0] = n
    at = torch.arange(n)
    ids = torch.randint(2, FIRST, (b, n), generator=g)
    return Ragged(torch.where(at == extent - 1, 1, ids) * (at < extent), extent)


def rows(x: Ragged) -> list[list[int]]:
    return [v[:n].tolist() for v, n in zip(x.values, x.extent[:, 0].tolist(), strict=True)]


def put_back(source: list[int], target: list[int]) -> list[int]:
    """What T5's target says at the places of its sentinels."""
    spans: dict[int, list[int]] = {}
    for i in target[:-1]:
        if i >= FIRST:
            spans[i] = []
        else:
            spans[max(spans)].append(i)
    return [word for i in source[1:] for word in (spans[i] if i >= FIRST else [i])]


@pytest.mark.parametrize("kind", range(7))
def test_spans_put_back_at_their_sentinels_give_the_text(kind: int) -> None:
    method, x = build(), texts(40)
    source, target = method.corrupt(x, torch.full((40,), kind), Rng(3))
    for text, read, told in zip(rows(x), rows(source), rows(target), strict=True):
        assert put_back(read, told) == text
        assert read[-1] == 1 and told[-1] == END  # the end of a text is never hidden
        assert read[0] == END + 1 + MODES.index(KINDS[kind].mode)
        used = [i for i in read[1:] if i >= FIRST]
        assert used == [i for i in told[:-1] if i >= FIRST] == [FIRST + k for k in range(len(used))]
        assert told[0] == FIRST and all(told[k + 1] < FIRST for k in range(len(told) - 1) if told[k] >= FIRST)


@pytest.mark.parametrize(("span", "ratio"), [(k.length, k.ratio) for k in KINDS if not math.isinf(k.length)])
def test_as_many_tokens_and_spans_are_hidden_as_the_paper_says(span: float, ratio: float) -> None:
    length = torch.arange(201)
    hidden = hidden_spans(length, torch.zeros(201).long(), (Spans(span, ratio),), 200, Rng(0))
    begins = (hidden & ~F.pad(hidden, (1, -1))).sum(1)
    for n in range(2, 201):
        noise = min(max(round(n * ratio), 1), n - 1)
        assert int(hidden[n].sum()) == noise
        assert int(begins[n]) == min(max(round(noise / span), 1), noise, n - noise)
        assert not hidden[n, n:].any()
    assert hidden[:2].sum() == 1 and hidden[1, 0]  # of one token there is nothing else to hide


@pytest.mark.parametrize(("ratio", "ways"), [(0.2, 5), (0.4, 6)])
def test_spans_of_one_stand_anywhere_but_side_by_side(ratio: float, ways: int) -> None:
    length = torch.full((6000,), 5)
    hidden = hidden_spans(length, torch.zeros(6000).long(), (Spans(1.0, ratio),), 5, Rng(0))
    kinds, counts = hidden.unique(dim=0, return_counts=True)
    assert (kinds.sum(1) == round(5 * ratio)).all()
    assert len(kinds) == ways and ((counts / 6000 - 1 / ways).abs() < 0.02).all()


def test_every_partition_is_equally_likely() -> None:
    found = partition(torch.full((20_000,), 5), torch.full((20_000,), 3), 9, 4, Rng(0))
    kinds, counts = found.unique(dim=0, return_counts=True)
    assert sorted(k[:3].tolist() for k in kinds) == sorted(
        [a, b, 5 - a - b] for a in range(1, 4) for b in range(1, 4) if a + b < 5
    )
    assert (found[:, 3] == 0).all()
    assert ((counts / 20_000 - 1 / 6).abs() < 0.015).all()


def test_the_sequential_denoiser_takes_one_end_a_quarter_on_average() -> None:
    length = torch.full((4000,), 100)
    hidden = hidden_spans(length, torch.zeros(4000).long(), (Spans(math.inf, 0.25),), 100, Rng(0))
    assert torch.equal(hidden.int(), hidden.int().cummax(1).values)  # once hidden, hidden to the end
    share = hidden.float().mean(1)
    assert abs(share.mean() - 0.25) < 0.01
    assert abs(share.var() - 0.5**2 / 12) < 0.003
    assert share.min() == 0.01 and share.max() == 0.5


def test_each_denoiser_gets_a_seventh_of_the_texts_and_marks_them_with_its_mode() -> None:
    method, seen = build(), list[Tensor]()
    corrupt = method.corrupt
    method.corrupt = lambda x, which, rng: (seen.append(which), corrupt(x, which, rng))[1]
    method.read = lambda source: seen.append(source.values[:, 0]) or method.encoder(source.values % 32)
    x = texts(7000, 6)
    with torch.no_grad():
        method(Batch({"text": x}), step())
    count = seen[0].bincount(minlength=7)
    assert len(count) == 7 and ((count - 1000).abs() < 5 * (7000 * 1 / 7 * 6 / 7) ** 0.5).all()
    modes = torch.tensor([MODES.index(KINDS[int(k)].mode) for k in seen[0]])
    assert torch.equal(seen[1], END + 1 + modes)


def test_what_is_read_sees_all_of_it_and_no_target_and_a_written_word_what_was_written_before() -> None:
    method = build()
    x = texts(2, 20)
    source, target = method.corrupt(x, torch.tensor([3, 2]), Rng(1))
    memory = method.read(source)
    other = source.values.clone()
    other[0, int(source.extent[0]) - 1] = 7
    assert not torch.allclose(method.read(Ragged(other, source.extent)).tokens[0, 0], memory.tokens[0, 0])
    logits = method.decoder(target.values, memory, method.words)
    n = int(target.extent[0])
    for t in range(n):
        changed = target.values.clone()
        changed[0, t] = (changed[0, t] + 1) % 32
        moved = (method.decoder(changed, memory, method.words) - logits)[0, :n].abs().amax(1) > 1e-6
        assert moved.tolist() == [False] * (t + 1) + [True] * (n - t - 1)


def test_every_word_of_the_target_counts_once_and_padding_never() -> None:
    method = build()
    torch.nn.init.zeros_(method.decoder.head.weight)
    out = method(Batch({"text": texts()}), step())
    assert float(out.value.detach()) == pytest.approx(math.log(FIRST + SENTINELS + 1)) == float(out.metrics["chance"])

    method, x = build(), texts()
    which = (step().rng.rand(7, 1)[:, 0] * 7).long()
    rng = step().rng
    rng.rand(7, 1)
    source, target = method.corrupt(x, which, rng)
    each = []
    for i, ids in enumerate(rows(target)):
        own = torch.tensor([ids])
        read = method.read(Ragged(source.values[i : i + 1, : int(source.extent[i])], source.extent[i : i + 1]))
        logits = method.decoder(own, read, method.words)
        each.append(F.cross_entropy(logits[0], own[0], reduction="none"))
    torch.testing.assert_close(method(Batch({"text": x}), step()).value, torch.cat(each).mean())
    garbage = Ragged(torch.where(torch.arange(60) < x.extent, x.values, 9), x.extent)
    torch.testing.assert_close(method(Batch({"text": garbage}), step()).value, torch.cat(each).mean())


def test_texts_too_short_to_lose_anything_cost_only_their_end() -> None:
    method = build()
    x = Ragged(torch.tensor([[5, 1], [1, 0]]), torch.tensor([[2], [1]]))
    source, target = method.corrupt(x, torch.tensor([0, 2]), Rng(0))
    assert rows(source) == [[END + 2, FIRST, 1], [END + 3, 1]]
    assert rows(target) == [[FIRST, 5, END], [END]]
    assert method(Batch({"text": x}), Step(Rng(0))).value.isfinite()


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(RequestError, match="T5"):
        ul2.TINY.build({"text": convnet()})
    with pytest.raises(RequestError, match="sentinels=4"):
        build(sentinels=4).corrupt(texts(2, 60), torch.zeros(2).long(), Rng(0))
    with pytest.raises(RequestError, match=r"ratio=1\.5"):
        Spans(3.0, 1.5)


def test_it_learns_to_write_what_it_is_asked_for() -> None:
    """Texts that go up by one: the missing words follow from those that are there."""
    torch.manual_seed(0)
    method = ul2.Config(denoisers=KINDS[:3], sentinels=8).build({"text": t5()})
    start = torch.randint(2, 20, (256, 1), generator=torch.Generator().manual_seed(0))
    x = torch.cat([start + torch.arange(10), torch.ones(256, 1).long()], 1)
    learner = torch.optim.Adam(method.parameters(), 1e-2)
    for i in range(100):
        chosen = torch.randint(256, (32,), generator=torch.Generator().manual_seed(i))
        loss = method(Batch({"text": x[chosen]}), Step(Rng(i))).value
        learner.zero_grad()
        loss.backward()
        learner.step()
    hidden = torch.zeros(256, 11, dtype=torch.bool)
    hidden[:, 8:10] = True
    source, target = method.ask(x, hidden, torch.full((256,), method.modes.index("S2S")))
    told = method.write(source, 12)
    right = [a == b for a, b in zip(rows(told), rows(target), strict=True)]
    assert sum(right) > 128  # without having read the texts it could be right about 14 times


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
def test_it_equals_the_reference_from_the_same_weights(tmp_path: Path) -> None:
    t = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    from headwater.interop import huggingface as hf
    from headwater.interop.huggingface.t5 import decoder

    start = END + 1 + len(MODES)
    config = t.T5Config(
        vocab_size=start + 1, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="gated-silu", tie_word_embeddings=False, decoder_start_token_id=start, eos_token_id=END,
    )  # fmt: skip
    theirs = t.T5ForConditionalGeneration(config)
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(start + 1, 16))
    at = written(theirs, tmp_path)
    loaded = hf.load(at)
    assert loaded is not None and isinstance(loaded.encoder, T5Encoder)
    method = ul2.Config().build({"text": t5(activation="silu")})
    told = decoder(theirs.config.to_dict(), load_file(at / "model.safetensors"))
    with torch.no_grad():
        words = loaded.encoder.tokenizer.embed.weight
        whole = loaded.encoder.state_dict()
        method.encoder.load_state_dict({**whole, "tokenizer.embed.weight": words[:FIRST]})
        method.extra.copy_(words[FIRST:])
        state = told.state_dict()
        method.decoder.load_state_dict({**state, "head.weight": state["head.weight"][: END + 1]})

    x = texts()
    source, target = method.corrupt(x, torch.arange(7), Rng(0))
    real = torch.arange(source.values.shape[1]) < source.extent
    counted = torch.arange(target.values.shape[1]) < target.extent
    out = theirs(input_ids=source.values, attention_mask=real.long(), labels=target.values.masked_fill(~counted, -100))
    logits = method.decoder(target.values.masked_fill(~counted, -100), method.read(source), method.words)
    said = out.logits[..., : END + 1]  # theirs may write modes too, which ours never does
    torch.testing.assert_close(logits[counted], said[counted], rtol=1e-4, atol=1e-4)
    method.corrupt = lambda *_: (source, target)
    got = method(Batch({"text": x}), step()).value
    want = F.cross_entropy(said[counted], target.values[counted])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)
    want.backward()
    got.backward()
    torch.testing.assert_close(method.extra.grad, theirs.shared.weight.grad[FIRST:], rtol=1e-3, atol=1e-6)
