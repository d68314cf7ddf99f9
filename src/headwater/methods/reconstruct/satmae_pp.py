"""SatMAE++: MAE on groups of bands, whose restored picture must also grow into finer ones of the same place.

    corrupt   shrink a fine picture twice, and hide three quarters of the tokens, each a patch of one group of bands
    encode    the seen tokens of the shrunken picture
    predict   a decoder over seen tokens and mask tokens; what it says of all, as a picture, upsampled two and four times
    target    the data: hidden patches as they are, and the finer pictures, all of them

So one encoder learns what a place looks like at several scales, with no need to know the size of a pixel on the ground.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Paper, values
from headwater.methods.reconstruct import mae
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.masks import MaskSampler, RandomMask
from headwater.parts.tokens import BandsTokenizer, GridTokenizer, Normalise, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.upsampling import Upsampler
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery",
    year=2024,
    arxiv="2403.05419",
    differs="bands are normalised by their mean and deviation, where the code clips them at two deviations and maps them to "
    "0-255, and both losses are in those units; tokens and decoder tell the group by a third of the fixed sines, not by a "
    "quarter; no class token unless the encoder has one, whose place the decoder then leaves unmarked; all features of the "
    "upsampler have four times as many channels as there are bands (the code's inner widths and the slope of its leaky "
    "ReLU are unverified); all bands given are used, where the paper drops three of Sentinel-2's. Small data uses one "
    "doubling, a narrower upsampler and a smaller decoder. The count of the hidden is rounded down, where the code rounds "
    "that of the seen.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The views are `finer` than what the encoder sees by `levels` doublings, which are targets; 0 leaves only the masks.
    `share` is that of their L1 in the loss, and `width` that of the upsampler, 0 for four times the bands. `TubeMask`
    hides the same places in all groups. The paper's model of RGB has one level.
    """

    view: View = Crop(384, (0.6, 1.0))
    mask: MaskSampler = RandomMask(ratio=0.75)
    decoder: TransformerConfig = TransformerConfig(dim=512, depth=8, heads=16)
    levels: int = 2
    width: int = 0
    share: float = 0.4

    def __post_init__(self) -> None:
        if self.levels < 0 or not 0 <= self.share < 1:
            raise RequestError(
                f"SatMAE++: levels {self.levels} and share {self.share}; expected 0 or more, and 0 to 1."
            )

    @property
    def finer(self) -> int:
        return 1 << self.levels

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "SatMAE":
        return SatMAE(self, only_tokens(encoders, "SatMAE++"))


SMALL = Config(decoder=TransformerConfig(dim=64, depth=1, heads=4), levels=1, width=16)
TINY = Config(view=Crop(32), decoder=TransformerConfig(dim=16, depth=1, heads=2), levels=1, width=4)


class SatMAE(mae.MAE):
    modalities = ("image",)
    begins: ClassVar[Mapping[str, str]] = {"image": "/groups"}

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__(
            mae.Config(view=config.view, mask=config.mask, decoder=config.decoder, standardise=False), encoder
        )
        self.levels, self.share = config.levels, config.share
        channels = len(self.normalise.mean)
        self.upsampler = Upsampler(channels, config.levels, config.width or 4 * channels) if config.levels else None

    @property
    def normalise(self) -> Normalise:
        tokenizer = self.encoder.tokenizer
        assert isinstance(tokenizer, BandsTokenizer | GridTokenizer)
        return tokenizer.normalise

    def loss(self, batch: Batch, step: Step) -> Loss:
        pyramid = [values(self.config.view(batch.x["image"], step.rng))]
        for _ in range(self.levels):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        *larger, x = pyramid
        tokenizer = self.encoder.tokenizer
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng)
        guess = self.to_patch(self.decode(self.encoder(x, keep=mask.keep), mask, tokenizer.places(x), None))
        hidden = tokenizer.distance(take(guess, mask.drop), take(self.target(x), mask.drop)).mean()
        if self.upsampler is None:
            return Loss(hidden)
        away = [
            (said - self.normalise(real)).abs().mean()
            for said, real in zip(self.grown(guess, x), reversed(larger), strict=True)
        ]
        finer = torch.stack(away).mean()
        return Loss(
            (1 - self.share) * hidden + self.share * finer, {"hidden": hidden.detach(), "finer": finer.detach()}
        )

    def grown(self, guess: Float[Tensor, "b n p"], x: Input) -> list[Float[Tensor, "b c ..."]]:
        """What the decoder says of all tokens as normalised pictures of 2, 4, ... times the size."""
        assert self.upsampler is not None
        tokenizer = self.encoder.tokenizer
        out: list[Tensor] = self.upsampler(self.normalise(tokenizer.unpatch(guess, tokenizer.grid(x))))
        return out
