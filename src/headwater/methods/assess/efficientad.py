"""EfficientAD: a student copies a teacher on good pictures alone, and cannot copy it where something is wrong.

    corrupt   nothing; for the autoencoder brightness, contrast or saturation, a little
    encode    with a frozen network that sees 33 pixels at a time, the teacher
    predict   the teacher's map, by a student like it and by an autoencoder of the whole; the autoencoder's, by the student
    target    the teacher's map, in deviations of each channel; the student learns where it errs most, and says 0 of noise

Where teacher and student part, a patch is wrong; where student and autoencoder part, an arrangement; good pictures kept
aside bring both maps to one unit. Its teacher is made once, by `pretrain patch-description`, which tells all the steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only, values
from headwater.parts.losses import hardest
from headwater.parts.pdn import PDN
from headwater.parts.reconstructor import WholePicture
from headwater.parts.units import MapUnits
from headwater.parts.views import Resize, View
from headwater.parts.views.anomaly import one_of_three, pink
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies",
    year=2023,
    arxiv="2303.14535",
    differs="the teacher is untrained unless --encoder gives one, of patch-description or any other method; pictures of no "
    "domain are noise with the spectrum of natural images instead of ImageNet; the hardest features are those of each picture "
    "of a batch, not of one picture at a time; AdamW, cosine; 224 pixels where pictures are large; the teacher's mean and "
    "deviation are those on 256 pictures; the conformal threshold is ours. The published latencies and AUROCs need scale: "
    "taught by a small network that knew 1,500 shapes, a teacher was no better than untrained here (tried once).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    hard     the quantile of a picture's errors from which on they count; a picture is seen at a side of `size`
    width    of the autoencoder; `dropout` is in its decoder
    unit     quantiles of each map on good pictures that become 0 and 0.1
    alarms   the share of good pictures that may be called wrong
    """

    size: int = 224
    fit: ClassVar = "stretch"  # so that all of it is looked at
    view: View = Resize(224)
    hard: float = 0.999
    width: int = 64
    dropout: float = 0.2
    unit: tuple[float, float] = (0.9, 0.995)
    alarms: float = 0.05

    def viewed(self, kit: ViewKit) -> "Config":
        side = self.size if kit.joint is None else kit.joint.size
        return replace(self, size=side, view=Resize(side))

    def build(self, encoders: Mapping[str, Encoder]) -> "EfficientAD":
        return EfficientAD(self, only(encoders, "EfficientAD"))


SMALL = Config(hard=0.99, width=32, dropout=0.0)
TINY = Config(size=16, view=Resize(16), hard=0.9, width=8, dropout=0.0)


class EfficientAD(Method):
    modalities = ("image",)
    begins: ClassVar = {"image": "pdn-micro"}
    predicts = "anomalies"
    batch = 16
    holdout = 0.1  # of the good pictures: what the unit of the maps is taken from
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder, PDN):
            raise RequestError(
                f"EfficientAD's teacher is a patch description network, and this is a {type(encoder).__name__}: give "
                "--encoder pdn-small, or a run of another method with it, such as pretrain patch-description --encoder pdn-small."
            )
        self.config, self.teacher = config, encoder.requires_grad_(False)
        self.student = encoder.wider(2)
        with torch.no_grad():
            side = encoder.map(torch.zeros(1, encoder.config.channels, config.size, config.size)).shape[-1]
        self.auto = WholePicture(encoder.config.channels, encoder.dim, config.size, side, config.width, config.dropout)
        self.register_buffer("mean", torch.zeros(encoder.dim, 1, 1))
        self.register_buffer("std", torch.ones(encoder.dim, 1, 1))
        self.units = MapUnits(2, config.unit)

    def encoders(self) -> dict[str, Encoder]:
        return {"image": self.teacher}

    def train(self, mode: bool = True) -> "EfficientAD":
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def begin(self, x: Input) -> None:
        """The mean and deviation of each of the teacher's channels on good pictures."""
        said = self.teacher.map(self.config.view(x, Rng(0)))
        self.mean = said.mean((0, 2, 3))[:, None, None]
        self.std = said.std((0, 2, 3), correction=0).clamp(min=1e-6)[:, None, None]

    def target(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        with torch.no_grad():
            return (self.teacher.map(x) - self.mean) / self.std

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = values(self.config.view(batch.x["image"], step.rng))
        norm = self.teacher.normalise
        seen = norm(x)
        copied, _ = self.student(seen).chunk(2, 1)
        hard = hardest((self.target(x) - copied).square(), self.config.hard)
        outside = self.student(pink(seen.shape, step.rng).to(seen))[:, : self.teacher.dim].square().flatten(1).mean(1)
        changed = one_of_three(x, step.rng)
        whole, (_, followed) = self.auto(norm(changed)), self.student(norm(changed)).chunk(2, 1)
        auto = (self.target(changed) - whole).square().flatten(1).mean(1)
        follow = (whole - followed).square().flatten(1).mean(1)  # moves both, as in the reference
        parts = {"hard": hard, "outside": outside, "auto": auto, "follow": follow}
        return Loss((hard + outside + auto + follow).mean(), {k: v.detach().mean() for k, v in parts.items()})

    @torch.no_grad()
    def maps(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "2 b h w"]:
        """How far student and teacher part, and student and autoencoder, at the size of the picture, in no unit."""
        seen = self.teacher.normalise(x)
        copied, followed = self.student(seen).chunk(2, 1)
        two = torch.stack([(self.target(x) - copied).square().mean(1), (self.auto(seen) - followed).square().mean(1)])
        return F.interpolate(F.pad(two, (self.teacher.margin,) * 4), x.shape[2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def settle(self, pictures: Iterable[Input]) -> None:
        """The unit of each map and the threshold of alarms, from good pictures that were kept aside."""
        made = torch.cat([self.maps(values(self.config.view(x, Rng(0)))) for x in pictures], 1)
        self.units.settle(made, self.config.alarms)

    @torch.no_grad()
    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b h w"]:
        """How wrong each pixel is; the largest value is the picture's."""
        return torch.as_tensor(self.units(self.maps(values(self.config.view(batch.x["image"], step.rng)))))
