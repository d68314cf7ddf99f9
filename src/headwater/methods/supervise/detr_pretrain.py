"""Pre-training of detection transformers: a teacher's boxes on pictures that nobody labelled, or boxes found without one.

corrupt   a random crop or scaling, mirrored at random; boxes move with the picture
encode    the view: a grid of tokens
predict   decoder: from learned queries that look at the tokens, a score per class and a box each, corrected by every layer
target    the boxes and classes marked on the picture, by people or by `headwater predict` of a run of this very method; or
          boxes of high contrast, the class "object" and what a frozen network says of each cropped box (DETReg)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Annotations, Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, values
from headwater.parts.boxes import none
from headwater.parts.deformable import DeformableDecoder, Detections
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.matching import SetLoss, given_to, overlap, targets
from headwater.parts.proposals import ContrastBoxes, CropGuide
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import JointCrop, JointScale
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Revisiting DETR Pre-training for Object Detection",
    year=2023,
    arxiv="2308.01300",
    differs="the detector looks at the one grid of tokens that its encoder makes, not at several levels of a convolutional or "
    "Swin network, and adds no encoder layers; queries are learned (one stage), where H-Deformable-DETR takes them from the "
    "best tokens; no dropout; a prediction is the best class of each query, not the best pairs of query and class; the 30 "
    "boxes per picture are unverified, as are all schedules; AdamW has one rate for all weights; boxes without a teacher are "
    "random ones of high colour contrast (Alexe et al., 2012), not Selective Search's, found in each view; embeddings are "
    "asked of the last layer's one-to-one queries alone (unverified); the synthetic pool is any folder of pictures.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    decoder, points    its size, and the places that each head reads
    kinds              classes of boxes; found in the data
    queries            each true box is given to one of them, and these alone predict
    many, repeats      more queries for training alone, to so many of which each true box is given (H-DETR); 0: none
    many_weight        of their loss
    label, l1, giou    weights of the terms, in the matching too
    proposals          where the data have no boxes, find so many per picture; 0: data without boxes are refused
    teacher            of those, each query shall also say what this run or hf:CHECKPOINT says of the crop; "": nothing
    crop, embed        the side at which the teacher sees it, in pixels, and the weight of that
    frozen             only the decoder learns
    """

    joint: JointCrop | JointScale = JointScale(224)
    decoder: TransformerConfig = TransformerConfig(dim=256, depth=6, heads=8, activation="relu", eps=1e-5, norm="post")
    points: int = 4
    kinds: int = 80
    queries: int = 300
    many: int = 1500
    repeats: int = 6
    many_weight: float = 1.0
    label: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    proposals: int = 0
    teacher: str = ""
    crop: int = 128
    embed: float = 1.0
    frozen: bool = False

    def viewed(self, kit: ViewKit) -> "Config":
        return self if kit.joint is None else replace(self, joint=kit.joint)

    def look(self, x: Input, marks: Annotations | None, rng: Rng) -> tuple[Tensor, Annotations]:
        """A view of the pictures, and what is to be found on it. Raises RequestError where nothing says so."""
        if self.proposals:
            seen, _ = self.joint(x, none(b=len(x)).to(rng.device), rng)
            return seen, ContrastBoxes(self.proposals)(seen, rng)
        if marks is None:
            raise RequestError("DETRPretrain learns from boxes, and this data has none.")
        return self.joint(x, marks, rng)

    def marked(self, classes: Sequence[str]) -> "Config":
        """For data with boxes of these classes; without, there is one, "object"."""
        return replace(self, kinds=len(classes), proposals=0, teacher="") if classes else replace(self, kinds=1)

    def build(self, encoders: Mapping[str, Encoder], teacher: Encoder | None = None) -> "DETRPretrain":
        if self.teacher and not self.proposals:
            raise RequestError(
                f"DETRPretrain: teacher={self.teacher!r} judges boxes that are found; set proposals too."
            )
        return DETRPretrain(self, only_tokens(encoders, "DETRPretrain"), teacher)


NARROW = TransformerConfig(dim=64, depth=2, heads=4, activation="relu", eps=1e-5, norm="post")
SMALL = Config(decoder=NARROW, queries=20, many=60, repeats=4, crop=32)
TINY = Config(joint=JointCrop(16), decoder=replace(NARROW, dim=16, heads=2), kinds=3, queries=6, many=8, repeats=2)


class DETRPretrain(Method):
    tokens = True
    modalities = ("image",)
    boxes = True
    predicts = "boxes"
    by_class = ("decoder.classify.",)
    forgotten = ("guide.",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder, teacher: Encoder | None = None) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        groups = (config.queries, config.many) if config.many else (config.queries,)
        self.decoder = DeformableDecoder(config.decoder, encoder.dim, config.points, groups, config.kinds)
        self.terms = SetLoss(label=config.label, l1=config.l1, giou=config.giou)
        self.guide = None
        if teacher is not None and config.proposals:
            self.guide = CropGuide(teacher, config.decoder.dim, config.crop)
        if config.frozen:
            encoder.requires_grad_(False)

    def loss(self, batch: Batch, step: Step) -> Loss:
        config, gather = self.config, step.gather
        x, marks = config.look(batch.x[self.encoder.modality], batch.annotations, step.rng)
        wanted = targets(marks, (x.shape[2], x.shape[3]))
        one, many = self.find(x).split(config.queries)
        value, given = self.terms(one, wanted, gather)
        metrics = {"one_to_one": value.detach(), "overlap": overlap(one, wanted, given[-1], gather)}
        if config.many:
            more, _ = self.terms(many, wanted.times(config.repeats), gather)
            value, metrics["one_to_many"] = value + config.many_weight * more, more.detach()
        if self.guide is not None:
            off = self.guide(given_to(one.queries, given[-1]), x, marks.boxes, given[-1] >= 0, gather)
            value, metrics["embedding"] = value + config.embed * off, off.detach()
        return Loss(value, metrics)

    def find(self, x: Float[Tensor, "b c h w"], groups: int | None = None) -> Detections:
        rows, columns = self.encoder.tokenizer.grid(x)
        found: Detections = self.decoder(self.encoder(x).tokens, (rows, columns), groups)
        return found

    @torch.no_grad()
    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b q 6"]:
        """Score, class, and box (left, top, right, bottom, in shares of the picture) of each query, the best first."""
        return self.find(values(batch.x[self.encoder.modality]), 1).best()
