"""SimMIM: put a mask token where a patch was hidden, and let one linear layer say what was there.

corrupt   replace random units of patches by a mask token, in place
encode    all positions, seen and hidden
predict   one linear layer per token
target    the data: the raw values of the hidden patches, by absolute error
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import masked_mean
from headwater.parts.masks import MaskSampler, RandomMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="SimMIM: A Simple Framework for Masked Image Modeling",
    year=2021,
    arxiv="2111.09886",
    differs="defaults are those of the paper's plain ViT (units of 2 x 2 patches of 16 pixels), not of its Swin; "
    "words are predicted by cross-entropy.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    view: View = Crop(224, (0.67, 1.0), kind="bicubic")
    mask: MaskSampler = RandomMask(ratio=0.6, unit=2)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "SimMIM":
        return SimMIM(self, only_tokens(encoders, "SimMIM"))


SMALL = Config(mask=RandomMask(ratio=0.6))  # a unit of one patch: small grids have few of them
TINY = Config(view=Crop(16))


class SimMIM(Method):
    tokens = True

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.to_patch = nn.Linear(encoder.dim, encoder.tokenizer.guess_dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid = tokenizer.valid(x)
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng, valid)
        guess = self.to_patch(take(self.features(x, where_hidden(mask)), mask.drop))
        error = tokenizer.distance(guess, take(tokenizer.patches(x), mask.drop), power=1)
        counted = None if valid is None else valid.gather(1, mask.drop)
        return Loss(masked_mean(error, counted, step.gather))

    def features(self, x: Input, hidden: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Of every token, made without seeing the hidden ones."""
        return self.encoder(x, hidden=hidden, stand_in=self.mask_token).tokens
