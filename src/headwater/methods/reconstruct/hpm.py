"""HPM: MAE that also learns which patches it will restore badly, and hides more and more of those.

corrupt   hide three quarters: the patches a slow teacher calls hardest, up to half of the hidden, the rest at random
encode    the seen patches alone
predict   two decoders over seen tokens and mask tokens: the values of the hidden, and how wrong those will be
target    the data, and the order of the errors just made among the hidden patches of a sample
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Paper
from headwater.methods.reconstruct import mae
from headwater.parts.ema import Ema
from headwater.parts.encoders import TokenwiseEncoder, decoded, only_tokens
from headwater.parts.losses import masked_mean, ranking
from headwater.parts.masks import ScoreMask
from headwater.parts.positions import sincos
from headwater.parts.schedules import Constant, Ramp, Schedule
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Bootstrap Masked Visual Modeling via Hard Patches Mining",
    year=2023,
    arxiv="2312.13714",
    differs="the hard share and the teacher's momentum change with every step, not once a round through the data, and the "
    "momentum rises over the first half of training: 100 rounds of 200; the loss predictor ends in one linear map to a "
    "number, where the code averages 768 of them; cross-entropies are exact, without 1e-6 in the logarithms; the teacher "
    "copies what it needs to judge, not the reconstructor; neither the absolute loss, which regresses the errors "
    "themselves, nor features of EMA, DINO or CLIP as targets. Of the video model only the paper tells, not the code "
    "(unverified): here it learns from everything made of tokens. The count of "
    "the hidden is rounded down, where MAE's code rounds that of the seen.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hard` is the share of the hidden that the teacher chooses, over training; `mask.greed` is not used."""

    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    mask: ScoreMask = ScoreMask(ratio=0.75)
    hard: Schedule = Ramp(0.0, 0.5)
    decoder: TransformerConfig = TransformerConfig(dim=512, depth=8, heads=16)
    standardise: bool = True
    momentum: Schedule = Ramp(0.999, 0.9999, until=0.5)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "HPM":
        return HPM(self, only_tokens(encoders, "HPM"))


SMALL = Config(decoder=TransformerConfig(dim=64, depth=1, heads=4), momentum=Constant(0.99))
TINY = Config(view=Crop(16), decoder=TransformerConfig(dim=16, depth=1, heads=2))


class HPM(mae.MAE):
    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__(mae.Config(view=config.view, decoder=config.decoder, standardise=config.standardise), encoder)
        self.plan = config
        self.judge, self.to_score = config.decoder.build(), nn.Linear(config.decoder.dim, 1)
        self.teacher = Ema(self.judging())

    def judging(self) -> nn.ModuleList:
        """What tells how hard each token is."""
        return nn.ModuleList([self.encoder, self.narrow, self.judge, self.to_score])

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.plan.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid, places = tokenizer.valid(x), tokenizer.places(x)
        mask = replace(self.plan.mask, greed=self.plan.hard(step.progress)).pick(self.difficulty(x), step.rng, valid)
        seen = self.encoder(x, keep=mask.keep)
        tokens = self.entering(seen, mask, places)
        guess, score = (
            take(head(decoded(trunk, self.narrow, seen, tokens, valid)), mask.drop)
            for trunk, head in ((self.decoder, self.to_patch), (self.judge, self.to_score))
        )
        error = tokenizer.distance(guess, take(self.target(x), mask.drop))
        counted = None if valid is None else valid.gather(1, mask.drop)
        restored = masked_mean(error, counted, step.gather)
        ranked = ranking(score[..., 0], error, counted, step.gather)
        return Loss(restored + ranked, {"restored": restored.detach(), "ranked": ranked.detach()})

    @torch.no_grad()
    def difficulty(self, x: Input) -> Float[Tensor, "b n"]:
        """How hard the teacher, who sees all of it, expects each token to be; only the order means something."""
        assert isinstance(self.teacher.copy, nn.ModuleList)
        encoder, narrow, judge, to_score = self.teacher.copy
        seen = encoder(x)
        tokens = narrow(seen.tokens) + sincos(self.encoder.tokenizer.places(x), self.plan.decoder.dim)
        score: Tensor = to_score(decoded(judge, narrow, seen, tokens, seen.valid))[..., 0]
        return score

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.teacher.follow(self.judging(), self.plan.momentum(step.progress))
