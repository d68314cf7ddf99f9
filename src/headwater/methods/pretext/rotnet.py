"""RotNet: turn each picture by every multiple of 90 degrees and tell by how much.

    corrupt   all four quarter turns of each picture, by moving pixels only
    encode    the turned picture
    predict   four logits
    target    the number of quarter turns, a label the corruption made

To see which way is up, a network has to know what it looks at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only, values
from headwater.parts.views import CentreCrop, Crop, View, rotations
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Unsupervised Representation Learning by Predicting Image Rotations",
    year=2018,
    arxiv="1803.07728",
    differs="the head is linear on the encoder's pooled features, so any encoder serves, and the features handed on "
    "are the last ones, not those of an inner block; a resized crop and mirror image instead of a shift and mirror "
    "image; AdamW with cosine decay instead of SGD in steps.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`view` comes before the turns: nothing after them may depend on a direction."""

    view: View = Crop(224, (0.6, 1.0))

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "RotNet":
        return RotNet(self, only(encoders, "RotNet"))


SMALL = Config()
TINY = Config(view=CentreCrop(16, 1.0))


class RotNet(Method):
    modalities = ("image",)

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = nn.Linear(encoder.dim, 4)

    def loss(self, batch: Batch, step: Step) -> Loss:
        turned, turns = rotations(values(self.config.view(batch.x[self.encoder.modality], step.rng)))
        logits = self.head(self.encoder(turned).pooled)
        hit = (logits.argmax(1) == turns).float().mean()
        return Loss(F.cross_entropy(logits, turns), metrics={"accuracy": hit, "chance": torch.tensor(math.log(4))})
