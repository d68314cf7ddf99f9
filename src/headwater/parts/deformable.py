"""A detection transformer's decoder: queries that look at a few places each of a grid of tokens, and say boxes and classes.

Deformable DETR (Zhu et al., 2020) on one level. Boxes are (centre x, centre y, width, height) in shares of the picture.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.parts.boxes import from_centre
from headwater.parts.transformer import TransformerConfig, initialise, mlp

PRIOR = 0.01  # the score of every class before the first step (Lin et al., 2017)
SIDE = -2.0  # the logit of the sides of boxes before the first step: an eighth of the picture
LEAST = 1e-5  # shares are kept so far from 0 and 1 before they become logits


@dataclass(frozen=True)
class Detections:
    """What each layer says of each query: the logit of each class, the box, and the query itself (of the last layer)."""

    logits: Float[Tensor, "l b q k"]
    boxes: Float[Tensor, "l b q 4"]
    queries: Float[Tensor, "b q d"]

    def split(self, n: int) -> tuple["Detections", "Detections"]:
        """The first n queries, and the others."""
        cuts = zip(*(x.tensor_split([n], -2) for x in (self.logits, self.boxes, self.queries)), strict=True)
        first, rest = (Detections(*cut) for cut in cuts)
        return first, rest

    def layers(self) -> Iterator["Detections"]:
        """What each layer says by itself: all at once would need that many times the memory to compare with targets."""
        for logits, boxes in zip(self.logits, self.boxes, strict=True):
            yield Detections(logits[None], boxes[None], self.queries)

    def best(self) -> Float[Tensor, "b q 6"]:
        """Score, class, and box (left, top, right, bottom) of each query after the last layer, the highest score first."""
        score, kind = self.logits[-1].sigmoid().max(-1)
        said = torch.cat([score[..., None], kind[..., None], from_centre(self.boxes[-1]).clamp(0, 1)], -1)
        return said.gather(1, score.argsort(stable=True, dim=1, descending=True)[..., None].expand_as(said))


class PlacedAttention(nn.Module):
    """Self-attention whose queries and keys, not its values, are told where they stand."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "b q d"], place: Float[Tensor, "#b q d"], mask: Bool[Tensor, "q q"] | None = None
    ) -> Float[Tensor, "b q d"]:
        """`mask` is True where the query of a row may look at that of a column."""
        made = (self.q(x + place), self.k(x + place), self.v(x))
        q, k, v = (m.unflatten(2, (self.heads, -1)).transpose(1, 2) for m in made)
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return out


class DeformableAttention(nn.Module):
    """Each head of each query reads `points` places around its reference, bilinearly, and weighs them; both where and how
    much are linear in the query. Places outside the grid hold zeros."""

    def __init__(self, dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets, self.weights = nn.Linear(dim, heads * points * 2), nn.Linear(dim, heads * points)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.out):
            initialise(layer)
        turn = torch.arange(heads) * (2 * math.pi / heads)  # heads look in different directions, each point further
        way = torch.stack([turn.cos(), turn.sin()], -1)
        way = (way / way.abs().amax(-1, keepdim=True))[:, None] * (torch.arange(points) + 1)[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(way.flatten())

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        memory: Float[Tensor, "b n d"],
        reference: Float[Tensor, "b q r"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b q d"]:
        """`reference`: points (r = 2), around which offsets are in steps of the grid, or boxes (r = 4), in which they are in
        shares of half their sides. `memory` holds the tokens of `grid` (rows, columns), row by row."""
        b, q, _ = x.shape
        offset = self.offsets(x).view(b, q, self.heads, self.points, 2)
        weight = self.weights(x).view(b, q, self.heads, self.points).softmax(-1)
        if reference.shape[-1] == 2:
            offset = offset / offset.new_tensor([grid[1], grid[0]])
        else:
            offset = offset / self.points * reference[:, :, None, None, 2:] / 2
        place = (reference[:, :, None, None, :2] + offset).transpose(1, 2).flatten(0, 1)  # b heads, q, points, 2
        value = self.value(memory).transpose(1, 2).reshape(b * self.heads, -1, *grid)
        read = F.grid_sample(value, 2 * place - 1, mode="bilinear", padding_mode="zeros", align_corners=False)
        said = (read * weight.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # b heads, d / heads, q
        out: Tensor = self.out(said.view(b, -1, q).transpose(1, 2))
        return out


class DeformableBlock(nn.Module):
    """Self-attention, deformable attention, MLP; the norm comes after each sum."""

    def __init__(self, config: TransformerConfig, points: int) -> None:
        super().__init__()
        self.attention = PlacedAttention(config.dim, config.heads)
        self.cross = DeformableAttention(config.dim, config.heads, points)
        self.mlp = mlp(config)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.dim, config.eps) for _ in range(3))
        for module in (self.attention, self.mlp):
            module.apply(initialise)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        place: Float[Tensor, "#b q d"],
        memory: Float[Tensor, "b n d"],
        reference: Float[Tensor, "b q r"],
        grid: tuple[int, int],
        mask: Bool[Tensor, "q q"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        x = self.norm1(x + self.attention(x, place, mask))
        x = self.norm2(x + self.cross(x + place, memory, reference, grid))
        out: Tensor = self.norm3(x + self.mlp(x))
        return out


class DeformableDecoder(nn.Module):
    """Learned queries, in groups that never see each other, and boxes that every layer corrects.

    Of each query a learned half says where it stands, and with it the point it first looks around, and the other half is
    what it begins with. A layer corrects the box of the one before it, through which no gradient flows. `width` is that of
    the tokens.
    """

    def __init__(
        self, config: TransformerConfig, width: int, points: int, groups: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        self.groups, dim = groups, config.dim
        self.narrow = nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim, config.eps))
        self.queries = nn.Parameter(torch.randn(sum(groups), 2 * dim))
        self.blocks = nn.ModuleList(DeformableBlock(config, points) for _ in range(config.depth))
        self.point = nn.Linear(dim, 2)
        self.classify = nn.ModuleList(class_head(dim, classes) for _ in range(config.depth))
        sides = [SIDE, *[0.0] * (config.depth - 1)]
        self.correct = nn.ModuleList(box_head(dim, side) for side in sides)
        initialise(self.point)

    def forward(self, tokens: Float[Tensor, "b n w"], grid: tuple[int, int], groups: int | None = None) -> Detections:
        """What the queries of the first `groups` groups, or of all, say of these tokens."""
        sizes, memory = self.groups[:groups], self.narrow(tokens)
        place, x = self.queries[: sum(sizes)].expand(len(memory), -1, -1).chunk(2, -1)
        mask = isolated(sizes, memory.device) if len(sizes) > 1 else None
        reference = self.point(place).sigmoid()
        logits, boxes = [], []
        for block, classify, correct in zip(self.blocks, self.classify, self.correct, strict=True):
            x = block(x, place, memory, reference, grid, mask)
            box = correct(x)
            box = torch.cat([box[..., : reference.shape[-1]] + logit(reference), box[..., reference.shape[-1] :]], -1)
            logits.append(classify(x))
            boxes.append(box.sigmoid())
            reference = boxes[-1].detach()
        return Detections(torch.stack(logits), torch.stack(boxes), x)


def class_head(dim: int, classes: int) -> nn.Linear:
    layer = nn.Linear(dim, classes)
    nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))
    return layer


def box_head(dim: int, side: float) -> nn.Sequential:
    """Three layers that say four logits: at first zeros, and `side` for width and height."""
    last = nn.Linear(dim, 4)
    layers = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), last)
    layers.apply(initialise)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias[2:] = side
    return layers


def isolated(sizes: tuple[int, ...], device: torch.device) -> Bool[Tensor, "q q"]:
    """True where two queries are of one group."""
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    return group[:, None] == group


def logit(share: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The inverse of the sigmoid, of shares a little within 0 and 1."""
    share = share.clamp(LEAST, 1 - LEAST)
    return (share / (1 - share)).log()
