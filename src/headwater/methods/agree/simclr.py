"""SimCLR: two random views of a sample must recognise each other among all others in the batch.

    corrupt   two independent views
    encode    both, with one encoder
    predict   a projection head, thrown away afterwards
    target    the other view, against every other sample of the batch

The larger the batch, the harder the choice and the better the representation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.heads import mlp
from headwater.parts.losses import nt_xent
from headwater.parts.ragged import cat
from headwater.parts.views import Crop, View, simclr_view
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="A Simple Framework for Contrastive Learning of Visual Representations",
    year=2020,
    arxiv="2002.05709",
    differs="AdamW with cosine decay instead of LARS; the head ends in a batch norm without weights; small data uses a "
    "smaller head and a higher temperature.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    view: View = simclr_view(224)
    hidden: int = 2048
    out: int = 128
    temperature: float = 0.1

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.strong)

    def build(self, encoders: Mapping[str, Encoder]) -> "SimCLR":
        return SimCLR(self, only(encoders, "SimCLR"))


SMALL = Config(hidden=256, out=64, temperature=0.7)  # few classes and short training: a high temperature
TINY = Config(view=Crop(16, (0.6, 1.0)), hidden=16, out=8)


class SimCLR(Method):
    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = mlp(encoder.dim, config.hidden, config.out, last_norm=True)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x[self.encoder.modality]
        views = cat([self.config.view(x, step.rng) for _ in range(2)])
        a, b = self.head(self.encoder(views).pooled).chunk(2)
        chance = torch.tensor(math.log(2 * len(step.gather(a.detach())) - 1))
        return Loss(nt_xent(a, b, self.config.temperature, step.gather), metrics={"chance": chance})
