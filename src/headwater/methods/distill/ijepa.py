"""I-JEPA: from one large seen block, predict a slow teacher's features of several hidden ones.

corrupt   a context block, with the target blocks cut out of it
encode    the context alone with the student, the whole input with the teacher
predict   a narrow transformer, asked about one target block at a time by mask tokens at its places
target    the teacher's tokens there, each standardised
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.jepa import LatentPredictor
from headwater.parts.losses import masked_mean, standardise_tokens
from headwater.parts.masks import MultiBlock
from headwater.parts.schedules import Ramp, Schedule
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture",
    year=2023,
    arxiv="2301.08243",
    differs="smooth L1 as in the authors' code (the paper writes L2); class and register tokens stay out of the "
    "predictor; constant weight decay; small data uses a smaller predictor, contexts of at least a quarter, and a "
    "slower teacher. Hands on the student where the paper evaluates the teacher, which in short runs lags behind it.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    view: View = Crop(224, (0.3, 1.0), flip=0.0, kind="bicubic")
    mask: MultiBlock = MultiBlock()
    predictor: TransformerConfig = TransformerConfig(dim=384, depth=6, heads=12)
    momentum: Schedule = Ramp(0.996, 1.0)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "IJEPA":
        return IJEPA(self, only_tokens(encoders, "I-JEPA"))


SMALL = Config(
    mask=MultiBlock(min_context=0.25),
    predictor=TransformerConfig(dim=64, depth=2, heads=4),
    momentum=Ramp(0.999, 1.0),  # slower than published: a short run with a quick teacher collapses
)
TINY = Config(view=Crop(16), mask=MultiBlock(min_context=0.25), predictor=TransformerConfig(dim=16, depth=1, heads=2))


class IJEPA(Method):
    tokens = True

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.teacher = Ema(encoder)
        self.predictor = LatentPredictor(config.predictor, encoder.dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid = tokenizer.valid(x)
        context, target = self.config.mask(len(x), tokenizer.grid(x), step.rng)
        guess = self.predict_blocks(x, context, target, valid)
        error = F.smooth_l1_loss(guess, take(self.target(x), target.flatten(1)), reduction="none").mean(-1)
        counted = None if valid is None else valid.gather(1, target.flatten(1))
        return Loss(masked_mean(error, counted, step.gather))

    def predict_blocks(
        self, x: Input, context: Int[Tensor, "b k"], target: Int[Tensor, "b t m"], valid: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b tm d"]:
        """What the predictor says of the places of all target blocks; no block knows which others are asked about."""
        seen, places = self.encoder(x, keep=context).tokens, self.encoder.tokenizer.places(x)
        said: Tensor = self.predictor(seen, context, target, places, valid)
        return said

    def target(self, x: Input) -> Float[Tensor, "b n d"]:
        return standardise_tokens(self.teacher(x).tokens)

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.teacher.follow(self.encoder, self.config.momentum(step.progress))
