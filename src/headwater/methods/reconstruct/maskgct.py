"""MaskGCT: speech becomes tokens of what is said and of how it sounds; from a text both are filled in, all places at once.

    corrupt   a random share of the tokens behind a random beginning, the prompt; text and prompt are left out now and then
    encode    the text with one encoder; with the other the sound, which a quantiser turns into semantic tokens
    predict   a transformer from text to semantic tokens, and one from those to the next layer of acoustic tokens
    target    the hidden tokens; and for the quantisers the data, log-mel patches

Afterwards `speak` fills in everything, the surest first, in the voice of a prompt if there is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.codec import Codec, CodecConfig, Codes
from headwater.parts.codec_transformers import SemanticToAcoustic, TextToSemantic, cross_entropy, sound, speak
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import masked_mean
from headwater.parts.maskgit import Guidance, Sampler, hide, prefix, share
from headwater.parts.quantise import QuantiserConfig
from headwater.parts.timed import TimedConfig
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="MaskGCT: Zero-Shot Text-to-Speech with Masked Generative Codec Transformer",
    year=2024,
    arxiv="2409.00750",
    differs="all stages learn together; semantic tokens are those of the encoder given, trained as a quantised autoencoder of "
    "log-mel patches, not of the frozen, standardised features of w2v-BERT 2.0, so plain sounds may come to share one; "
    "acoustic tokens come from log-mel patches, not from waves, and so does what is spoken, without a vocoder; small "
    "perceptrons around the quantisers instead of ConvNeXt and Vocos; texts as their encoder reads them, not phones; one "
    "model for all acoustic layers instead of two; text and prompt are left out independently of each other (unverified); "
    "the length is given or follows from the prompt, where the paper trains a predictor of it (unverified).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`prompts`: the longest share of a sound that is a prompt, from text to semantic and on to acoustic tokens; `alone`: how
    often there is none, and how often no text. `floor`: the least share hidden from text to semantic tokens.
    `guidance`: away from what is said without text or prompt. `steps` of the sampler, for each acoustic layer; the last
    counts for those beyond.
    """

    codec: CodecConfig = CodecConfig(
        semantic=QuantiserConfig(entries=8192), acoustic=QuantiserConfig(entries=1024, layers=12)
    )
    speaker: TimedConfig = TimedConfig(dim=1536, depth=16, heads=16)
    sounder: TimedConfig = TimedConfig(dim=1024, depth=16, heads=16)
    prompts: tuple[float, float] = (0.4, 0.5)
    alone: float = 0.15
    floor: float = 0.2
    guidance: Guidance = Guidance(weight=2.5, rescale=0.75)
    speaking: Sampler = Sampler(steps=25, temperature=0.9)
    sounding: Sampler = Sampler(temperature=1.5)
    steps: tuple[int, ...] = (25, 10, 1)

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # what is hidden is all that changes

    def build(self, encoders: Mapping[str, Encoder]) -> "MaskGCT":
        if set(encoders) != {"audio", "text"}:
            raise RequestError(f"MaskGCT learns from sounds and texts; got {', '.join(sorted(encoders)) or 'none'}.")
        audio, text = (only_tokens({m: encoders[m]}, "MaskGCT") for m in ("audio", "text"))
        if audio.tokenizer.rank != 1:
            raise RequestError("MaskGCT's tokens of sound stand in a row; take an encoder such as vit-micro/frames.")
        return MaskGCT(self, audio, text)


SMALL = Config(
    codec=CodecConfig(
        semantic=QuantiserConfig(entries=64), acoustic=QuantiserConfig(entries=64, layers=3), width=64, hidden=128
    ),
    speaker=TimedConfig(dim=96, depth=3, heads=3, hidden=256),
    sounder=TimedConfig(dim=96, depth=3, heads=3, hidden=256),
)
TINY = Config(
    codec=CodecConfig(
        semantic=QuantiserConfig(entries=8), acoustic=QuantiserConfig(entries=8, layers=2), width=8, hidden=16
    ),
    speaker=TimedConfig(dim=16, depth=1, heads=2),
    sounder=TimedConfig(dim=16, depth=1, heads=2),
)


class MaskGCT(Method):
    tokens = True
    together = 2
    modalities = ("audio", "text")
    begins: ClassVar[Mapping[str, str]] = {"audio": "vit-micro/frames"}

    def __init__(self, config: Config, audio: TokenwiseEncoder, text: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.text = config, text
        self.codec = Codec(config.codec, audio)
        semantic, acoustic = config.codec.semantic, config.codec.acoustic
        self.speaker = TextToSemantic(config.speaker, text.dim, semantic.entries)
        self.sounder = SemanticToAcoustic(config.sounder, semantic.entries, acoustic.layers, acoustic.entries)

    def encoders(self) -> dict[str, Encoder]:
        return {"audio": self.codec.encoder, "text": self.text}

    def loss(self, batch: Batch, step: Step) -> Loss:
        codes, cost = self.codec(batch.x["audio"])
        said, heard = self.says(self.text(batch.x["text"]), codes, step.rng), self.sounds(codes, step.rng)
        parts = {"codec": masked_mean(cost, codes.valid, step.gather)}
        parts |= {k: masked_mean(*v, step.gather) for k, v in {"semantic": said, "acoustic": heard}.items()}
        return Loss(sum(parts.values(), cost.new_zeros(())), metrics={k: v.detach() for k, v in parts.items()})

    def says(self, text: Features, codes: Codes, rng: Rng) -> tuple[Float[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """The error of each semantic token, and which of them were hidden."""
        config, draw = self.config, rng.rand(len(codes.semantic), 2)
        t, heard = draw[:, 0], draw[:, 1] >= config.alone
        prompt = prefix(codes.valid, config.prompts[0], config.alone, rng)
        hidden = hide(codes.valid & ~prompt, share(t).clamp(min=config.floor), rng)
        states = self.speaker(text, heard, codes.semantic, hidden, codes.valid, t)
        return cross_entropy(self.speaker.head(states), codes.semantic), hidden

    def sounds(self, codes: Codes, rng: Rng) -> tuple[Float[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """The error of each acoustic token of one layer per sample, low ones more often, and which of them were hidden."""
        draw, layers = rng.rand(len(codes.semantic), 2), self.sounder.layers
        odds = torch.arange(layers, 0, -1, device=draw.device).cumsum(0) / (layers * (layers + 1) / 2)
        layer = torch.searchsorted(odds, draw[:, 1].contiguous(), right=True).clamp(max=layers - 1)
        prompt = prefix(codes.valid, self.config.prompts[1], self.config.alone, rng)
        hidden = hide(codes.valid & ~prompt, share(draw[:, 0]), rng)
        states = self.sounder(codes.semantic, codes.acoustic, layer, hidden, prompt, codes.valid, draw[:, 0])
        return cross_entropy(
            self.sounder.head(states, layer), codes.acoustic[torch.arange(len(layer)), :, layer]
        ), hidden

    @torch.no_grad()
    def speak(self, text: Input, length: Int[Tensor, " b"], rng: Rng, prompt: Codes | None = None) -> Codes:
        """The tokens of texts, so many of each; those of `prompt` are the first of them, and its words those of the texts.
        `codec.decode` makes log-mel patches of them."""
        config, layers = self.config, self.sounder.layers
        if prompt is None:
            none = length.new_zeros(len(length), 0)
            prompt = Codes(none, none[..., None].expand(-1, -1, layers), none.bool())
        codes = speak(self.speaker, self.text(text), length, prompt, config.speaking, config.guidance, rng)
        given = torch.zeros_like(codes.valid)
        given[:, : prompt.valid.shape[1]] = prompt.valid
        return sound(self.sounder, codes, given, config.sounding, config.steps, config.guidance, rng)
