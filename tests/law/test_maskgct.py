"""MaskGCT: what is hidden is all that counts, layers know only those below, and filling in keeps the surest."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features, Ragged
from headwater.methods.reconstruct import maskgct
from headwater.parts.codec import Codes
from headwater.parts.codec_transformers import SemanticToAcoustic, TextToSemantic, length_like
from headwater.parts.maskgit import Guidance, Sampler, deviation, hide, prefix, share
from headwater.parts.quantise import QuantiserConfig
from headwater.parts.timed import TimedConfig
from tests.small import audio, batch, frames, step, text

TRUNK = TimedConfig(dim=16, depth=2, heads=2)


def build(**changes: object) -> maskgct.MaskGCT:
    torch.manual_seed(0)
    config = maskgct.Config(**{"codec": maskgct.TINY.codec, "speaker": TRUNK, "sounder": TRUNK, **changes})
    return config.build({"audio": frames(), "text": text()})


def codes(b: int = 6, n: int = 12, seed: int = 0) -> Codes:
    g = torch.Generator().manual_seed(seed)
    valid = torch.arange(n) < torch.randint(4, n + 1, (b, 1), generator=g)
    ids = torch.randint(8, (b, n, 3), generator=g)
    return Codes(ids[..., 0], ids[..., 1:], valid)


def words(b: int = 6, m: int = 5) -> Features:
    x = torch.randn(b, m, 16, generator=torch.Generator().manual_seed(9))
    return Features(x, x.mean(1), None, torch.arange(m) < torch.arange(2, 2 + b)[:, None].clamp(max=m))


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_as_many_stay_hidden_as_the_sine_says_and_what_is_kept_never_changes(steps: int) -> None:
    seen: list[tuple[Tensor, Tensor, float]] = []
    g = torch.Generator().manual_seed(0)

    def say(ids: Tensor, hidden: Tensor, t: Tensor) -> Tensor:
        seen.append((ids.clone(), hidden.clone(), float(t[0])))
        return torch.randn(*ids.shape, 10, generator=g)

    start = torch.full((4, 20), 99)
    hidden = torch.arange(20) >= torch.tensor([[0], [3], [10], [19]])
    found = Sampler(steps=steps, keep=1.0)(say, start, hidden, Rng(0))
    assert torch.equal(seen[0][1], hidden)
    for i, (ids, still, t) in enumerate(seen):
        assert t == pytest.approx(1 - i / steps)
        if i:
            want = [math.floor(math.sin(math.pi / 2 * t) * n) for n in hidden.sum(1).tolist()]
            assert still.sum(1).tolist() == want
            assert not (still & ~seen[i - 1][1]).any()
        assert torch.equal(ids[~still], found[~still])  # what is no longer hidden is final
    assert len(seen) == steps
    assert (found[hidden] < 10).all() and (found[~hidden] == 99).all()


def test_the_last_step_takes_the_likeliest_and_earlier_ones_choose_among_the_likeliest() -> None:
    logits = torch.randn(1, 400, 100, generator=torch.Generator().manual_seed(0)).expand(5, -1, -1)
    hidden, ids = torch.ones(5, 400, dtype=torch.bool), torch.zeros(5, 400).long()
    once = Sampler(steps=1)(lambda *_: logits, ids, hidden, Rng(0))
    assert torch.equal(once, logits.argmax(2))
    often = Sampler(steps=30, keep=0.05, temperature=5.0)(lambda *_: logits, ids, hidden, Rng(0))
    rank = logits.argsort(2, descending=True).argsort(2).gather(2, often[..., None])
    assert set(rank.flatten().tolist()) == set(range(5))


def test_the_surest_are_kept_where_no_noise_says_otherwise() -> None:
    logits = torch.zeros(1, 10, 2)
    logits[..., 0] = torch.arange(10.0)
    order: list[set[int]] = []

    def say(ids: Tensor, hidden: Tensor, t: Tensor) -> Tensor:
        order.append(set(hidden[0].nonzero()[:, 0].tolist()))
        return logits

    hidden = torch.ones(1, 10, dtype=torch.bool)
    Sampler(steps=10, sureness=0.0, temperature=0.0)(say, torch.zeros(1, 10).long(), hidden, Rng(0))
    assert all(left == set(range(len(left))) for left in order)


def test_beginnings_are_never_hidden_and_something_always_is() -> None:
    valid = torch.arange(50) < torch.tensor([[50], [20], [3], [1]]).repeat(500, 1)
    prompt = prefix(valid, 0.4, 0.15, Rng(0))
    length = prompt.sum(1)
    assert torch.equal(prompt, torch.arange(50) < length[:, None])
    assert int(length[::4].max()) == 19 and int(length[1::4].max()) == 7
    assert abs((length[::4] == 0).float().mean() - (0.15 + 0.85 / 20)) < 0.05
    hidden = hide(valid & ~prompt, torch.zeros(2000), Rng(1))
    assert (hidden.sum(1) == 1).all() and not (hidden & (prompt | ~valid)).any()
    assert torch.equal(hide(valid & ~prompt, torch.ones(2000), Rng(1)), valid & ~prompt)
    half = hide(valid[::4], torch.full((500,), 0.5), Rng(2))
    assert abs(half.float().mean() - 0.5) < 0.01
    assert not hide(torch.zeros(2, 5, dtype=torch.bool), torch.ones(2), Rng(0)).any()


def test_all_is_hidden_at_time_one() -> None:
    assert share(torch.tensor([0.0, 1 / 3, 1.0])).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)


@pytest.mark.parametrize("stage", ["says", "sounds"])
def test_only_hidden_tokens_count(stage: str) -> None:
    method, made = build(), codes()
    logits: list[Tensor] = []

    def watched(*given: Tensor) -> Tensor:
        logits.append(torch.zeros(6, 12, 8).requires_grad_())
        return logits[0]

    if stage == "says":
        method.speaker.head = nn.Identity()
        method.speaker.head.forward = watched
        error, hidden = method.says(words(), made, Rng(3))
    else:
        method.sounder.head = watched
        error, hidden = method.sounds(made, Rng(3))
    (error * hidden).sum().backward()
    assert torch.equal(logits[0].grad.abs().sum(2) > 0, hidden)
    assert (hidden.sum(1) > 0).all() and not (hidden & ~made.valid).any()


def test_at_least_a_fifth_of_what_is_said_is_hidden_and_low_layers_are_asked_for_more_often() -> None:
    method = build(alone=1.0)
    made = Codes(torch.zeros(600, 200).long(), torch.zeros(600, 200, 2).long(), torch.ones(600, 200, dtype=torch.bool))
    asked: list[Tensor] = []
    states = torch.zeros(600, 200, 16)
    method.speaker.forward = lambda text, heard, ids, hidden, valid, t: asked.append(heard) or states
    method.sounder.forward = lambda s, a, layer, hidden, prompt, valid, t: asked.append(layer) or states
    rate = method.says(words(600), made, Rng(0))[1].float().mean(1)
    assert rate.min() > 0.1 and abs(rate.quantile(0.06) - 0.2) < 0.03
    assert abs(rate.mean() - (0.2 * math.asin(0.2) * 2 / math.pi + 2 / math.pi * math.cos(math.asin(0.2)))) < 0.02
    assert not asked[0].any()
    spread = method.sounds(made, Rng(0))[1].float().mean(1)
    assert abs(spread.mean() - 2 / math.pi) < 0.03 and spread.min() < 0.05
    assert abs((asked[1] == 0).float().mean() - 2 / 3) < 0.05
    method = build(alone=0.0, prompts=(1.0, 1.0))
    method.speaker.forward = lambda *_: states
    method.sounder.forward = lambda *_: states
    for hidden in (method.says(words(600), made, Rng(0))[1], method.sounds(made, Rng(0))[1]):
        assert hidden[:, 0].float().mean() < 0.02 and abs(hidden[:, 100].float().mean() - 1 / math.pi) < 0.05


def test_a_layer_hears_those_below_and_of_those_above_the_prompt_alone() -> None:
    torch.manual_seed(0)
    made, model = codes(n=10), SemanticToAcoustic(TRUNK, 8, 2, 8)
    valid = torch.ones_like(made.valid)
    prompt = torch.arange(10).expand(6, -1) < 3
    hidden = torch.arange(10).expand(6, -1) >= 6

    def said(acoustic: Tensor, layer: int) -> Tensor:
        at = torch.full((6,), layer)
        return model(made.semantic, acoustic, at, hidden, prompt, valid, torch.full((6,), 0.5))

    for layer in (0, 1):
        for q in (0, 1):
            for i in (1, 4, 8):  # in the prompt, known, hidden
                other = made.acoustic.clone()
                other[:, i, q] = (other[:, i, q] + 1) % 8
                moved = not torch.equal(said(other, layer), said(made.acoustic, layer))
                assert moved == (q < layer or i == 1 or (q == layer and i == 4)), (layer, q, i)
    all_known = (made.semantic, torch.ones(6).long(), hidden & False, prompt, valid, torch.full((6,), 0.5))
    one, other = (model(all_known[0], ids, *all_known[1:]) for ids in (made.acoustic, made.acoustic.flip(2)))
    assert not torch.isclose(one, other).all()  # a number means something else in each layer
    one = model.head(torch.randn(6, 10, 16), torch.tensor([0, 1, 0, 1, 1, 0]))
    assert one.shape == (6, 10, 8)


def test_guidance_of_no_weight_changes_nothing_and_rescaled_it_keeps_the_deviation() -> None:
    told, free = torch.randn(4, 7, 16), torch.randn(4, 7, 16)
    valid = torch.arange(7) < torch.tensor([[7], [5], [3], [1]])
    torch.testing.assert_close(Guidance(0.0, 0.75)(told, free, valid), told)
    full = Guidance(2.5, 1.0)(told, free, valid)
    torch.testing.assert_close(deviation(full, valid), deviation(told, valid))
    torch.testing.assert_close(deviation(told, valid)[1, 0, 0], told[1, :5].std(correction=0))
    torch.testing.assert_close(Guidance(2.5, 0.0)(told, free, valid), told + 2.5 * (told - free))


def test_it_is_not_causal_padding_is_not_heard_and_text_only_where_it_is_told() -> None:
    torch.manual_seed(0)
    model, made, text_ = TextToSemantic(TRUNK, 16, 8), codes(), words()
    nn.init.normal_(model.trunk.norm.scale.weight, std=0.1)
    hidden, heard = made.valid & (torch.arange(12) % 2 == 0), torch.arange(6) % 2 == 0

    def said(ids: Tensor, tokens: Tensor = text_.tokens, t: float = 0.5) -> Tensor:
        given = Features(tokens, tokens[:, 0], None, text_.valid)
        return model(given, heard, ids, hidden, made.valid, torch.full((6,), t))

    first = said(made.semantic)
    known = made.semantic.clone()
    known[:, 3] = (known[:, 3] + 1) % 8
    assert not torch.isclose(said(known)[:, 0], first[:, 0]).all(1).any()
    garbage = torch.where(made.valid & ~hidden, made.semantic, 7)
    torch.testing.assert_close(said(garbage)[made.valid], first[made.valid])
    noise = torch.where(text_.valid[..., None], text_.tokens, 5.0)
    torch.testing.assert_close(said(made.semantic, noise)[made.valid], first[made.valid])
    moved = ~torch.isclose(said(made.semantic, text_.tokens + 1), first).flatten(1).all(1)
    assert torch.equal(moved, heard)
    assert not torch.isclose(said(made.semantic, t=0.9), first).all()
    alone = model(
        Features(text_.tokens[1:2, :3], text_.pooled[1:2], None, None), heard[:1], made.semantic[1:2], hidden[1:2],
        made.valid[1:2], torch.full((1,), 0.5),
    )  # fmt: skip
    company = model(text_, ~heard, made.semantic, hidden, made.valid, torch.full((6,), 0.5))
    torch.testing.assert_close(alone[0][made.valid[1]], company[1][made.valid[1]])


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
def test_it_equals_llama_with_a_full_mask_where_the_scales_are_its_own() -> None:
    t = pytest.importorskip("transformers")
    config = t.LlamaConfig(
        vocab_size=4, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    theirs = t.LlamaModel(config).eval()
    ours = TimedConfig(dim=16, depth=2, heads=2, hidden=24).build()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.2 * torch.randn_like(p))
        for a, b in zip(theirs.layers, ours.blocks, strict=True):
            parts = (a.self_attn.q_proj, a.self_attn.k_proj, a.self_attn.v_proj)
            b.qkv.weight.copy_(torch.cat([p.weight for p in parts]))
            b.out.weight.copy_(a.self_attn.o_proj.weight)
            for own, its in ((b.gate, a.mlp.gate_proj), (b.up, a.mlp.up_proj), (b.down, a.mlp.down_proj)):
                own.weight.copy_(its.weight)
            b.norm1.scale.bias.copy_(a.input_layernorm.weight)
            b.norm2.scale.bias.copy_(a.post_attention_layernorm.weight)
        ours.norm.scale.bias.copy_(theirs.norm.weight)
        x = torch.randn(3, 7, 16)
        mask = torch.zeros(3, 1, 7, 7)
        mask[1, ..., 5:] = -torch.inf
        want = theirs(inputs_embeds=x, attention_mask=mask).last_hidden_state
        place = torch.arange(7.0).expand(3, -1)[..., None]
        valid = torch.arange(7) < torch.tensor([[7], [5], [7]])
        found = ours(x, torch.rand(3), valid, place)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_vectors_become_the_entry_of_nearest_direction_and_gradients_pass() -> None:
    torch.manual_seed(0)
    quantiser = QuantiserConfig(entries=16, dim=4, layers=3).build(12)
    x = torch.randn(2, 5, 12, requires_grad=True)
    made = quantiser(x)
    book = quantiser.layers[0]
    low = book.down(x)
    cosine = F.cosine_similarity(low[..., None, :], book.entries.weight, dim=-1)
    assert torch.equal(made.ids[..., 0], cosine.argmax(-1))
    torch.testing.assert_close(quantiser.decode(made.ids), made.x)
    torch.testing.assert_close(quantiser.decode(made.ids[..., :1]), book.up(book.entries(made.ids[..., 0])))
    rest = x - quantiser.decode(made.ids[..., :2])
    torch.testing.assert_close(quantiser.layers[2].nearest(quantiser.layers[2].down(rest)), made.ids[..., 2])
    single = QuantiserConfig(entries=16, dim=4, commitment=0.15).build(12)
    found = single(x)
    entry, low = single.layers[0].entries(found.ids[..., 0]), single.layers[0].down(x)
    torch.testing.assert_close(found.cost, 1.15 * (entry - low).square().mean(-1))
    (slope,) = torch.autograd.grad(found.x.sum(), x)
    straight = single.layers[0].up.weight @ single.layers[0].down.weight
    torch.testing.assert_close(slope, straight.sum(0).expand_as(slope))
    follow, away = torch.autograd.grad(
        single(x).cost.sum(), (single.layers[0].entries.weight, single.layers[0].down.bias)
    )
    torch.testing.assert_close(away.sum(), -0.15 * follow.sum())


def test_sounds_become_tokens_whatever_the_padding_and_only_real_ones_cost() -> None:
    method = build()
    sound = 0.1 * torch.randn(2, 1, 800)
    short = Ragged(torch.where(torch.arange(800) < torch.tensor([800, 480])[:, None, None], sound, 9.0),
                   torch.tensor([[800], [480]]))  # fmt: skip
    made, cost = method.codec(short)
    alone, price = method.codec(sound[1:, :, :480])
    n = alone.semantic.shape[1]
    assert made.valid.tolist() == [[True] * 4, [True] * n + [False] * (4 - n)] and n < 4
    assert torch.equal(made.semantic[1, :n], alone.semantic[0]) and torch.equal(made.acoustic[1, :n], alone.acoustic[0])
    torch.testing.assert_close(cost[1, :n], price[0])
    patches, codec = method.encoders()["audio"].tokenizer.patches(sound[1:, :, :480]), method.codec
    meant, heard = codec.semantic(codec.encoder(sound[1:, :, :480]).tokens), codec.acoustic(codec.heard(patches))
    ways = (codec.meant(meant.x) - patches, codec.decode(alone.acoustic) - patches)
    torch.testing.assert_close(price, meant.cost + heard.cost + sum(w.square().mean(2) for w in ways))
    data = Batch({"audio": short, "text": batch(2).x["text"]})
    out = method(data, step())
    assert out.value.isfinite()
    torch.testing.assert_close(out.metrics["codec"], cost[made.valid].mean().detach())
    torch.testing.assert_close(out.value.detach(), sum(out.metrics.values()))


def test_it_speaks_as_long_as_asked_and_goes_on_from_a_prompt() -> None:
    method = build().eval()
    made, _ = method.codec(batch(3).x["audio"])
    length = torch.tensor([9, 7, 5])
    found = method.speak(batch(3).x["text"], length, Rng(0), made)
    assert found.valid.sum(1).tolist() == [9, 7, 5] and found.acoustic.shape == (3, 9, 2)
    assert torch.equal(found.semantic[:, :4], made.semantic) and torch.equal(found.acoustic[:, :4], made.acoustic)
    free = method.speak(batch(3).x["text"], length, Rng(0))
    assert not torch.equal(free.acoustic[:, :4], made.acoustic)
    assert torch.equal(free.semantic, method.speak(batch(3).x["text"], length, Rng(0)).semantic)
    with pytest.raises(RequestError, match="beyond its prompt"):
        method.speak(batch(3).x["text"], length - 3, Rng(0), made)
    paced = length_like(torch.tensor([100]), torch.tensor([20]), torch.tensor([30]))
    assert paced.tolist() == [150]


def test_guidance_leads_away_from_what_is_said_without_the_text_or_the_voice() -> None:
    method = build().eval()
    made, _ = method.codec(batch(3).x["audio"])
    told: list[Tensor] = []
    say, heard = method.speaker.forward, method.sounder.forward

    def watched(text_: Features, hears: Tensor, *rest: Tensor) -> Tensor:
        told.append(hears)
        return say(text_, hears, *rest)

    def watched_sound(semantic: Tensor, acoustic: Tensor, layer: Tensor, *rest: Tensor) -> Tensor:
        told.append(torch.stack([rest[1], rest[2]]))
        return heard(semantic, acoustic, layer, *rest)

    method.speaker.forward, method.sounder.forward = watched, watched_sound
    method.speak(batch(3).x["text"], torch.tensor([9, 7, 5]), Rng(0), made)
    assert len(told) == 2 * 25 + 2 * (25 + 10)
    assert all(x.all() for x in told[:50:2]) and not any(x.any() for x in told[1:50:2])
    valid = torch.arange(9) < torch.tensor([[9], [7], [5]])
    given = (torch.arange(9) < 4).expand(3, -1)
    assert all(torch.equal(x, torch.stack([given, valid])) for x in told[50::2])
    assert all(torch.equal(x, torch.stack([given & False, valid & ~given])) for x in told[51::2])


def test_what_it_cannot_learn_from_is_said() -> None:
    with pytest.raises(RequestError, match="in a row"):
        maskgct.TINY.build({"audio": audio(), "text": text()})
    with pytest.raises(RequestError, match="sounds and texts"):
        maskgct.TINY.build({"audio": frames()})
    with pytest.raises(RequestError, match="heads"):
        TimedConfig(dim=18, depth=1, heads=4)
    with pytest.raises(RequestError, match="at least one step"):
        Sampler(steps=0)
