"""Words: restored as a choice among the vocabulary, and only where there are any."""

import math

import pytest
import torch
import torch.nn.functional as F

from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.methods.reconstruct import mae, simmim
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.positions import sincos
from headwater.parts.tokens import TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Excerpt
from headwater.parts.views.kit import ViewKit

WORDS = 11
ENCODER = TokenEncoderConfig(
    tokenizer=TextTokenizerConfig(vocabulary=WORDS), trunk=TransformerConfig(dim=16, depth=1, heads=2)
)

AS_IT_IS = Excerpt((1.0, 1.0))
WHOLE = ViewKit(weak=AS_IT_IS, strong=AS_IT_IS, large=AS_IT_IS, small=AS_IT_IS)


def texts(junk: int = 0) -> Ragged:
    ids = torch.randint(WORDS, (3, 12), generator=torch.Generator().manual_seed(0))
    extent = torch.tensor([[12], [7], [9]])
    return Ragged(torch.where(torch.arange(12) < extent, ids, junk), extent)


def test_behind_a_token_stands_its_id_and_a_guess_is_a_choice():
    tokenizer = ENCODER.tokenizer.build(16)
    x = texts()
    patches = tokenizer.patches(x)
    assert patches.shape == (3, 12, 1) and torch.equal(patches[..., 0].isnan(), ~tokenizer.valid(x))
    guess = torch.randn(3, 12, WORDS)
    found = tokenizer.distance(guess, patches)
    want = F.cross_entropy(guess.flatten(0, 1), x.values.flatten(), reduction="none").view(3, 12)
    valid = tokenizer.valid(x)
    torch.testing.assert_close(found[valid], want[valid])
    assert (found[~valid] == 0).all()
    sure = 100 * F.one_hot(x.values, WORDS).float()
    assert torch.equal(tokenizer.unpatch(sure, (12,)), x.values)
    assert torch.equal(tokenizer.unpatch(patches, (12,))[valid], x.values[valid])


def test_scaled_vectors_are_as_large_as_the_sines_of_their_places():
    torch.manual_seed(0)
    ids = torch.arange(200)[None]
    plain, scaled = (TextTokenizerConfig(vocabulary=200, scaled=s).build(64)(ids).x.detach() for s in (False, True))
    places = sincos(torch.arange(200.0)[:, None], 64)
    assert scaled.square().mean() / places.square().mean() == pytest.approx(
        2, rel=0.1
    )  # sin² + cos² = 1 by two numbers
    assert plain.std() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("module", [mae, simmim])
def test_a_masked_language_model_begins_at_chance_and_learns(module):
    torch.manual_seed(0)
    method = module.SMALL.viewed(WHOLE).build({"text": ENCODER.build()})
    torch.nn.init.zeros_(method.to_patch.weight)
    torch.nn.init.zeros_(method.to_patch.bias)
    said = torch.arange(8)[:, None].expand(8, 12)  # one word each, said again and again: some of it tells the rest
    batch = Batch({"text": Ragged(said, torch.full((8, 1), 12))})
    assert method(batch, Step(Rng(0))).value.item() == pytest.approx(math.log(WORDS), rel=1e-5)
    optimiser = torch.optim.AdamW(method.parameters(), 3e-3)
    for t in range(300):
        loss = method(batch, Step(Rng(t))).value
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 0.1 * math.log(WORDS)


@pytest.mark.parametrize("module", [mae, simmim])
def test_what_lies_behind_the_end_changes_no_loss(module):
    torch.manual_seed(0)
    method = module.SMALL.viewed(WHOLE).build({"text": ENCODER.build()}).eval()
    one, other = (method(Batch({"text": texts(junk)}), Step(Rng(0))).value for junk in (0, 5))
    assert torch.equal(one, other)
