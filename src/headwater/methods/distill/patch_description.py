"""Patch description: a small network says of each patch what a large one says of it; so EfficientAD's teacher is made.

    corrupt   nothing; one picture in ten loses its colours
    encode    with convolutions whose every output sees 33 pixels, the student
    predict   the student's map as it is; there is no head
    target    maps of two stages of a large frozen network, each position with its neighbours, on the student's grid and in
              as many channels as it has, each channel in its own deviations

The first of two steps to find what is wrong with things; pictures of all sorts do for it, and it is done once:

    headwater pretrain patch-description --data pictures/ --encoder pdn-small --out runs/teacher
        --set method.teacher=hf:timm/wide_resnet101_2.tv_in1k
    headwater pretrain efficientad --encoder runs/teacher --data good/ --out runs/parts
    headwater predict --encoder runs/parts --data new/ --out scores.csv

The large network is a run, an encoder folder or hf:CHECKPOINT (of transformers, or a ResNet of timm, as the paper's is): a
ResNet, ConvNeXt, Swin or ViT. With none given it is an untrained one, which is enough to try things out. A ViT needs fewer
pixels: --set method.side=448.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Input, Loss, Ragged, Step
from headwater.core.verbs import Encoder, Method, Paper, only, values
from headwater.parts.convnet import ResNetConfig
from headwater.parts.frozen import Frozen
from headwater.parts.patchfeatures import PatchFeatures, layout, stage_maps
from headwater.parts.pdn import PDN
from headwater.parts.views import Chain, Grey, Resize, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies",
    year=2023,
    arxiv="2303.14535",
    differs="any network with maps teaches; the paper's, a WideResNet-101 (stages 2 and 3), has to be given; the blocks of a "
    "ViT count as four stages; the mean and deviation of channels are those on 256 pictures, not 10,000; a student without "
    "padding learns without it, its target being cut to the size of its map, where the code pads while it learns; what the "
    "student sees is the mean of 2 x 2 pixels of what the teacher sees, 224 and 448 pixels (there 256 and 512); AdamW, cosine, "
    "20,000 steps instead of 60,000.",
)
UNTRAINED = ResNetConfig(widths=(32, 64, 128), depths=(1, 1, 1), stem_stride=1)
AT_A_TIME = 16  # pictures that the teacher is asked about before the first step


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    teacher  a run or encoder folder, or hf:CHECKPOINT; its `stages` are counted from 1, the blocks of a ViT in quarters
    side     of the pictures that the teacher sees, in pixels; 0: so many that its first stage has the student's positions
    finer    the student sees pictures whose pixels are means of so many by so many of the view's
    """

    fit: ClassVar = "stretch"
    view: View = Chain(Resize(448), Grey(0.1))
    finer: int = 2
    teacher: str = ""
    stages: tuple[int, ...] = (2, 3)
    features: PatchFeatures = PatchFeatures()
    side: int = 0

    def viewed(self, kit: ViewKit) -> "Config":
        return self if kit.joint is None else replace(self, view=Chain(Resize(kit.joint.size), Grey(0.1)))

    def build(self, encoders: Mapping[str, Encoder], teacher: Encoder | None = None) -> "PatchDescription":
        student = only(encoders, "Patch description")
        if not isinstance(student, PDN):
            raise RequestError(
                f"Patch description trains a patch description network, and this is a {type(student).__name__}: give "
                "--encoder pdn-small."
            )
        return PatchDescription(self, student, teacher or replace(UNTRAINED, channels=student.config.channels).build())


SMALL = Config(finer=1, features=PatchFeatures(width=256))
TINY = Config(view=Resize(16), finer=1, features=PatchFeatures(width=24))


class PatchDescription(Method):
    modalities = ("image",)
    begins: ClassVar = {"image": "pdn-micro"}
    batch = 16
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, encoder: PDN, teacher: Encoder) -> None:
        super().__init__()
        self.config, self.encoder, self.teacher = config, encoder, Frozen(teacher)
        self.channels, self.spacing = layout(teacher, config.stages)
        ours = encoder.config.channels
        if self.channels != ours and ours != 1:
            raise RequestError(
                f"Patch description: the teacher sees pictures of {self.channels} channels, and these have {ours}."
            )
        self.register_buffer("mean", torch.zeros(encoder.dim, 1, 1))
        self.register_buffer("std", torch.ones(encoder.dim, 1, 1))

    @torch.no_grad()
    def begin(self, x: Input) -> None:
        """The mean and deviation of each channel of what the teacher says of these pictures."""
        total = square = torch.zeros(self.encoder.dim, dtype=torch.float64)
        n = 0
        for at in range(0, len(x), AT_A_TIME):
            few = slice(at, at + AT_A_TIME)
            some = Ragged(x.values[few], x.extent[few]) if isinstance(x, Ragged) else values(x)[few]
            seen = values(self.config.view(some, Rng(at)))
            said = self.told(seen, self.encoder.map(self.reduced(seen[:1])).shape[2:]).double()
            total, square = total + said.sum((0, 2, 3)), square + said.square().sum((0, 2, 3))
            n += said[:, 0].numel()
        mean = total / n
        self.mean = mean.float()[:, None, None]
        self.std = (square / n - mean.square()).clamp(min=1e-12).sqrt().float()[:, None, None]

    def reduced(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """What the student sees of a view."""
        return F.avg_pool2d(x, self.config.finer)

    @torch.no_grad()
    def told(self, x: Float[Tensor, "b c h w"], map_size: Sequence[int]) -> Float[Tensor, "b d p q"]:
        """What the teacher says of a view at each position of the student's map, in no unit. A grey view goes into each of the
        channels that the teacher sees."""
        margin = self.encoder.margin
        rows, columns = (side + 2 * margin for side in map_size)
        least = max(rows, columns) * self.spacing
        size = [self.config.side or max(least, side) for side in x.shape[2:]]
        x = x.expand(-1, self.channels, -1, -1)
        if size != [*x.shape[2:]]:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        maps = stage_maps(self.teacher.encoder, x, self.config.stages)
        said = self.config.features(maps, (rows, columns), self.encoder.dim)
        return said[:, :, margin : rows - margin, margin : columns - margin]

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = values(self.config.view(batch.x["image"], step.rng))
        said = self.encoder.map(self.reduced(x))
        target = (self.told(x, said.shape[2:]) - self.mean) / self.std
        error = (said - target).square().mean()
        return Loss(error, {"explained": 1 - error.detach()})
