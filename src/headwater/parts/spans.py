"""Span corruption of texts: stretches of words are taken out, a sentinel stands for each, and they are what is to be
written (Raffel et al., 2020). Counts are exact; lengths are a random partition of them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Ragged
from headwater.parts.ragged import packed


@dataclass(frozen=True)
class Spans:
    """Hide round(ratio L) of the L tokens of a text, in spans of `length` on average that nowhere touch. Of infinite
    length: the end of the text alone, its share uniform in (0, 2 ratio). `mode` is what a text is marked with so that the
    model knows what is asked of it."""

    length: float
    ratio: float
    mode: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or not self.length >= 1 or (math.isinf(self.length) and self.ratio > 0.5):
            raise RequestError(
                f"Spans: a mean length of at least 1 and a ratio between 0 and 1 (for the end alone, up to 0.5); got "
                f"length={self.length} and ratio={self.ratio}."
            )

    def most(self, n: int) -> tuple[int, int]:
        """The most tokens and the most spans that are hidden of up to n tokens."""
        noise = max(1, round(n * self.ratio * (2 if math.isinf(self.length) else 1)))
        return noise, max(1, round(noise / self.length))


def hidden_spans(
    length: Int[Tensor, " b"], which: Int[Tensor, " b"], kinds: tuple[Spans, ...], n: int, rng: Rng
) -> Bool[Tensor, "b n"]:
    """What `kinds[which[i]]` hides of the first `length[i]` of n tokens. Of one token it hides that, of none nothing.

    A text may begin with a span and need not end with one. T5's own alternation begins with text, so that a single span
    is always the end: a mean length of 3 and a ratio of 0.15 would hide nothing else of texts of up to 30 tokens.
    """
    ratio, mean = (length.new_tensor([getattr(k, f) for k in kinds], dtype=torch.float64) for f in ("ratio", "length"))
    share = torch.where(mean[which].isinf(), 2 * rng.rand(len(length), 1)[:, 0].double(), 1.0) * ratio[which]
    noise = (length * share).round().long().clamp(min=1).minimum((length - 1).clamp(min=1)).minimum(length)
    clear = length - noise
    spans = (noise / mean[which]).round().long().clamp(min=1).minimum(noise).minimum(clear.clamp(min=1))
    most = 1 + max(kind.most(n)[1] for kind in kinds)
    number = torch.arange(most, device=length.device)
    between = partition(clear + 2, spans + 1, n + 2, most, rng)  # one too many where there may be nothing: before the
    between = between - (number == 0).long()  # first span, and behind the last, where nobody counts
    between = torch.where(mean[which].isinf()[:, None], clear[:, None] * (number == 0), between)
    pieces = torch.stack([between, partition(noise, spans, n, most, rng)], 2)
    at = torch.arange(n, device=length.device).expand(len(length), -1).contiguous()
    piece = torch.searchsorted(pieces.flatten(1).cumsum(1), at, right=True)
    return (piece % 2 == 1) & (at < length[:, None])


def partition(total: Int[Tensor, " b"], parts: Int[Tensor, " b"], n: int, most: int, rng: Rng) -> Int[Tensor, "b k"]:
    """`parts[i]` random whole numbers of at least 1 that sum to `total[i]`, up to n, every such sequence equally likely;
    zeros fill up to `most` of them."""
    at = torch.arange(n, device=total.device)
    score = rng.rand(len(total), n).masked_fill(at >= total[:, None] - 1, torch.inf)
    cut = score.argsort(1) < parts[:, None] - 1  # a part ends behind each of these
    part = F.pad(cut.cumsum(1), (1, -1)).clamp(max=most - 1)
    return total.new_zeros(len(total), most).scatter_add(1, part, (at < total[:, None]).long())


def with_sentinels(text: Ragged, hidden: Bool[Tensor, "b n"], first: int, end: int, most: int) -> tuple[Ragged, Ragged]:
    """The text with each hidden span replaced by the sentinel of its number, counted from `first`; and what is to be
    written, up to `most` ids: each sentinel and then its span, and `end`."""
    x, n = text.values, text.values.shape[1]
    begins = hidden & ~F.pad(hidden, (1, -1))
    sentinel = first + begins.cumsum(1) - 1
    real = torch.arange(n, device=x.device) < text.extent
    source = packed(torch.where(begins, sentinel, x), real & (begins | ~hidden), n)
    written = torch.stack([sentinel, x], 2).flatten(1)
    told = torch.stack([begins, hidden], 2).flatten(1)
    return source, packed(F.pad(written, (0, 1), value=end), F.pad(told, (0, 1), value=True), most + 1)


def without_stretch(text: Ragged, length: int, least: int, rng: Rng) -> tuple[Ragged, Bool[Tensor, "b n"]]:
    """Each text with one random stretch of `length` tokens taken out for a single one, which is marked; the last token of
    a text ends it and stays, and a text of fewer than `least` tokens before it stays whole."""
    body, n = text.extent - 1, text.values.shape[1]
    at = torch.arange(n, device=text.values.device)
    start = (rng.rand(len(text), 1) * (body - length + 1)).long().minimum(body - length)
    start = start.masked_fill(body < max(least, length), n)
    kept = (at < text.extent) & ((at <= start) | (at >= start + length))
    left = packed(text.values, kept, n)
    return left, (at == start)[:, : left.values.shape[1]]
