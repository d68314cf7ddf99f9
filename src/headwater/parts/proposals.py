"""Boxes around what may be an object, without learning: random boxes whose colours differ from those around them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.rng import Rng
from headwater.core.types import Annotations
from headwater.core.verbs import Encoder
from headwater.parts.boxes import clip, from_centre, iou
from headwater.parts.frozen import Frozen
from headwater.parts.losses import Gather, masked_mean

LEVELS = 4  # of each colour
SEEN = 128  # pixels: larger pictures are looked at in this size
COLOURS = 3  # channels looked at


@dataclass(frozen=True)
class ContrastBoxes:
    """The `n` of `drawn` random boxes with the most colour contrast: the chi-square distance between the histogram of
    colours in the box and that of the ring around it, `wide` times as wide and high as the box, which is the second cue of
    Alexe et al. (2012). Of boxes that overlap by more than `overlap` the better one stays. Sides are shares of the picture,
    between those of `side`.
    """

    n: int = 30
    drawn: int = 1000
    side: tuple[float, float] = (0.1, 0.7)
    wide: float = 1.5
    overlap: float = 0.5

    def __call__(self, x: Float[Tensor, "b c h w"], rng: Rng) -> Annotations:
        """Boxes in pixels, the best first; all of class 0. Where fewer than `n` are left, the rest is filled up."""
        b, (height, width) = len(x), x.shape[2:]
        seen = x if max(height, width) <= SEEN else F.interpolate(x, (SEEN, SEEN), mode="area")
        low, high = (torch.tensor(v, device=x.device).log() for v in self.side)
        sides = (low + (high - low) * rng.rand(b, self.drawn, 2)).exp()
        boxes = from_centre(torch.cat([sides / 2 + (1 - sides) * rng.rand(b, self.drawn, 2), sides], -1))
        chosen, kept = spread_out(boxes, contrast(seen, boxes, self.wide), self.n, self.overlap)
        found = boxes.gather(1, chosen[..., None].expand(-1, -1, 4)) * x.new_tensor([width, height] * 2)
        return Annotations(found * kept[..., None], torch.where(kept, 0, -1))


def contrast(x: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b n 4"], wide: float) -> Float[Tensor, "b n"]:
    """The chi-square distance of colours in each box (edges in shares of the picture) and around it, between 0 and 2; 0
    where there is no pixel in it or around it. Sums over boxes are differences of four entries of an integral image."""
    size = torch.tensor(x.shape[2:], device=x.device)
    total = integral(histogram(x))
    outer = ((1 + wide) * boxes - (wide - 1) * boxes[..., [2, 3, 0, 1]]) / 2
    whole = size.flip(0).repeat(2)
    inner, outer = (clip(edges * whole, size).round().long() for edges in (boxes, outer))
    inside = summed(total, inner)
    ring = summed(total, outer) - inside
    n, m = (v.sum(-1, keepdim=True) for v in (inside, ring))
    p, q = inside / n.clamp(min=1), ring / m.clamp(min=1)
    distance = ((p - q).square() / (p + q).clamp(min=1e-9)).sum(-1)
    return distance * ((n > 0) & (m > 0))[..., 0]


def histogram(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """1 at the colour of each pixel: the first three channels, each in levels between its least and its most."""
    x = x[:, :COLOURS]
    low, high = (f(x, (2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    level = ((x - low) / (high - low).clamp(min=1e-6) * LEVELS).long().clamp(max=LEVELS - 1)
    place = LEVELS ** torch.arange(x.shape[1], device=x.device)[:, None, None]
    return F.one_hot((level * place).sum(1), LEVELS ** x.shape[1]).permute(0, 3, 1, 2).to(x.dtype)


def integral(x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k i j"]:
    """Entry (i, j): the sum over the first i rows and j columns."""
    return F.pad(x.cumsum(2).cumsum(3), (1, 0, 1, 0))


def summed(total: Float[Tensor, "b k i j"], boxes: Int[Tensor, "b n 4"]) -> Float[Tensor, "b n k"]:
    """The sums over boxes of whole pixels, from an integral image."""
    left, top, right, bottom = boxes.unbind(-1)
    flat, wide = total.flatten(2), total.shape[3]

    def entry(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(2, (row * wide + column)[:, None].expand(-1, flat.shape[1], -1))

    return (entry(bottom, right) - entry(top, right) - entry(bottom, left) + entry(top, left)).transpose(1, 2)


def spread_out(
    boxes: Float[Tensor, "b n 4"], score: Float[Tensor, "b n"], k: int, overlap: float
) -> tuple[Int[Tensor, "b k"], Bool[Tensor, "b k"]]:
    """The k boxes of the highest score of which none overlaps a better one by more than `overlap`, and which of those k
    there are: greedy, all pictures at once."""
    left, chosen, kept = score.clone(), [], []
    for _ in range(k):
        best = left.argmax(1)
        kept.append(left.gather(1, best[:, None])[:, 0] > -torch.inf)
        chosen.append(best)
        taken = boxes.gather(1, best[:, None, None].expand(-1, 1, 4))
        left = left.masked_fill(iou(boxes, taken) > overlap, -torch.inf)
    return torch.stack(chosen, 1), torch.stack(kept, 1)


class CropGuide(nn.Module):
    """What a frozen network says of each cropped box, to be said by the query that found it (DETReg; Bar et al., 2021)."""

    def __init__(self, teacher: Encoder, width: int, side: int) -> None:
        super().__init__()
        self.teacher, self.say, self.side = Frozen(teacher), nn.Linear(width, teacher.dim), side

    def forward(
        self,
        queries: Float[Tensor, "b n d"],
        x: Float[Tensor, "b c h w"],
        boxes: Float[Tensor, "b n 4"],
        real: Bool[Tensor, "b n"],
        gather: Gather,
    ) -> Float[Tensor, ""]:
        """The mean absolute difference, over the real boxes (edges in pixels) of everyone's batch."""
        said = self.say(queries)
        told = self.teacher(cut_out(x, boxes, self.side).flatten(0, 1)).pooled.view_as(said)
        return masked_mean((said - told).abs().mean(-1), real, gather)


def cut_out(x: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b n 4"], side: int) -> Float[Tensor, "b n c s s"]:
    """What is in each box (edges in pixels), read bilinearly at side × side places."""
    n = boxes.shape[1]
    step = (torch.arange(side, device=x.device) + 0.5) / side
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    across, down = (low + (high - low) * step[:, None]).unbind(-1)  # b n side
    place = torch.stack([across[:, :, None].expand(-1, -1, side, -1), down[..., None].expand(-1, -1, -1, side)], -1)
    half = x.new_tensor([x.shape[3] / 2, x.shape[2] / 2])
    read = F.grid_sample(x, place.flatten(1, 2) / half - 1, padding_mode="border", align_corners=False)
    return read.unflatten(2, (n, side)).transpose(1, 2)
