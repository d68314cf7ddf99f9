"""VICReg: two views agree, while every feature keeps varying and no two features say the same.

    corrupt   two views, drawn by two different recipes
    encode    both, with one encoder
    predict   an expander to many dimensions, thrown away afterwards
    target    the other view; variance and covariance over the batch forbid the trivial answer

So it needs neither other samples to tell apart nor a second network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.heads import mlp
from headwater.parts.losses import variance_invariance_covariance
from headwater.parts.views import Crop, View, byol_views
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    year=2021,
    arxiv="2105.04906",
    differs="as the authors' code, and unlike the paper's formulas: the squared distance is a mean over dimensions too "
    "and the variance term is the mean of the two views; AdamW with cosine decay instead of LARS; small data uses one "
    "recipe for both views and a smaller expander.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    views: tuple[View, View] = byol_views(224)
    expander: tuple[int, ...] = (8192, 8192, 8192)
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, views=(kit.strong, kit.strong))

    def build(self, encoders: Mapping[str, Encoder]) -> "VICReg":
        return VICReg(self, only(encoders, "VICReg"))


SMALL = Config(expander=(512, 512))
TINY = Config(views=(Crop(16, (0.6, 1.0)),) * 2, expander=(16, 16))


class VICReg(Method):
    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.expander = mlp(encoder.dim, *config.expander)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x, config = batch.x[self.encoder.modality], self.config
        a, b = (self.expander(self.encoder(view(x, step.rng)).pooled) for view in config.views)
        weights = (config.invariance, config.variance, config.covariance)
        return Loss(variance_invariance_covariance(a, b, step.gather, *weights))
