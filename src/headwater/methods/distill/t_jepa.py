"""T-JEPA: from a few columns of a row, predict a slow teacher's features of others; no augmentation is needed.

corrupt   a random set of columns is seen; several other sets are asked for
encode    the seen columns alone with the student, the whole row with the teacher, a regularisation token beside both
predict   a narrow transformer, asked about one set at a time by mask tokens that say which columns they stand for
target    the teacher's tokens of these columns, as they are
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.jepa import LatentPredictor
from headwater.parts.losses import masked_mean
from headwater.parts.schedules import Ramp, Schedule
from headwater.parts.subsets import Subsets
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="T-JEPA: Augmentation-Free Self-Supervised Learning for Tabular Data",
    year=2024,
    arxiv="2410.05016",
    differs="the regularisation token is always seen and columns are counted from behind it, where the authors' code "
    "counts from the token itself, so that it may be left out and the last column is never chosen; the encoder ends with "
    "the norm of its last block, with no linear map and norm after it; sines of base 10,000, not 100, tell columns apart, "
    "and each column has a bias of its own; no dropout and no warm-up but the engine's; a missing cell is neither seen nor "
    "asked for; evaluation takes the mean of a row's tokens, where the paper takes all of them side by side (they are in "
    "`encoder(x).tokens`). That the token is never predicted is how we read the paper (unverified).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    subsets: Subsets = Subsets()
    predictor: TransformerConfig = TransformerConfig(dim=64, depth=2, heads=4)
    momentum: Schedule = Ramp(0.996, 1.0)

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # doing without augmentations is the point

    def build(self, encoders: Mapping[str, Encoder]) -> "TJEPA":
        return TJEPA(self, only_tokens(encoders, "T-JEPA"))


SMALL = Config(
    subsets=Subsets(context=(0.2, 0.5), target=(0.2, 0.5)), predictor=TransformerConfig(dim=32, depth=2, heads=2)
)
TINY = Config(subsets=SMALL.subsets, predictor=TransformerConfig(dim=16, depth=1, heads=2), momentum=Ramp(0.9, 1.0))


class TJEPA(Method):
    tokens = True
    modalities = ("table",)
    begins: ClassVar[Mapping[str, str]] = {"table": "tjepa-micro"}

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.teacher = Ema(encoder)
        self.predictor = LatentPredictor(config.predictor, encoder.dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x, tokenizer = batch.x[self.encoder.modality], self.encoder.tokenizer
        valid = tokenizer.valid(x)
        context, asked = self.config.subsets(len(x), tokenizer.grid(x), step.rng)
        told = self.target(x)
        error = F.mse_loss(self.guess(x, context, asked, valid), take(told, asked.flatten(1)), reduction="none")
        counted = None if valid is None else valid.gather(1, asked.flatten(1))
        value = masked_mean(error.mean(-1), counted, step.gather)
        return Loss(value, metrics={"teacher_spread": told.flatten(1).std(0).mean()})

    def guess(
        self, x: Input, context: Int[Tensor, "b k"], asked: Int[Tensor, "b t m"], valid: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b tm d"]:
        """What the predictor says of the columns of all sets, knowing those of the context and the tokens before them."""
        seen = self.encoder(x, keep=context)
        tokens, places = seen.tokens, self.encoder.tokenizer.places(x)
        if seen.prefix is not None:  # it stands at place 0 and the columns behind it
            b, q = seen.prefix.shape[:2]
            tokens = torch.cat([seen.prefix, tokens], 1)
            places = F.pad(places + 1, (0, 0, q, 0))
            context = torch.cat([torch.arange(q, device=context.device).expand(b, -1), context + q], 1)
            asked, valid = asked + q, None if valid is None else F.pad(valid, (q, 0), value=True)
        said: Tensor = self.predictor(tokens, context, asked, places, valid)
        return said

    def target(self, x: Input) -> Float[Tensor, "b n d"]:
        tokens: Tensor = self.teacher(x).tokens
        return tokens

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.teacher.follow(self.encoder, self.config.momentum(step.progress))

    def encoders(self) -> dict[str, Encoder]:
        """The teacher, as the paper evaluates it."""
        return {self.encoder.modality: self.teacher.encoder()}
