"""DINOv2: DINO over samples and iBOT over hidden patches, with equally used prototypes and features spread out.

corrupt   two large and several small crops; in one of the large crops, patches replaced by a mask token
encode    student: the masked large crops and the small ones; teacher: the large ones whole
predict   a distribution over prototypes per view, and one per hidden patch
target    the teacher's: of other views, and of the same patch unhidden, balanced by Sinkhorn-Knopp
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.distilling import across_views, by_size, one_masked
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.heads import DINOHeads
from headwater.parts.losses import entropy, koleo, masked_mean, sinkhorn, soft_cross_entropy
from headwater.parts.masks import BlockMask, MaskSampler, VaryingRatio
from headwater.parts.ragged import cat
from headwater.parts.schedules import Cosine, Ramp, Schedule
from headwater.parts.tokens import take
from headwater.parts.views import MultiCrop, dino_views
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="DINOv2: Learning Robust Visual Features without Supervision",
    year=2023,
    arxiv="2304.07193",
    differs="exactly one large crop of each sample is masked, by one box whose size is drawn per step (the authors' "
    "code masks half of all crops, by several boxes of mixed sizes); KoLeo looks for neighbours in everyone's batch; "
    "constant weight decay; no last phase at high resolution; small data uses fewer prototypes, a faster and sharper "
    "teacher, and batch norm in the heads (an option of the authors' code).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    views: MultiCrop = dino_views(224, 96, n_small=8)
    mask: MaskSampler = VaryingRatio(BlockMask(ratio=0.3), (0.1, 0.5))
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65_536
    head_norm: bool = False
    shared_head: bool = False
    student_temperature: float = 0.1
    teacher_temperature: Schedule = Ramp(0.04, 0.07, until=0.3)
    momentum: Schedule = Cosine(0.992, 1.0)
    freeze: float = 0.01
    patch_weight: float = 1.0
    koleo_weight: float = 0.1

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, views=replace(self.views, large=kit.large, small=kit.small))

    def build(self, encoders: Mapping[str, Encoder]) -> "DINOv2":
        return DINOv2(self, only_tokens(encoders, "DINOv2"))


SMALL = Config(
    views=dino_views(64, 32, n_small=2),
    hidden=256,
    bottleneck=64,
    prototypes=64,
    head_norm=True,
    teacher_temperature=Ramp(0.02, 0.02),  # with the published one, a short run ends at a uniform answer
    momentum=Cosine(0.99, 1.0),
)
TINY = Config(views=dino_views(16, 8, n_small=2), hidden=16, bottleneck=8, prototypes=12, head_norm=True)


class DINOv2(Method):
    tokens = True

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        c = config
        self.heads = DINOHeads(encoder.dim, c.hidden, c.bottleneck, c.prototypes, c.shared_head, c.head_norm)
        self.teacher, self.teacher_heads = Ema(encoder), Ema(self.heads)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def loss(self, batch: Batch, step: Step) -> Loss:
        c, n_large = self.config, self.config.views.n_large
        views = c.views(batch.x[self.encoder.modality], step.rng)
        large, small = cat(views[:n_large]), views[n_large:]
        masked = one_masked(c.mask, large, n_large, self.encoder.tokenizer, step.rng)

        told = self.teacher(large)
        said, said_patches = self.teacher_heads(told.pooled, take(told.tokens[masked.rows], masked.drop))
        heat = c.teacher_temperature(step.progress)
        target = sinkhorn(said, heat, step)
        target_patches = sinkhorn(said_patches.flatten(0, 1), heat, step).view_as(said_patches)

        frozen = step.progress < c.freeze
        seen = self.encoder(large, hidden=masked.hidden, stand_in=self.mask_token)
        guess, guess_patches = self.heads(seen.pooled, take(seen.tokens[masked.rows], masked.drop), frozen)
        crops = by_size(lambda v: self.heads.sample(self.encoder(v).pooled, frozen), small)
        logits = [z / c.student_temperature for z in [*guess.chunk(n_large), *crops]]

        dino = across_views(target.chunk(n_large), logits)
        error = soft_cross_entropy(target_patches, guess_patches / c.student_temperature)
        ibot = masked_mean(error, masked.counted, step.gather) / n_large  # a crop that hides nothing counts as zero
        spread = torch.stack([koleo(p, step.gather) for p in seen.pooled.chunk(n_large)]).sum()
        most = torch.tensor(math.log(c.prototypes))
        metrics = {"dino": dino.detach(), "ibot": ibot.detach(), "koleo": spread.detach()}
        metrics |= {"teacher_entropy": entropy(target), "teacher_entropy_max": most}
        return Loss(dino + c.patch_weight * ibot + c.koleo_weight * spread, metrics)

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        momentum = self.config.momentum(step.progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_heads.follow(self.heads, momentum)

    def encoders(self) -> dict[str, Encoder]:
        """The teacher, as in DINO."""
        return {self.encoder.modality: self.teacher.encoder()}
