"""Mirror-BERT: a text read twice with different dropout must recognise itself among all others in the batch.

    corrupt   nothing but dropout inside the encoder, and in the second reading one stretch behind a mask
    encode    both readings, with one encoder
    predict   nothing: what is pooled is compared as it is
    target    the other reading, against every other text of the batch

It makes no knowledge, it makes what a masked language model knows show in cosines: go on from one, briefly and at a small
rate, as with `--encoder hf:FOLDER --steps 50 --batch-size 200` and a rate of 2e-5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Input, Loss, Ragged, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.dropping import Dropout, blocks
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import nt_xent
from headwater.parts.ragged import ragged_of
from headwater.parts.spans import without_stretch
from headwater.parts.tokens import TextTokenizer
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Fast, Effective, and Self-Supervised: Transforming Masked Language Models into Universal Lexical and Sentence "
    "Encoders",
    year=2021,
    arxiv="2104.08027",
    differs="what is masked is a stretch of tokens, not of letters: the same for bytes, for pieces of words a shorter span "
    "suits; dropout falls on the embedding and on what each attention and MLP adds, not on the weights of attention; the mean "
    "passes over padding, where the reference's counts it; a mask token of its own, unless the vocabulary's is named; equal "
    "texts in a batch are not told apart; cosine decay of the rate instead of a constant one.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One stretch of `span` tokens is masked in texts of at least `least` (span 0: none, as for single words). `mask` is the
    id of the mask token in a vocabulary that has one, such as BERT's 103; -1 learns one. DropHead is
    `Dropout(rate=0.0, heads=0.05)`.
    """

    dropout: Dropout = Dropout(0.1)
    span: int = 5
    least: int = 30
    mask: int = -1
    temperature: float = 0.04

    def __post_init__(self) -> None:
        if self.span > self.least:
            raise RequestError(f"MirrorBERT: a span of {self.span} tokens does not fit in texts of least={self.least}.")

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # the encoder's own noise is the augmentation

    def build(self, encoders: Mapping[str, Encoder]) -> "MirrorBERT":
        return MirrorBERT(self, only_tokens(encoders, "MirrorBERT"))


SMALL = Config()
TINY = Config(span=2, least=3)


class MirrorBERT(Method):
    tokens = True
    modalities = ("text",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        blocks(encoder)
        self.config, self.encoder = config, encoder
        own = config.span and config.mask < 0
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.dim)) if own else None

    def loss(self, batch: Batch, step: Step) -> Loss:
        a, b = self.readings(batch.x["text"], step.rng)
        chance = torch.tensor(math.log(max(1, 2 * len(step.gather(a.detach())) - 1)))
        value = nt_xent(a.float(), b.float(), self.config.temperature, step.gather)  # too sharp for half precision
        return Loss(value, metrics={"chance": chance})

    def readings(self, x: Input, rng: Rng) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """What is pooled of each text as it is, and of the same with a stretch masked; dropout in both if it trains."""
        text = ragged_of(x)
        assert isinstance(text, Ragged)
        with self.config.dropout.within(self.encoder, rng):
            first = self.encoder(text).pooled
            if not self.config.span:
                return first, self.encoder(text).pooled
            masked, hidden = without_stretch(text, self.config.span, self.config.least, rng)
            return first, self.encoder(masked, hidden=hidden, stand_in=self._mask()).pooled

    def _mask(self) -> Float[Tensor, " d"]:
        if self.mask_token is not None:
            return self.mask_token
        tokenizer = self.encoder.tokenizer
        assert isinstance(tokenizer, TextTokenizer)
        return tokenizer.vectors(torch.tensor(self.config.mask, device=tokenizer.embed.weight.device))
