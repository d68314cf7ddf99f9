"""BYOL: predict what a slow copy of the network says of another view, without comparing to any other sample.

    corrupt   two views, drawn by two different recipes
    encode    both with the online network, both with its slow copy
    predict   from the online projection of one view ...
    target    ... the slow copy's projection of the other

The head that predicts and the slowness of the copy keep it from giving every sample the same answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.ema import Ema
from headwater.parts.heads import mlp
from headwater.parts.losses import cosine_distance
from headwater.parts.schedules import Cosine, Schedule
from headwater.parts.views import View, byol_views
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
    year=2020,
    arxiv="2006.07733",
    differs="AdamW with cosine decay instead of LARS; small data uses one recipe for both views, a smaller head and a "
    "faster teacher.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    views: tuple[View, View] = byol_views(224)
    hidden: int = 4096
    out: int = 256
    momentum: Schedule = Cosine(0.996, 1.0)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, views=(kit.strong, kit.strong))

    def build(self, encoders: Mapping[str, Encoder]) -> "BYOL":
        return BYOL(self, only(encoders, "BYOL"))


SMALL = Config(hidden=256, out=64, momentum=Cosine(0.99, 1.0))
TINY = Config(views=byol_views(16), hidden=16, out=8, momentum=Cosine(0.9, 1.0))


class BYOL(Method):
    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.projector = mlp(encoder.dim, config.hidden, config.out)
        self.predictor = mlp(config.out, config.hidden, config.out)
        self.slow_encoder, self.slow_projector = Ema(encoder), Ema(self.projector)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x[self.encoder.modality]
        a, b = (view(x, step.rng) for view in self.config.views)
        said = torch.stack([self.predictor(self.projector(self.encoder(v).pooled)) for v in (a, b)])
        wanted = torch.stack([self.slow_projector(self.slow_encoder(v).pooled) for v in (b, a)])
        return Loss(2 * cosine_distance(said, wanted))  # the sum over both directions

    @torch.no_grad()
    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        momentum = self.config.momentum(step.progress)
        self.slow_encoder.follow(self.encoder, momentum)
        self.slow_projector.follow(self.projector, momentum)
