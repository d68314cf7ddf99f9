"""MaskGCT: how someone sounds is taken from a prompt, and not known without."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from headwater.api.reproduce import Claim, Pair
from headwater.core.errors import WorkError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Loss, Step
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW
from headwater.methods.reconstruct.maskgct import Config, MaskGCT
from headwater.parts.codec import CodecConfig, Codes
from headwater.parts.codec_transformers import sound
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.losses import masked_mean
from headwater.parts.maskgit import Guidance
from headwater.parts.quantise import QuantiserConfig
from headwater.parts.timed import TimedConfig
from headwater.parts.tokens import SpectrogramTokenizerConfig, TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig

SPEAKERS, ENTRIES, LAYERS, LENGTH, PROMPT = 6, 16, 2, 24, 10
STEPS, ROWS, HELD = 500, 64, 240


class World:
    """What is said are runs of 2 to 4 equal semantic tokens; each speaker has a permutation of them per acoustic layer."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.voice = torch.rand(SPEAKERS, ENTRIES, LAYERS, generator=g).argsort(1)

    def utterances(self, n: int, g: torch.Generator, swapped: bool = False) -> Codes:
        """With `swapped`, the beginnings are said by others."""
        runs = torch.randint(2, 5, (n, LENGTH), generator=g).cumsum(1)
        said = torch.randint(ENTRIES, (n, LENGTH), generator=g)
        semantic = said.gather(1, torch.searchsorted(runs, torch.arange(LENGTH).expand(n, -1).contiguous(), right=True))
        speaker = torch.randint(SPEAKERS, (n, 1), generator=g).expand(n, LENGTH)
        if swapped:
            other = torch.randint(SPEAKERS, (n, 1), generator=g)
            speaker = torch.where(torch.arange(LENGTH) < PROMPT, other, speaker)
        return Codes(semantic, self.voice[speaker, semantic], torch.ones_like(semantic, dtype=torch.bool))


class Voices(MaskGCT):
    """The second stage alone, on tokens that are given."""

    def loss(self, batch: Batch, step: Step) -> Loss:
        semantic, acoustic = batch.x["semantic"], batch.x["acoustic"]
        assert isinstance(semantic, Tensor) and isinstance(acoustic, Tensor)
        codes = Codes(semantic, acoustic, torch.ones_like(semantic, dtype=torch.bool))
        return Loss(masked_mean(*self.sounds(codes, step.rng), step.gather))


def build() -> Voices:
    """Half of what is given while learning begins with a prompt; the encoders are there and not asked."""
    trunk = TransformerConfig(dim=16, depth=1, heads=2)
    tokenizers = SpectrogramTokenizerConfig(rate=8000, patch=(4, 16), mels=16), TextTokenizerConfig(vocabulary=8)
    audio, text = (TokenEncoderConfig(tokenizer=t, trunk=trunk).build() for t in tokenizers)
    codec = CodecConfig(
        semantic=QuantiserConfig(entries=ENTRIES), acoustic=QuantiserConfig(entries=ENTRIES, layers=LAYERS), width=8
    )
    sounder = TimedConfig(dim=64, depth=2, heads=4, hidden=128)
    config = Config(codec=codec, speaker=TimedConfig(dim=16, depth=1, heads=2), sounder=sounder)
    return Voices(config, audio, text)


def learned(seed: int, world: World, swapped: bool) -> Voices:
    torch.manual_seed(seed)
    method = build()

    def stream(start: int) -> Iterator[Batch]:
        for i in itertools.count(start):
            g = torch.Generator().manual_seed(1_000_000 * (seed + 1) + i)
            codes = world.utterances(ROWS, g, swapped)
            yield Batch({"semantic": codes.semantic, "acoustic": codes.acoustic})

    if not fit(method, stream, FitConfig(steps=STEPS, batch_size=ROWS, seed=seed, optimiser=AdamW(rate=2e-3))).done:
        raise WorkError("MaskGCT was asked to stop while its claim was measured; nothing is claimed.")
    return method.eval()


def measure(seed: int, swapped: bool = False) -> Pair:
    """The first layer beyond the prompt, when the prompt is heard and when it is not."""
    world = World(seed)
    method, config = learned(seed, world, swapped), build().config
    codes, beyond = world.utterances(HELD, torch.Generator().manual_seed(-1 - seed)), torch.arange(LENGTH) >= PROMPT
    found = []
    for heard in (True, False):
        given = (~beyond & heard).expand(HELD, -1)
        steps = replace(config.sounding, temperature=0.0, sureness=0.0)
        with torch.inference_mode():
            made = sound(method.sounder, codes, given, steps, (8, 1), Guidance(0.0), Rng(seed))
        hit = (made.acoustic == codes.acoustic)[..., 0][:, beyond]
        found.append(100 * float(hit.float().mean()))
    return Pair(*found)


CLAIM = Claim(
    paper="From a prompt of seconds, speech in its voice: on LibriSpeech a speaker similarity of 0.687 and a word error rate of "
    "2.6 %, where VALL-E has 0.50 and 5.9 % and VoiceBox 0.64 and 2.0 %.",
    claim="In a toy language whose speakers each turn semantic into acoustic tokens by permutations of their own, tokens of "
    "the first layer are those of the speaker of the prompt; without a prompt they are guesses among the six. Weaker than "
    "the paper: similarity, naturalness and words need speech, and scale.",
    data="a toy language of 16 semantic tokens, 6 speakers, 2 acoustic layers",
    metric="accuracy of acoustic tokens of the first layer beyond the prompt, %",
    direction="higher",
    baseline="the same model without the prompt",
    least=40.0,
    measure=measure,
    without="the voice of the prompts: while learning, what is said before is said by someone else",
    ablated=lambda seed: measure(seed, swapped=True),
)
