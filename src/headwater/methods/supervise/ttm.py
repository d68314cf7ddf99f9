"""TTM: forecast from many series at once, so that a small network of mixing MLPs forecasts others it never saw.

corrupt   nothing: what comes after each context is kept back
encode    each channel by itself: patches, cut finer at first and coarser later, mixed over patches and features
predict   a light decoder of the same blocks and one linear map to all steps; known channels may correct it
target    what comes next, in the series' own scale
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.forecasting import ForecasterConfig, MixerDecoder, ReconcileConfig, ended, parted
from headwater.parts.mixer import Mixer, moments, scaled
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced Zero/Few-Shot Forecasting of Multivariate Time Series",
    year=2024,
    arxiv="2401.03955",
    differs="trained on series given by the user or generated, not on the public collection; down-sampled copies come from "
    "the data, not from the loop; the sampling rate, where the encoder has resolutions, is the label of a series; what a "
    "series lacks is never a target; a channel is normalised by the data before anything else, as the reference asks of its "
    "users; AdamW with a cosine instead of one cycle, and no early stopping; sizes follow the reference's scripts "
    "(unverified against the paper, as is the decoder's share of 10 to 20 %); reconciliation "
    "begins with zeros; neither categorical inputs nor quantiles.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    horizon     steps to forecast
    dim, depth  of the decoder
    dropout     of the decoder and the head
    mixing      channels mix in the decoder
    known       numbers of the channels whose future is known (exogenous); the others are forecast
    reconcile   each forecast is corrected by so many steps on either side in all channels, known ones among them; 0: by
                one where some are known, otherwise not at all
    frozen      only the decoder and what follows learn
    """

    horizon: int = 96
    dim: int = 128
    depth: int = 2
    dropout: float = 0.2
    mixing: bool = False
    known: tuple[int, ...] = ()
    reconcile: int = 0
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise RequestError(f"Config.horizon must be at least 1 step; got {self.horizon}.")

    @property
    def around(self) -> int:
        """Steps on either side that a correction looks at; known channels are looked at in any case."""
        return self.reconcile or int(bool(self.known))

    def viewed(self, kit: ViewKit) -> "Config":
        return self

    def build(self, encoders: Mapping[str, Encoder]) -> "TTM":
        encoder = only(encoders, "TTM")
        if not isinstance(encoder, Mixer):
            raise RequestError(f"TTM trains a mixer, such as --encoder ttm-micro; got a {type(encoder).__name__}.")
        return TTM(self, encoder)


SMALL = Config(horizon=24, dim=16, depth=1, dropout=0.0)
TINY = Config(horizon=8, dim=8, depth=1, dropout=0.0)


class TTM(Method):
    modalities = ("series",)
    begins: ClassVar[Mapping[str, str]] = {"series": "ttm-micro"}
    predicts = "forecasts"

    def __init__(self, config: Config, encoder: Mixer) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        shape = encoder.config
        if config.known and max(config.known) >= shape.channels:
            raise RequestError(
                f"TTM: channel {max(config.known)} is said to be known; there are {shape.channels}, from 0 on."
            )
        self.targets = [k for k in range(shape.channels) if k not in config.known]
        self.decoder = MixerDecoder(shape, config.dim, config.depth, config.dropout, config.mixing)
        across = ReconcileConfig(targets=len(self.targets), known=len(config.known), around=config.around)
        self.forecaster = ForecasterConfig(
            tokens=shape.tokens,
            dim=config.dim,
            horizon=config.horizon,
            dropout=config.dropout,
            reconcile=across if config.around else None,
        ).build()
        if config.frozen:
            encoder.requires_grad_(False)

    def loss(self, batch: Batch, step: Step) -> Loss:
        past, future = parted(batch.x["series"], self.encoder.config.length, self.config.horizon, step.rng)
        past, future = self.encoder.standard(past), self.encoder.standard(future)
        forecast = self.forecast(past, future, self.resolution(batch))
        truth = future[:, self.targets] if self.config.known else future
        return Loss(self.forecaster.error(forecast, None, truth, step.gather))

    def forecast(
        self, past: Float[Tensor, "b c t"], future: Float[Tensor, "b c h"] | None, resolution: Int[Tensor, " b"] | None
    ) -> Float[Tensor, "b k h"]:
        """Of the channels that are not known, in the scale of normalised channels; only known ones of `future` are seen."""
        config, kind = self.config, self.encoder.config.scaling
        if past.shape[1] != self.encoder.config.channels and (config.mixing or config.around):
            raise RequestError(
                f"This TTM looks across {self.encoder.config.channels} channels; these series have {past.shape[1]}."
            )
        features = self.decoder(self.encoder.mix(self.encoder.cut(scaled(past, kind)), resolution))
        away, scale = moments(past, kind)
        if not config.around:
            return self.forecaster(features, away, scale)[0]
        ordered = [*self.targets, *config.known]
        known = future[:, list(config.known)].nan_to_num(0.0) if future is not None and config.known else None
        seen = past[:, ordered].nan_to_num(0.0)
        return self.forecaster(*(v[:, self.targets] for v in (features, away, scale)), seen, known)[0]

    def resolution(self, batch: Batch) -> Int[Tensor, " b"] | None:
        """The labels, counted from 1; 0 is unknown."""
        most = self.encoder.config.resolutions
        return (batch.y.long() + 1).clamp(0, most - 1) if most and batch.y is not None else None

    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b c h"]:
        """The `horizon` steps after each series, in its own unit. With known channels the series hold those steps too, where
        only what is known counts, and it comes back as it is."""
        x, length, h = batch.x["series"], self.encoder.config.length, self.config.horizon
        if not self.config.known:
            return self.encoder.original(self.forecast(self.encoder.seen(x), None, self.resolution(batch)))
        past, future = (self.encoder.standard(part) for part in ended(x, length, h))
        whole = future.clone()
        whole[:, self.targets] = self.forecast(past, future, self.resolution(batch))
        return self.encoder.original(whole)
