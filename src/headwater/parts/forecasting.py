"""What stands behind an encoder of series that forecasts: decoder, head, what reconciles forecasts across channels, aggregates.

Forecasts are [b c h], h steps of each channel.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.parts.losses import Gather, masked_mean
from headwater.parts.mixer import Gate, MixerConfig, last, stack
from headwater.parts.views import Window


class MixerDecoder(nn.Module):
    """A stack of other width on what an encoder made of its tokens, with channels mixing or not (TTM)."""

    def __init__(self, encoder: MixerConfig, dim: int, depth: int, dropout: float, mixing: bool) -> None:
        super().__init__()
        shape = replace(encoder.over(encoder.tokens, dim), any_series=encoder.any_series and not mixing)
        self.adapt = nn.Linear(encoder.dim, dim) if dim != encoder.dim else nn.Identity()
        self.blocks = stack(replace(shape, depth=depth, dropout=dropout, mixing=mixing))

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n e"]:
        return self.blocks(self.adapt(x))


class ForecastHead(nn.Module):
    """One linear map from the features of all patches of a channel to all steps."""

    def __init__(self, patches: int, dim: int, horizon: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(patches * dim, horizon)

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c h"]:
        return self.linear(self.dropout(x.flatten(2)))


@dataclass(frozen=True, kw_only=True)
class ReconcileConfig:
    """targets, known  channels that are forecast, and channels whose future is known
    around    each step is corrected from so many steps before and after it in all channels
    past      the steps before the first forecast are the last that were seen, instead of zeros
    """

    targets: int
    known: int = 0
    around: int = 1
    gated: bool = True
    past: bool = True

    def __post_init__(self) -> None:
        if self.targets < 1 or self.around < 0:
            raise RequestError(
                "ReconcileConfig: at least one channel must be forecast, from no fewer than 0 steps around."
            )

    def build(self) -> "Reconcile":
        return Reconcile(self)


class Reconcile(nn.Module):
    """TSMixer's reconciliation across channels and TTM's exogenous mixer: what it says is added to the forecasts. What stands
    behind the last step is zero. As in TTM past and known values come in the scale of normalised channels, forecasts in that
    of each sample's own."""

    def __init__(self, config: ReconcileConfig) -> None:
        super().__init__()
        self.config = config
        size = (config.targets + config.known) * (2 * config.around + 1)
        self.gate = Gate(size) if config.gated else nn.Identity()
        self.linear = nn.Linear(size, config.targets)
        nn.init.zeros_(self.linear.weight)  # at first nothing is corrected
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        forecasts: Float[Tensor, "b c h"],
        past: Float[Tensor, "b a t"],
        known: Float[Tensor, "b k h"] | None = None,
    ) -> Float[Tensor, "b c h"]:
        """`past` holds the channels that are forecast, then those that are known."""
        config = self.config
        both = forecasts if known is None else torch.cat([forecasts, known], 1)
        before = (
            past[..., past.shape[2] - config.around :]
            if config.past
            else both.new_zeros(*both.shape[:2], config.around)
        )
        wide = F.pad(torch.cat([before.to(both.dtype), both], 2), (0, config.around))
        windows = wide.unfold(2, 2 * config.around + 1, 1).transpose(1, 2).flatten(2)
        said = self.linear(self.gate(windows[:, None])[:, 0])
        return forecasts + said.mT


class Hierarchy(nn.Module):
    """TSMixer's hierarchical head: means over `span` steps are forecast too, and the fine forecast is told by them anew."""

    def __init__(self, patches: int, dim: int, horizon: int, span: int) -> None:
        super().__init__()
        if horizon % span:
            raise RequestError(f"A hierarchy of {span} steps does not divide a horizon of {horizon}.")
        self.span = span
        self.coarse = ForecastHead(patches, dim, horizon // span)
        self.again = nn.Linear(span + 1, span)

    def forward(
        self, x: Float[Tensor, "b c n d"], fine: Float[Tensor, "b c h"]
    ) -> tuple[Float[Tensor, "b c h"], Float[Tensor, "b c a"]]:
        """The forecast, and that of the means."""
        coarse = self.coarse(x)
        both = torch.cat([fine.unflatten(2, (-1, self.span)), coarse[..., None]], 3)
        return self.again(both).flatten(2), coarse

    def means(self, x: Float[Tensor, "b c h"]) -> Float[Tensor, "b c a"]:
        return x.unflatten(2, (-1, self.span)).mean(3)


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig:
    """tokens, dim  of the features of each channel, from which `horizon` steps are forecast
    reconcile    None: each channel is forecast by itself
    hierarchy    the means of so many steps are forecast too; 0: none
    """

    tokens: int
    dim: int
    horizon: int
    dropout: float = 0.0
    reconcile: ReconcileConfig | None = None
    hierarchy: int = 0

    def build(self) -> "Forecaster":
        return Forecaster(self)


class Forecaster(nn.Module):
    """All that stands between features and forecasts."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        tokens, dim, horizon = config.tokens, config.dim, config.horizon
        self.head = ForecastHead(tokens, dim, horizon, config.dropout)
        self.reconcile = None if config.reconcile is None else config.reconcile.build()
        self.hierarchy = Hierarchy(tokens, dim, horizon, config.hierarchy) if config.hierarchy else None

    def forward(
        self,
        features: Float[Tensor, "b c n d"],
        away: Float[Tensor, "b c 1"],
        scale: Float[Tensor, "b c 1"],
        past: Float[Tensor, "b a t"] | None = None,
        known: Float[Tensor, "b k h"] | None = None,
    ) -> tuple[Float[Tensor, "b c h"], Float[Tensor, "b c m"] | None]:
        """Forecasts, and those of the means. The features are of channels of which `away` was taken and which were divided by
        `scale`; forecasts are reconciled before that is undone. `past` and `known` are as in `Reconcile`."""
        out, means = self.head(features), None
        if self.reconcile is not None:
            assert past is not None
            out = self.reconcile(out, past, known)
        if self.hierarchy is not None:
            out, coarse = self.hierarchy(features, out)
            means = coarse * scale + away
        return out * scale + away, means

    def error(
        self,
        forecast: Float[Tensor, "b c h"],
        means: Float[Tensor, "b c m"] | None,
        truth: Float[Tensor, "b c h"],
        gather: Gather,
    ) -> Float[Tensor, ""]:
        """The mean square over what is known of the truth; with a hierarchy that of the means is added, and how far they are
        from the means of the forecast, both divided by its span."""
        error = squared_error(forecast, truth, gather)
        if self.hierarchy is None or means is None:
            return error
        top, below = self.hierarchy.means(truth), self.hierarchy.means(forecast)
        return error + (squared_error(means, top, gather) + squared_error(below, means, gather)) / self.hierarchy.span


def parted(x: Input, context: int, horizon: int, rng: Rng) -> tuple[Float[Tensor, "b c s"], Float[Tensor, "b c h"]]:
    """Of each series `context` steps and the `horizon` steps after them, anywhere in it. Raises RequestError where one is
    shorter than both together."""
    whole = x if isinstance(x, Tensor) and x.shape[-1] == context + horizon else Window(context + horizon)(x, rng)
    assert isinstance(whole, Tensor)
    return whole[..., :context], whole[..., context:]


def ended(x: Input, context: int, horizon: int) -> tuple[Float[Tensor, "b c s"], Float[Tensor, "b c h"]]:
    """The last `horizon` steps of each series, and the `context` steps before them."""
    whole = last(x, context + horizon)
    if whole.shape[-1] < context + horizon:
        raise RequestError(
            f"A forecast of {horizon} steps is made from the {context} before them; a series has {whole.shape[-1]} in all."
        )
    return whole[..., :context], whole[..., context:]


def squared_error(
    forecasts: Float[Tensor, "b c h"], truth: Float[Tensor, "b c h"], gather: Gather
) -> Float[Tensor, ""]:
    """The mean over what is known of the truth."""
    return masked_mean((forecasts - truth.nan_to_num(0.0)).square(), ~truth.isnan(), gather)
