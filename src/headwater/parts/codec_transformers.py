"""Speech as tokens, in two stages: from texts to what is said, and from that to how it sounds (Wang et al., 2024, MaskGCT).
Both fill in what is hidden of a sequence, all places at once.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Features
from headwater.parts.codec import Codes
from headwater.parts.maskgit import Guidance, Sampler
from headwater.parts.timed import TimedConfig


class TextToSemantic(nn.Module):
    """[text | semantic tokens] in one sequence; what is made of the latter, and logits from that."""

    def __init__(self, config: TimedConfig, text: int, entries: int) -> None:
        super().__init__()
        self.read, self.table = nn.Linear(text, config.dim), nn.Embedding(entries, config.dim)
        self.mask = nn.Parameter(torch.randn(config.dim))
        self.trunk, self.head = config.build(), nn.Linear(config.dim, entries)

    def forward(
        self,
        text: Features,
        heard: Bool[Tensor, " b"],
        ids: Int[Tensor, "b n"],
        hidden: Bool[Tensor, "b n"],
        valid: Bool[Tensor, "b n"],
        t: Float[Tensor, " b"],
    ) -> Float[Tensor, "b n d"]:
        """Samples that do not hear their text are told nothing but the length. Sounds begin where their own text ends."""
        words = self.read(text.tokens)
        m, n = words.shape[1], ids.shape[1]
        real = valid.new_ones(len(ids), m) if text.valid is None else text.valid
        sound = torch.where(hidden[..., None], self.mask.to(words.dtype), self.table(ids).to(words.dtype))
        place = torch.arange(max(m, n), device=ids.device, dtype=torch.float32).expand(len(ids), -1)
        places = torch.cat([place[:, :m], real.sum(1, keepdim=True) + place[:, :n]], 1)[..., None]
        whole = torch.cat([real & heard[:, None], valid], 1)
        out: Tensor = self.trunk(torch.cat([words, sound], 1), t, whole, places)
        return out[:, m:]


class SemanticToAcoustic(nn.Module):
    """Frame by frame the semantic token and the acoustic tokens of layers known so far; the tokens of the next layer."""

    def __init__(self, config: TimedConfig, semantic: int, layers: int, entries: int) -> None:
        super().__init__()
        self.layers, self.entries = layers, entries
        self.said, self.layer = nn.Embedding(semantic, config.dim), nn.Embedding(layers, config.dim)
        self.table = nn.Embedding(layers * entries, config.dim)
        self.mask = nn.Parameter(torch.randn(config.dim))
        self.trunk = config.build()
        self.heads = nn.Parameter(torch.randn(layers, entries, config.dim) * config.dim**-0.5)

    def forward(
        self,
        semantic: Int[Tensor, "b n"],
        acoustic: Int[Tensor, "b n q"],
        layer: Int[Tensor, " b"],
        hidden: Bool[Tensor, "b n"],
        prompt: Bool[Tensor, "b n"],
        valid: Bool[Tensor, "b n"],
        t: Float[Tensor, " b"],
    ) -> Float[Tensor, "b n d"]:
        """Layers below `layer` are given, those above only in the prompt, and `layer` where it is not `hidden`; a mask vector
        stands for each token that is not given."""
        number = torch.arange(self.layers, device=layer.device)
        above = (number > layer[:, None])[:, None] & ~prompt[..., None]
        unknown = above | ((number == layer[:, None])[:, None] & hidden[..., None])
        x = self.said(semantic) + self.layer(layer)[:, None]
        for q, ids in enumerate(acoustic.unbind(2)):
            x = x + torch.where(unknown[..., q, None], self.mask.to(x.dtype), self.table(ids + q * self.entries))
        place = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[None, :, None].expand(len(x), -1, -1)
        out: Tensor = self.trunk(x, t, valid, place)
        return out

    def head(self, x: Float[Tensor, "b n d"], layer: Int[Tensor, " b"]) -> Float[Tensor, "b n k"]:
        return torch.einsum("bnd,bkd->bnk", x, self.heads[layer].to(x.dtype))


def cross_entropy(logits: Float[Tensor, "b n k"], ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")


def speak(
    speaker: TextToSemantic,
    text: Features,
    length: Int[Tensor, " b"],
    prompt: Codes,
    sampler: Sampler,
    guidance: Guidance,
    rng: Rng,
) -> Codes:
    """Semantic tokens of texts, so many of each (`length_like` tells how many), those of the prompt included; acoustic ones
    are zero beyond the prompt."""
    n, m = int(length.max()), prompt.valid.shape[1]
    if (length <= prompt.valid.sum(1)).any():
        raise RequestError(
            f"MaskGCT speaks beyond its prompt of {m} tokens; the shortest length is {int(length.min())}."
        )
    valid = torch.arange(n, device=length.device) < length[:, None]
    beyond = valid & ~F.pad(prompt.valid, (0, n - m))
    everyone = torch.ones_like(length, dtype=torch.bool)

    def say(ids: Tensor, hidden: Tensor, t: Tensor) -> Tensor:
        told, free = (speaker(text, heard, ids, hidden, valid, t) for heard in (everyone, ~everyone))
        logits: Tensor = speaker.head(guidance(told, free, beyond))
        return logits

    semantic = sampler(say, F.pad(prompt.semantic, (0, n - m)), beyond, rng)
    return Codes(semantic, F.pad(prompt.acoustic, (0, 0, 0, n - m)), valid)


def sound(
    sounder: SemanticToAcoustic,
    codes: Codes,
    given: Bool[Tensor, "b n"],
    sampler: Sampler,
    steps: tuple[int, ...],
    guidance: Guidance,
    rng: Rng,
) -> Codes:
    """The acoustic tokens of semantic ones, layer after layer, beyond those that are given."""
    acoustic, beyond = codes.acoustic, codes.valid & ~given
    for k in range(sounder.layers):
        layer = torch.full_like(acoustic[:, 0, 0], k)

        def say(ids: Tensor, hidden: Tensor, t: Tensor, known: Tensor = acoustic, layer: Tensor = layer) -> Tensor:
            known = known.index_copy(2, layer[:1], ids[..., None])
            told = sounder(codes.semantic, known, layer, hidden, given, codes.valid, t)
            free = sounder(codes.semantic, known, layer, hidden, given & False, beyond, t)
            return sounder.head(guidance(told, free, beyond), layer)

        found = replace(sampler, steps=steps[min(k, len(steps) - 1)])(say, acoustic[..., k], beyond, rng)
        acoustic = acoustic.index_copy(2, layer[:1], found[..., None])
    return Codes(codes.semantic, acoustic, codes.valid)


def length_like(prompt: Int[Tensor, " b"], read: Int[Tensor, " b"], words: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """How many tokens `words` words take at the pace of a prompt of so many tokens, which read so many words."""
    return (prompt * words / read.clamp(min=1)).round().long().clamp(min=1)
