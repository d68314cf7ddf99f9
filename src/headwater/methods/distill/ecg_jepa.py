"""ECG-JEPA: from a few seen stretches of a record, predict a slow teacher's features of all the time between them.

corrupt   blocks of time are left out, in all leads at once, until a fifth of the record is seen
encode    the seen patches alone with the student, the whole record with the teacher
predict   a narrow transformer over the seen patches and a mask token at each hidden place
target    the teacher's tokens there, as they are
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.intervals import IntervalMask
from headwater.parts.jepa import LatentPredictor
from headwater.parts.losses import masked_mean
from headwater.parts.masks import MaskSampler
from headwater.parts.schedules import Ramp, Schedule
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Self-Supervised Pre-Training with Joint-Embedding Predictive Architecture Boosts ECG Classification Performance",
    year=2024,
    arxiv="2410.13867",
    differs="values are not clipped at five deviations, and missing ones are passed over, not interpolated; blocks of the "
    "transformers have no biases in queries, keys and values, but elsewhere; no register token unless the encoder has one "
    "(--set encoder.registers=1); Xavier's initial weights; constant weight decay; the teacher moves after each step, not "
    "before the next, which is the same but for the first; small data uses a smaller predictor, shorter blocks and a "
    "quicker teacher. Any series serve; records are read whole or in pieces, not by random crops.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    mask: MaskSampler = IntervalMask(keep=(0.15, 0.25), least=10)
    predictor: TransformerConfig = TransformerConfig(dim=192, depth=8, heads=6, qkv_bias=False)
    momentum: Schedule = Ramp(0.998, 0.9995)

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # no augmentations: records are seen as they are

    def build(self, encoders: Mapping[str, Encoder]) -> "ECGJEPA":
        return ECGJEPA(self, only_tokens(encoders, "ECG-JEPA"))


SMALL = Config(
    mask=IntervalMask(keep=(0.2, 0.3), least=2),
    predictor=TransformerConfig(dim=48, depth=2, heads=4, qkv_bias=False),
    momentum=Ramp(0.99, 0.999),
)
TINY = Config(mask=SMALL.mask, predictor=TransformerConfig(dim=16, depth=1, heads=2), momentum=Ramp(0.99, 0.999))


class ECGJEPA(Method):
    tokens = True
    modalities = ("series",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.teacher = Ema(encoder)
        self.predictor = LatentPredictor(config.predictor, encoder.dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x, tokenizer = batch.x[self.encoder.modality], self.encoder.tokenizer
        valid = tokenizer.valid(x)
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng, valid)
        seen = self.encoder(x, keep=mask.keep).tokens
        guess = self.predictor(seen, mask.keep, mask.drop[:, None], tokenizer.places(x), valid)
        error = (guess - take(self.target(x), mask.drop)).abs().mean(-1)
        counted = None if valid is None else valid.gather(1, mask.drop)
        return Loss(masked_mean(error, counted, step.gather))

    def target(self, x: Input) -> Float[Tensor, "b n d"]:
        tokens: Tensor = self.teacher(x).tokens
        return tokens

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.teacher.follow(self.encoder, self.config.momentum(step.progress))

    def encoders(self) -> dict[str, Encoder]:
        """The teacher, as the paper evaluates it."""
        return {self.encoder.modality: self.teacher.encoder()}
