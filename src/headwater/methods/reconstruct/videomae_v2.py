"""VideoMAE V2: hide tubes of a clip from the encoder and half of what is left to guess from the decoder.

corrupt   keep a tenth of the places, the same at every time
encode    the seen tubelets alone
predict   a decoder over seen tokens and mask tokens of half of the clip: cells of 2 x 2 that take turns
target    the data: each tubelet, every colour standardised by its own mean and deviation, where the encoder saw none
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.types import Batch, Features, Input, Loss, Mask, Step
from headwater.core.verbs import Encoder, Paper
from headwater.methods.reconstruct import mae
from headwater.parts.cell_masks import RunningCellMask
from headwater.parts.encoders import TokenwiseEncoder, decoded, only_tokens
from headwater.parts.losses import masked_mean, standardise_patches
from headwater.parts.masks import MaskSampler, TubeMask, where_hidden
from headwater.parts.positions import sequence
from headwater.parts.tokens import GridTokenizer, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import View
from headwater.parts.views.block import BoxCrop
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking",
    year=2023,
    arxiv="2303.16727",
    differs="a random box instead of a crop of one of four scales; one clip per loaded item, where the code takes four; the "
    "encoder tells places by sines along three axes unless position=sequence, which is what the paper's does, and has a "
    "bias of keys, which theirs lacks; its width is the default of the data, and the decoder is that of ViT-B (S has 192 / "
    "3 heads, L 512 / 8); of flat tubelets the deviation is floored within the root, not after it. Small "
    "clips hide three quarters and use a smaller decoder. Of the training in "
    "stages this is the first; the second and third are `classify` on its encoder, and distilling it is another method.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`mask` is what the encoder does not see and `unasked` what the decoder is not asked for; without the latter the
    decoder is asked for all that is hidden, as in VideoMAE."""

    view: View = BoxCrop((16, 224, 224), ((1.0, 1.0), (0.66, 1.0), (0.66, 1.0)))
    mask: MaskSampler = TubeMask(ratio=0.9)
    unasked: MaskSampler | None = RunningCellMask(ratio=0.5)
    decoder: TransformerConfig = TransformerConfig(dim=384, depth=4, heads=6)
    standardise: bool = True

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "VideoMAEV2":
        return VideoMAEV2(self, only_tokens(encoders, "VideoMAE V2"))


SMALL = Config(mask=TubeMask(ratio=0.75), decoder=TransformerConfig(dim=64, depth=1, heads=4))
TINY = Config(
    view=BoxCrop((8, 16, 16), ((1.0, 1.0),) * 3),
    mask=TubeMask(ratio=0.75),
    decoder=TransformerConfig(dim=16, depth=1, heads=2),
)


class VideoMAEV2(mae.MAE):
    modalities = ("video",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        made = mae.Config(view=config.view, mask=config.mask, decoder=config.decoder, standardise=config.standardise)
        super().__init__(made, encoder)
        assert isinstance(encoder.tokenizer, GridTokenizer)
        self.unasked, self.colours = config.unasked, encoder.tokenizer.config.channels
        self.narrow = nn.Linear(encoder.dim, config.decoder.dim, bias=False)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        grid, valid = tokenizer.grid(x), tokenizer.valid(x)
        mask = self.config.mask(len(x), grid, step.rng, valid)
        asked = mask.drop if self.unasked is None else self.unasked(len(x), grid, step.rng, valid).keep
        guess = self.to_patch(self.answer(self.encoder(x, keep=mask.keep), mask, asked, valid))
        error = tokenizer.distance(guess, take(self.target(x), asked))
        counted = where_hidden(mask).gather(1, asked)
        counted = counted if valid is None else counted & valid.gather(1, asked)
        return Loss(masked_mean(error, counted, step.gather))

    def answer(
        self, seen: Features, mask: Mask, asked: Int[Tensor, "b m"], valid: Tensor | None
    ) -> Float[Tensor, "b m d"]:
        """What the decoder makes of the tokens it is asked for, seen by the encoder or not; the seen ones come first."""
        keep, device = mask.keep, mask.keep.device
        place = sequence(keep.shape[1] + mask.drop.shape[1], self.config.decoder.dim, device)
        tokens = torch.cat([self.narrow(seen.tokens) + place[keep], self.mask_token + place[asked]], 1)
        real = None if valid is None else valid.gather(1, torch.cat([keep, asked], 1))
        return decoded(self.decoder, self.narrow, seen, tokens, real)[:, keep.shape[1] :]

    def target(self, x: Input) -> Float[Tensor, "b n p"]:
        patches = self.encoder.tokenizer.patches(x)
        if not self.config.standardise:
            return patches
        apart = patches.unflatten(2, (-1, self.colours)).mT
        return standardise_patches(apart.flatten(1, 2)).unflatten(1, apart.shape[1:3]).mT.flatten(2)
