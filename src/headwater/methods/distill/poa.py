"""POA: distil, beside the student, a smaller network cut out of it anew at every step: one run makes models of all sizes.

corrupt   two large and several small crops; in one of the large crops, patches replaced by a mask token
encode    teacher: the large ones whole; student and its slice: the masked large ones and the small ones
predict   distributions over prototypes by several heads, per view and per hidden patch
target    the teacher's, balanced by Sinkhorn-Knopp; for the slice also the student's of the same view
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.distilling import OneMasked, across_views, by_size, one_masked
from headwater.parts.elastic import Slice, Walk, check_elastic, encode, slices, widened
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenEncoder
from headwater.parts.heads import DINOHead
from headwater.parts.losses import entropy, koleo, masked_mean, sinkhorn, soft_cross_entropy
from headwater.parts.masks import BlockMask, MaskSampler, VaryingRatio
from headwater.parts.ragged import cat
from headwater.parts.schedules import Cosine, Ramp, Schedule
from headwater.parts.tokens import take
from headwater.parts.views import MultiCrop, dino_views
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="POA: Pre-training Once for Models of All Sizes",
    year=2024,
    arxiv="2408.01031",
    differs="vision transformers alone, not Swin or ResNet; exactly one large crop of each sample is masked, by one box (the "
    "authors' code masks half of all crops, by several); views are summed up by whatever the encoder pools, its class token "
    "if it has one; drop path and layer scale only if the encoder has them; the input scale of heads and blocks as in the "
    "authors' code, folded into weights; no layer-wise decay of the rate and none of its own for the patch embedding; "
    "constant weight decay; the first order of slices is drawn with the initial weights; small data uses one head, fewer "
    "prototypes, a faster and sharper teacher, and batch norm in the head. Numbers of its results are (unverified). "
    "`parts.elastic.extract` cuts an encoder of any size from the teacher.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`least`: the share of the width and of the depth that the smallest network has, of which `often` says how much more
    often it is drawn than the largest. `student_weight` is the paper's lambda. Patches are hidden, and
    count, from `patches_from` on."""

    views: MultiCrop = dino_views(224, 96, n_small=8, split=0.32)
    mask: MaskSampler = VaryingRatio(BlockMask(ratio=0.3), (0.1, 0.5))
    least: tuple[float, float] = (0.375, 0.5)
    often: int = 3
    student_weight: float = 0.8
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: tuple[int, ...] = (8192, 16_384, 32_768, 65_536)
    head_norm: bool = False
    student_temperature: float = 0.1
    teacher_temperature: Schedule = Ramp(0.04, 0.07, until=0.087)
    momentum: Schedule = Cosine(0.992, 0.9999)
    freeze: float = 0.003
    patches_from: float = 0.087
    koleo_weight: float = 0.1

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, views=replace(self.views, large=kit.large, small=kit.small))

    def build(self, encoders: Mapping[str, Encoder]) -> "POA":
        return POA(self, check_elastic(only(encoders, "POA"), "POA"))


SMALL = Config(
    views=dino_views(64, 32, n_small=2), least=(1 / 3, 0.5), hidden=256, bottleneck=64, prototypes=(64,), head_norm=True,
    teacher_temperature=Ramp(0.02, 0.02), momentum=Cosine(0.99, 1.0),
)  # fmt: skip
TINY = Config(views=dino_views(16, 8, n_small=2), hidden=16, bottleneck=8, prototypes=(12, 8), head_norm=True)


class POA(Method):
    tokens = True
    modalities = ("image",)

    def __init__(self, config: Config, encoder: TokenEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.walk = Walk(slices(encoder.config.transformer, config.least), config.often)
        c = config
        self.heads = nn.ModuleList(DINOHead(encoder.dim, c.hidden, c.bottleneck, k, c.head_norm) for k in c.prototypes)
        self.teacher, self.teacher_heads = Ema(encoder), nn.ModuleList(Ema(head) for head in self.heads)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def loss(self, batch: Batch, step: Step) -> Loss:
        c, n = self.config, self.config.views.n_large
        views = c.views(batch.x[self.encoder.modality], step.rng)
        large, small = cat(views[:n]), views[n:]
        masked = one_masked(c.mask, large, n, self.encoder.tokenizer, step.rng)
        counts = step.progress >= c.patches_from
        told = self.teacher(large)
        told_patches = take(told.tokens[masked.rows], masked.drop)
        said = [self.branch(to, large, small, masked, counts) for to in (None, self.walk.now())]
        heat, frozen = c.teacher_temperature(step.progress), step.progress < c.freeze
        found: dict[str, list[Tensor]] = {"student": [], "slice": [], "same": [], "teacher_entropy": []}
        for head, teacher in zip(self.heads, self.teacher_heads, strict=True):
            target = sinkhorn(teacher(told.pooled), heat, step)
            target_patches = sinkhorn(teacher(told_patches).flatten(0, 1), heat, step).view(*told_patches.shape[:2], -1)
            logits = [head(pooled, frozen) / c.student_temperature for pooled, _ in said]
            for name, own, (_, patches) in zip(("student", "slice"), logits, said, strict=True):
                error = soft_cross_entropy(target_patches, head(patches, frozen) / c.student_temperature)
                ibot = counts * masked_mean(error, masked.counted, step.gather) / n
                found[name].append(across_views(target.chunk(n), own.chunk(len(views))) + ibot)
            same = soft_cross_entropy(logits[0].detach().softmax(-1), logits[1])
            found["same"].append(same[: len(large)].mean() + same[len(large) :].sum() / max(1, len(same) - len(large)))
            found["teacher_entropy"].append(entropy(target))
        terms = {name: torch.stack(values).mean() for name, values in found.items()}
        crops = [crop for pooled, _ in said for crop in pooled.chunk(len(views))[:n]]
        spread = torch.stack([koleo(crop, step.gather) for crop in crops]).sum() / 2
        w = c.student_weight
        value = w * terms["student"] + (1 - w) * (terms["slice"] + terms["same"]) + c.koleo_weight * spread
        most = torch.tensor([math.log(k) for k in c.prototypes]).mean()
        metrics = {**{k: v.detach() for k, v in terms.items()}, "koleo": spread.detach(), "teacher_entropy_max": most}
        return Loss(value, metrics)

    def branch(
        self, to: Slice | None, large: Input, small: list[Input], masked: OneMasked, hides: bool
    ) -> tuple[Tensor, Tensor]:
        """What the student, or a slice of it, makes of all views, one after the other, and of the masked patches, as wide as
        the heads take it."""
        network = self.encoder if to is None else partial(encode, self.encoder, to)
        seen = network(large, hidden=masked.hidden & hides, stand_in=self.mask_token)
        pooled = torch.cat([seen.pooled, *by_size(lambda v: network(v).pooled, small)])
        patches = take(seen.tokens[masked.rows], masked.drop)
        return widened(pooled, self.encoder.dim), widened(patches, self.encoder.dim)

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        momentum = self.config.momentum(step.progress)
        self.teacher.follow(self.encoder, momentum)
        for teacher, head in zip(self.teacher_heads, self.heads, strict=True):
            assert isinstance(teacher, Ema)
            teacher.follow(head, momentum)
        self.walk.go_on(step.rng.host)

    def encoders(self) -> dict[str, Encoder]:
        """The teacher, from which any size can be cut."""
        return {self.encoder.modality: self.teacher.encoder()}
