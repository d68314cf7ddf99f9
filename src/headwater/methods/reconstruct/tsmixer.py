"""TSMixer: hide patches of a series from a network of small mixing MLPs, which fills them in; or let it forecast.

corrupt   half of the patches become zero, after each channel of each sample was scaled by itself
encode    the mixer of patches, which sees all places
predict   one linear layer per patch
target    the data: the scaled values of the hidden patches

With a `horizon` nothing is hidden: the target is what comes next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.forecasting import ForecasterConfig, ReconcileConfig, parted
from headwater.parts.losses import masked_mean
from headwater.parts.masks import hide, where_hidden
from headwater.parts.mixer import Mixer, moments, scaled
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series Forecasting",
    year=2023,
    arxiv="2306.09364",
    differs="defaults are those of PatchTSMixer in transformers where they differ from the paper's (half of the patches "
    "hidden and not 40 %; the paper's contexts of 512 steps, patches of 16 and 8 layers are unverified); a missing value is "
    "never a target; the formula of the hierarchical head's loss is unverified; there is no mode in which one vector holds "
    "all channels; errors of forecasts count in the deviation of each channel over the data, which the paper divides by "
    "before.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    ratio       the share of the patches that is hidden
    final       so many patches at the end are hidden instead
    consistent  the same patches are hidden in all channels
    hidden_only the loss counts hidden patches alone
    dropout     of the head
    horizon     0: hidden patches are filled in; otherwise so many steps are forecast from those before them
    reconcile   of forecasts: each is corrected by so many steps on either side in all channels; 0: none is
    hierarchy   of forecasts: the means of so many steps are forecast too; 0: none
    """

    ratio: float = 0.5
    final: int = 0
    consistent: bool = True
    hidden_only: bool = True
    dropout: float = 0.2
    horizon: int = 0
    reconcile: int = 0
    hierarchy: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise RequestError(f"Config.ratio must lie strictly between 0 and 1; got {self.ratio}.")

    def viewed(self, kit: ViewKit) -> "Config":
        return self

    def build(self, encoders: Mapping[str, Encoder]) -> "TSMixer":
        encoder = only(encoders, "TSMixer")
        if not isinstance(encoder, Mixer):
            raise RequestError(
                f"TSMixer trains a mixer, such as --encoder mixer-micro; got a {type(encoder).__name__}."
            )
        return TSMixer(self, encoder)


SMALL = Config(dropout=0.0)
TINY = Config(dropout=0.0)


class TSMixer(Method):
    modalities = ("series",)
    begins: ClassVar[Mapping[str, str]] = {"series": "mixer-micro"}
    predicts = "forecasts"

    def __init__(self, config: Config, encoder: Mixer) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        shape = encoder.config
        across = (
            ReconcileConfig(targets=shape.channels, around=config.reconcile, past=False) if config.reconcile else None
        )
        if config.horizon:
            self.forecaster = ForecasterConfig(
                tokens=shape.tokens,
                dim=shape.dim,
                horizon=config.horizon,
                dropout=config.dropout,
                reconcile=across,
                hierarchy=config.hierarchy,
            ).build()
        else:
            self.to_patch = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(shape.dim, shape.patch))

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x["series"]
        return Loss(self.forecasting(x, step) if self.config.horizon else self.filling(x, step))

    def filling(self, x: Input, step: Step) -> Tensor:
        seen = self.encoder.seen(x)
        patches = self.encoder.cut(scaled(seen, self.encoder.config.scaling))
        hidden = self.hidden(patches, step.rng)
        guess = self.to_patch(self.encoder.mix(patches.masked_fill(hidden[..., None], 0.0)))
        known = self.encoder.cut(~seen.isnan())
        counted = known & hidden[..., None] if self.config.hidden_only else known
        return masked_mean((guess - patches).square(), counted, step.gather)

    def hidden(self, patches: Float[Tensor, "b c n p"], rng: Rng) -> Bool[Tensor, "b c n"]:
        b, c, n, _ = patches.shape
        if self.config.final:
            return (torch.arange(n, device=patches.device) >= n - self.config.final).expand(b, c, n)
        score = rng.rand(b, 1 if self.config.consistent else c, n).expand(b, c, n)
        count = n - int(n * (1 - self.config.ratio))
        if count == n:
            raise RequestError(f"TSMixer: a ratio of {self.config.ratio} hides all of {n} patches; one must be seen.")
        return where_hidden(hide(score.flatten(0, 1), count)).view(b, c, n)

    def forecasting(self, x: Input, step: Step) -> Tensor:
        past, future = parted(x, self.encoder.config.length, self.config.horizon, step.rng)
        forecast, means = self.forecast(self.encoder.standard(past))
        return self.forecaster.error(forecast, means, self.encoder.standard(future), step.gather)

    def forecast(self, past: Float[Tensor, "b c t"]) -> tuple[Float[Tensor, "b c h"], Float[Tensor, "b c m"] | None]:
        kind = self.encoder.config.scaling
        return self.forecaster(self.encoder.mix(self.encoder.cut(scaled(past, kind))), *moments(past, kind), past)

    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b c h"]:
        """The `horizon` steps after each series, in its own unit. Raises RequestError where it learned to fill in."""
        if not self.config.horizon:
            raise RequestError(
                "This TSMixer learned to fill in hidden patches and forecasts nothing; pre-train one with "
                "--set method.horizon=STEPS, and --set encoder.series.length=STEPS where series leave no room for both."
            )
        return self.encoder.original(self.forecast(self.encoder.seen(batch.x["series"]))[0])
