"""Views of texts: whole numbers `[b n]`, or `Ragged` where they differ in length; the last token of each ends it."""

from dataclasses import dataclass

import torch

from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.parts.ragged import packed, ragged_of
from headwater.parts.views.compose import check_range, check_within


@dataclass(frozen=True)
class Excerpt:
    """A stretch of U(scale) of each text, from which each token is left out with probability `drop`; the end stays.

    Cropping is what DeCLUTR (2020) makes its pairs by, deletion what CLEAR (2020) adds.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    drop: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "scale", self.scale, high=1.0)
        check_within(self, "drop", self.drop)

    def __call__(self, x: Input, rng: Rng) -> Ragged:
        text = ragged_of(x)
        b, n = text.values.shape
        body = (text.extent - 1).clamp(min=1)
        length = (rng.uniform(*self.scale, b, 1) * body).round().long().clamp(min=1)
        start = (rng.rand(b, 1) * (body - length + 1)).long().minimum(body - length)
        at = torch.arange(n, device=text.values.device)
        kept = (at >= start) & (at < start + length) & (rng.rand(b, n) >= self.drop)
        kept |= (at == start) | (at == text.extent - 1)
        return packed(text.values, kept, n)
