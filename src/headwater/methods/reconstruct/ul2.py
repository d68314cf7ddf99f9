"""UL2: take spans out of texts in seven ways, from a word here and there to half of all, and write what is missing.

    corrupt   each text by one of the denoisers: spans short or long, few or many, or the end; a sentinel for each span
    encode    a token that tells the mode of the denoiser, then what is left of the text
    predict   a decoder, word after word
    target    the data: each sentinel with the words that it stands for

The mode token tells the model what is asked of it, so that one model learns to fill in and to go on; afterwards a text to
`write` is marked with the mode that suits.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features, Input, Loss, Ragged, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.losses import masked_mean
from headwater.parts.ragged import ragged_of
from headwater.parts.seq2seq import DecoderConfig, T5Encoder
from headwater.parts.spans import Spans, hidden_spans, with_sentinels
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="UL2: Unifying Language Learning Paradigms",
    year=2022,
    arxiv="2205.05131",
    differs="the encoder-decoder alone, not the decoder with a prefix; texts are not packed to one length, each is corrupted "
    "by itself; span lengths are T5's random partition, not normally distributed (unverified); a text may begin with a span "
    "and need not end with one, which matters where texts are short; the share of the end that the S-denoiser takes is "
    "uniform with mean 25 % (unverified); AdamW with cosine decay instead of Adafactor with an inverse square root "
    "(unverified); T5 1.1's gated GELU rather than SwiGLU unless the encoder has that; the encoder that is handed on reads "
    "texts without a mode token.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Each text meets one of the `denoisers`, all equally likely. `decoder` is the depth of the half that writes; 0: that of
    the encoder."""

    denoisers: tuple[Spans, ...] = (
        Spans(3.0, 0.15, "NLU"),
        Spans(8.0, 0.15, "NLU"),
        Spans(math.inf, 0.25, "S2S"),
        Spans(3.0, 0.5, "NLG"),
        Spans(8.0, 0.5, "NLG"),
        Spans(64.0, 0.15, "NLG"),
        Spans(64.0, 0.5, "NLG"),
    )
    sentinels: int = 100
    decoder: int = 0

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # what the denoisers take out is all that changes

    def build(self, encoders: Mapping[str, Encoder]) -> "UL2":
        encoder = only(encoders, "UL2")
        if not isinstance(encoder, T5Encoder):
            raise RequestError("UL2 writes with the words of its encoder, which must be T5's, such as t5-micro.")
        return UL2(self, encoder)


SMALL = Config(decoder=2)
TINY = Config(decoder=1)


class UL2(Method):
    tokens = True
    modalities = ("text",)
    begins: ClassVar[Mapping[str, str]] = {"text": "t5-micro"}

    def __init__(self, config: Config, encoder: T5Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.modes = tuple(sorted({d.mode for d in config.denoisers}))
        self.first = encoder.config.tokenizer.vocabulary  # the ids of sentinels; then the end, the modes, the start
        self.end = self.first + config.sentinels
        start = self.end + 1 + len(self.modes)
        self.extra = nn.Parameter(torch.randn(start + 1 - self.first, encoder.dim))
        trunk = replace(encoder.config.trunk, depth=config.decoder or encoder.config.trunk.depth)
        self.decoder = DecoderConfig(trunk=trunk, head=self.end + 1, start=start, end=self.end).build()

    def loss(self, batch: Batch, step: Step) -> Loss:
        text = ragged_of(batch.x["text"])
        which = (step.rng.rand(len(text), 1)[:, 0] * len(self.config.denoisers)).long()
        source, target = self.corrupt(text, which, step.rng)
        counted = torch.arange(target.values.shape[1], device=target.values.device) < target.extent
        ids = target.values.masked_fill(~counted, -100)
        logits = self.decoder(ids, self.read(source), self.words)
        error = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        hit = masked_mean((logits.argmax(2) == ids).float(), counted)
        chance = torch.tensor(math.log(self.end + 1))
        return Loss(masked_mean(error, counted, step.gather), metrics={"accuracy": hit, "chance": chance})

    def corrupt(self, x: Input, which: Int[Tensor, " b"], rng: Rng) -> tuple[Ragged, Ragged]:
        """The texts as the denoisers of these numbers leave them, and what is to be written; the last token of each ends it
        and stays. Raises RequestError where the sentinels would not do for texts as long as these."""
        text, kinds, sentinels = ragged_of(x), self.config.denoisers, self.config.sentinels
        n = text.values.shape[1]
        noise, spans = (max(most) for most in zip(*(kind.most(n - 1) for kind in kinds), strict=True))
        if spans > sentinels:
            raise RequestError(
                f"UL2: texts of {n} tokens may lose {spans} spans, more than there are sentinels={sentinels}."
            )
        hidden = hidden_spans(text.extent[:, 0] - 1, which, kinds, n, rng)
        modes = which.new_tensor([self.modes.index(kind.mode) for kind in kinds])
        return self.ask(text, hidden, modes[which], noise + spans)

    def ask(
        self, x: Input, hidden: Bool[Tensor, "b n"], mode: Int[Tensor, " b"], most: int = 0
    ) -> tuple[Ragged, Ragged]:
        """What the model reads to be asked for the hidden words, in the mode of this number in `modes`; and what it is to
        write, of which there are at most `most` words and sentinels (0: there may be any number)."""
        text = ragged_of(x)
        assert isinstance(text, Ragged)
        source, target = with_sentinels(text, hidden, self.first, self.end, most or 2 * hidden.shape[1])
        return Ragged(torch.cat([self.end + 1 + mode[:, None], source.values], 1), source.extent + 1), target

    @property
    def words(self) -> Float[Tensor, "v d"]:
        """The vectors of all ids."""
        table = self.encoder.tokenizer.get_parameter("embed.weight")
        return torch.cat([table, self.extra.to(table)])

    def read(self, source: Ragged) -> Features:
        own = source.values >= self.first
        stand_in = F.embedding(source.values, self.words)
        return self.encoder(Ragged(source.values.masked_fill(own, 0), source.extent), hidden=own, stand_in=stand_in)

    @torch.no_grad()
    def write(self, source: Ragged, most: int) -> Ragged:
        """What the model writes, up to `most` ids, when it is asked with what `ask` makes: the likeliest word each time."""
        return self.decoder.generate(self.read(source), self.words, most)
