"""The transformer that reads and the one that writes: distances, masks, the cache, and that the pair can learn."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Features, Ragged
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.seq2seq import Decoder, DecoderConfig, T5Encoder, T5EncoderConfig, T5TrunkConfig, bucket
from headwater.parts.tokens import TextTokenizerConfig

TRUNK = T5TrunkConfig(dim=16, depth=2, heads=2, head_dim=4, hidden=24, buckets=8, distance=12)
READS = T5EncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=20), trunk=TRUNK)


def pair(seed: int = 0, **more: object) -> tuple[T5Encoder, Decoder, Tensor]:
    torch.manual_seed(seed)
    encoder = READS.build()
    words = encoder.tokenizer.embed.weight
    assert isinstance(words, Tensor)
    return encoder, DecoderConfig(trunk=TRUNK, **more).build(), words


def texts(b: int = 3, n: int = 9, seed: int = 1) -> Tensor:
    return torch.randint(2, 20, (b, n), generator=torch.Generator().manual_seed(seed))


def test_near_distances_have_a_bucket_each_and_far_ones_share() -> None:
    offset = torch.arange(-200, 201)
    found = bucket(offset, 32, 128, both=True)
    at = dict(zip(offset.tolist(), found.tolist(), strict=True))
    assert [at[-i] for i in range(8)] == list(range(8))
    assert [at[i] for i in range(1, 8)] == list(range(17, 24))
    for away in range(9, 128):  # log-spaced; on the edges themselves rounding decides
        want = 8 + 8 * math.log(away / 8) / math.log(16)
        if abs(want - round(want)) > 1e-4:
            assert at[-away] == int(want)
            assert at[away] == 16 + int(want)
    assert at[-128] == at[-200] == 15
    assert at[200] == 31
    behind = bucket(offset, 32, 128, both=False)
    assert (behind[offset >= 0] == 0).all()
    assert [int(b) for b in behind[offset < 0].flip(0)[:15]] == list(range(1, 16))


def test_padding_and_company_change_nothing_and_only_distances_matter() -> None:
    encoder, _, _ = pair()
    x, extent = texts(), torch.tensor([[9], [5], [2]])
    found = encoder(Ragged(x, extent))
    for i, n in enumerate([9, 5, 2]):
        alone = encoder(x[i : i + 1, :n])
        torch.testing.assert_close(found.tokens[i, :n], alone.tokens[0])
        torch.testing.assert_close(found.pooled[i], alone.tokens[0].mean(0))
    keep = torch.tensor([[1, 2, 4, 7]]).expand(3, -1)
    later = torch.tensor([[2, 3, 5, 8]]).expand(3, -1)
    rolled = encoder(x.roll(1, 1), keep=later).tokens
    torch.testing.assert_close(encoder(x, keep=keep).tokens, rolled)
    close = encoder(x.gather(1, keep)).tokens
    assert not torch.allclose(rolled, close)
    assert torch.isfinite(encoder(Ragged(x, torch.tensor([[9], [5], [0]]))).tokens).all()


def test_hidden_tokens_are_what_stands_in_for_them() -> None:
    encoder, _, words = pair()
    x, hidden = texts(), torch.zeros(3, 9, dtype=torch.bool)
    hidden[:, 3], hidden[1, 5] = True, True
    other = torch.where(hidden, (x + 1) % 20, x)
    torch.testing.assert_close(encoder(x, hidden=hidden, stand_in=words[other]).tokens, encoder(other).tokens)
    torch.testing.assert_close(
        encoder(x, hidden=hidden, stand_in=words[4]).tokens, encoder(torch.where(hidden, 4, x)).tokens
    )


def test_a_word_is_written_from_those_before_it_and_from_all_that_was_read() -> None:
    encoder, decoder, words = pair(head=20)
    x, y = texts(), texts(n=7, seed=2)
    memory = encoder(Ragged(x, torch.tensor([[9], [5], [2]])))
    logits = decoder(y, memory, words)
    for t in range(7):
        changed = y.clone()
        changed[:, t] = (y[:, t] + 1) % 20
        moved = (decoder(changed, memory, words) - logits).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [False] * (t + 1) + [True] * (6 - t)
    blank = torch.where(torch.arange(7) < 5, y, -100)
    torch.testing.assert_close(decoder(blank, memory, words)[:, :6], logits[:, :6])
    noise = torch.where(torch.arange(9) < torch.tensor([[9], [5], [2]]), x, (x + 3) % 20)
    again = encoder(Ragged(noise, torch.tensor([[9], [5], [2]])))
    torch.testing.assert_close(decoder(y, again, words), logits)
    other = encoder(x.roll(1, 0))
    assert not torch.allclose(decoder(y, other, words)[0], logits[0])


@pytest.mark.parametrize("more", [{"head": 20}, {"scaled": True}], ids=["own-head", "tied"])
def test_writing_with_the_cache_is_writing_word_after_word_without_it(more: dict[str, object]) -> None:
    lengths = set()
    for seed in range(4):
        encoder, decoder, words = pair(seed, **more, end=99)
        with torch.no_grad():
            decoder.positions.table.weight.mul_(8)  # so that wrong distances would show
            words.mul_(0.1)  # so that a tied head does not just say the last word again
            memory = encoder(Ragged(texts(), torch.tensor([[9], [5], [2]])))
            free = decoder.generate(memory, words, 24).values
            assert torch.equal(decoder(free, memory, words).argmax(-1), free)
            end = list(dict.fromkeys(free[0].tolist()))[-1]
            told = DecoderConfig(trunk=TRUNK, **more, end=end).build()
            told.load_state_dict(decoder.state_dict())
            found = told.generate(memory, words, 24)
        for own, all_of_it, n in zip(found.values, free, found.extent[:, 0].tolist(), strict=True):
            assert torch.equal(own[:n], all_of_it[:n])
            assert not own[n:].any()
            assert all_of_it[:n].tolist().count(end) == (n < 24 or all_of_it[23] == end)
            lengths.add(n)
    assert len(lengths) > 2
    assert decoder.generate(memory, words, 0).values.shape == (3, 0)


@pytest.mark.parametrize("tied", [True, False])
def test_the_pair_learns_to_write_a_text_backwards(tied: bool) -> None:
    encoder, decoder, words = pair(3, scaled=tied, head=0 if tied else 20)
    learned = [*encoder.parameters(), *decoder.parameters()]
    trainer = torch.optim.Adam(learned, 1e-2)
    first = 0.0
    for i in range(150):
        x = texts(48, 2, seed=i)
        y = torch.cat([x.flip(1), torch.ones(48, 1, dtype=torch.long)], 1)
        loss = F.cross_entropy(decoder(y, encoder(x), words).flatten(0, 1), y.flatten())
        trainer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in learned)
        if i == 0:
            assert all(p.grad.abs().sum() > 0 for p in learned if p.grad is not None)
            first = float(loss.detach())
        trainer.step()
    assert first < 2 * math.log(20)  # begins near a guess
    x = texts(64, 2, seed=1000)
    told = decoder.generate(encoder(x), words, 5)
    right = [torch.equal(own[:n], torch.tensor([*y.flip(0).tolist(), 1])) for own, n, y in rows(told, x)]
    assert sum(right) > 50


def rows(told: Ragged, x: Tensor) -> list[tuple[Tensor, int, Tensor]]:
    return [(told.values[i], int(told.extent[i]), x[i]) for i in range(len(x))]


def test_a_method_may_add_words_of_its_own_below_the_table() -> None:
    encoder, decoder, words = pair()
    more = torch.cat([words, torch.randn(3, 16)])
    memory = Features(encoder(texts()).tokens, torch.zeros(3, 16))
    assert decoder(torch.full((3, 2), 22), memory, more).shape == (3, 2, 23)


def test_encoders_by_name_and_as_json() -> None:
    found = named("t5-micro", "text", {"vocabulary": 257})
    assert isinstance(found, T5EncoderConfig)
    assert from_json(to_json(found)) == found
    built = found.build()
    assert (built.modality, built.dim) == ("text", 96)
    with pytest.raises(RequestError, match="texts"):
        named("t5-micro", "image", {"channels": 3, "size": (8, 8)})
    with pytest.raises(RequestError, match="buckets=2"):
        T5TrunkConfig(dim=16, depth=1, heads=2, buckets=2)


def test_places_far_into_a_text_are_exact_in_half_precision() -> None:
    encoder = pair()[0].bfloat16()
    keep = torch.arange(600, 604)[None]
    near = encoder(texts(1, 700).roll(-300, 1), keep=keep - 300).tokens
    assert torch.equal(encoder(texts(1, 700), keep=keep).tokens, near)
    x = texts(1, 700)
    whole = encoder(x, keep=torch.arange(700)[None]).tokens
    torch.testing.assert_close(encoder(x).tokens, whole)
