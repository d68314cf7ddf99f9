"""DINO: a student who sees any view of a sample must say what a slow teacher says of another, large one.

corrupt   two large crops for the teacher; those and several small ones for the student
encode    each with its own network, views of one size as one batch
predict   a distribution over prototypes
target    the teacher's distribution: centred, so no prototype takes all, and sharpened, so not all take the same
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.distilling import across_views, by_size
from headwater.parts.ema import Ema
from headwater.parts.heads import DINOHead
from headwater.parts.losses import entropy
from headwater.parts.schedules import Cosine, Ramp, Schedule
from headwater.parts.views import MultiCrop, dino_views
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Emerging Properties in Self-Supervised Vision Transformers",
    year=2021,
    arxiv="2104.14294",
    differs="constant weight decay; the centre starts at what the teacher says of the first batch, not at zero; frozen "
    "prototypes get a gradient of zero, not none; small data uses fewer prototypes, a faster and sharper teacher, and "
    "batch norm in the heads (an option of the authors' code).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`freeze` is the share of training for which prototypes stand still (a hundredth in the paper)."""

    views: MultiCrop = dino_views(224, 96, n_small=8)
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65_536
    head_norm: bool = False
    student_temperature: float = 0.1
    teacher_temperature: Schedule = Ramp(0.04, 0.07, until=0.3)
    centre_momentum: float = 0.9
    momentum: Schedule = Cosine(0.996, 1.0)
    freeze: float = 0.01

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, views=replace(self.views, large=kit.large, small=kit.small))

    def build(self, encoders: Mapping[str, Encoder]) -> "DINO":
        return DINO(self, only(encoders, "DINO"))


SMALL = Config(
    views=dino_views(64, 32, n_small=2),
    hidden=256,
    bottleneck=64,
    prototypes=64,
    head_norm=True,
    teacher_temperature=Ramp(0.02, 0.02),  # with the published one, a short run ends at a uniform answer
    momentum=Cosine(0.99, 1.0),
)
TINY = Config(  # a teacher so slow that the losses of a few dozen steps can be compared
    views=dino_views(16, 8, n_small=2), hidden=16, bottleneck=8, prototypes=12, momentum=Cosine(0.9999, 1.0)
)


class DINO(Method):
    centre: Tensor
    started: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = DINOHead(encoder.dim, config.hidden, config.bottleneck, config.prototypes, config.head_norm)
        self.teacher, self.teacher_head = Ema(encoder), Ema(self.head)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.register_buffer("started", torch.tensor(False))

    def loss(self, batch: Batch, step: Step) -> Loss:
        c = self.config
        views = c.views(batch.x[self.encoder.modality], step.rng)
        said = torch.cat(by_size(lambda v: self.teacher_head(self.teacher(v).pooled), views[: c.views.n_large]))
        frozen = step.progress < c.freeze
        guess = by_size(lambda v: self.head(self.encoder(v).pooled, frozen) / c.student_temperature, views)
        mean = step.gather(said.mean(0, keepdim=True)).mean(0)
        centre = torch.where(self.started, self.centre, mean)
        target = ((said - centre) / c.teacher_temperature(step.progress)).softmax(-1)
        most = torch.tensor(math.log(c.prototypes))
        metrics = {"chance": most, "teacher_entropy": entropy(target), "teacher_entropy_max": most}
        carry = {"centre": centre.lerp(mean, 1 - c.centre_momentum)}
        return Loss(across_views(target.chunk(c.views.n_large), guess), metrics, carry)

    @torch.no_grad()
    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.centre.copy_(carry["centre"])
        self.started.fill_(True)
        momentum = self.config.momentum(step.progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)

    def encoders(self) -> dict[str, Encoder]:
        """The teacher, which is the better of the two throughout training."""
        return {self.encoder.modality: self.teacher.encoder()}
