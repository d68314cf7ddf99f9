"""Classification: name the class of each sample, from people's labels.

    corrupt   a random view, so that the network sees more than what was labelled
    encode    the view
    predict   one logit per class, linear in the pooled features
    target    the label; samples without one (-1) do not count

It trains from scratch, probes a frozen encoder (which then keeps its mode and its batch-norm statistics) and fine-tunes
an adapted one, according to which weights of the encoder ask for a gradient.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Features, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.heads import CosineHead
from headwater.parts.losses import masked_mean
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Deep Residual Learning for Image Recognition",
    year=2015,
    arxiv="1512.03385",
    differs="the ImageNet recipe for any encoder: Inception's resized crop instead of a resized shorter side, no PCA "
    "colour noise, optional label smoothing (Szegedy et al., 2015), AdamW with cosine decay instead of SGD in steps.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`head`: linear; cosine, by vectors of the classes; or none, where what the encoder pools are the scores themselves."""

    view: View = Crop(224)
    classes: int = 1000
    label_smoothing: float = 0.0
    head: Literal["linear", "cosine", "none"] = "linear"

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "Classify":
        return Classify(self, only(encoders, "Classify"))


SMALL = Config()
TINY = Config(view=Crop(16), classes=4)


class Classify(Method):
    predicts = "classes"

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head: nn.Module = nn.Identity()
        if config.head != "none":
            self.head = (nn.Linear if config.head == "linear" else CosineHead)(encoder.dim, config.classes)
        elif encoder.dim != config.classes:
            raise RequestError(
                f"Without a head {config.classes} scores are expected of the encoder; it gives {encoder.dim}."
            )

    def train(self, mode: bool = True) -> "Classify":
        super().train(mode)
        for module in self.encoder.modules():
            weights = list(module.parameters())
            if weights and not any(w.requires_grad for w in weights):
                module.eval()
        return self

    def loss(self, batch: Batch, step: Step) -> Loss:
        return self.judged(self.head(self.encoder(self.seen(batch, step)).pooled), batch, step)

    def seen(self, batch: Batch, step: Step) -> Input:
        return self.config.view(batch.x[self.encoder.modality], step.rng)

    def judged(self, logits: Float[Tensor, "b k"], batch: Batch, step: Step) -> Loss:
        if batch.y is None:
            raise RequestError(
                "Classify learns from labels; this data has none (labels come from folders or a column)."
            )
        error = F.cross_entropy(
            logits, batch.y, ignore_index=-1, reduction="none", label_smoothing=self.config.label_smoothing
        )
        labelled = batch.y >= 0
        hit = (logits.argmax(1) == batch.y).float()
        metrics = {
            "accuracy": masked_mean(hit, labelled, step.gather),
            "chance": torch.tensor(math.log(self.config.classes)),
        }
        return Loss(masked_mean(error, labelled, step.gather), metrics)

    @torch.no_grad()
    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b k"]:
        """The probability of each class; samples come as the encoder takes them, without a random view."""
        probabilities: Tensor = self.head(self.encoder(batch.x[self.encoder.modality]).pooled).softmax(1)
        return probabilities


class Scorer(Encoder):
    """A trained classifier seen as an encoder whose features are its class scores."""

    def __init__(self, method: Classify) -> None:
        super().__init__()
        self.method, self.modality, self.dim = method.eval(), method.encoder.modality, method.config.classes

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        features: Features = self.method.encoder(x)
        return replace(features, pooled=self.method.head(features.pooled))
