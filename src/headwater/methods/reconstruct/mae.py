"""MAE: hide most patches, encode only the seen ones, predict the values of the hidden ones.

corrupt   keep a random quarter of the patches
encode    the seen patches alone, which is what makes it cheap
predict   a small decoder over seen tokens and mask tokens
target    the data: each hidden patch, standardised by its own mean and deviation
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.types import Batch, Features, Input, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.encoders import TokenwiseEncoder, decoded, only_tokens
from headwater.parts.losses import masked_mean, standardise_patches
from headwater.parts.masks import MaskSampler, RandomMask
from headwater.parts.positions import sincos
from headwater.parts.tokens import put, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Masked Autoencoders Are Scalable Vision Learners",
    year=2021,
    arxiv="2111.06377",
    differs="small data uses a smaller decoder; values of unlike kinds (table cells, "
    "points) are predicted as they are, points by Chamfer's distance, words by cross-entropy.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    mask: MaskSampler = RandomMask(ratio=0.75)
    decoder: TransformerConfig = TransformerConfig(dim=512, depth=8, heads=16)
    standardise: bool = True

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "MAE":
        return MAE(self, only_tokens(encoders, "MAE"))


SMALL = Config(decoder=TransformerConfig(dim=64, depth=2, heads=4))
TINY = Config(view=Crop(16), decoder=TransformerConfig(dim=16, depth=1, heads=2))


class MAE(Method):
    tokens = True

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        dim = config.decoder.dim
        self.narrow = nn.Linear(encoder.dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder = config.decoder.build()
        self.to_patch = nn.Linear(dim, encoder.tokenizer.guess_dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid = tokenizer.valid(x)
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng, valid)
        seen = self.encoder(x, keep=mask.keep)
        guess = self.to_patch(take(self.decode(seen, mask, tokenizer.places(x), valid), mask.drop))
        error = tokenizer.distance(guess, take(self.target(x), mask.drop))
        counted = None if valid is None else valid.gather(1, mask.drop)
        return Loss(masked_mean(error, counted, step.gather))

    def decode(
        self, seen: Features, mask: Mask, places: Float[Tensor, "#b n r"], valid: Tensor | None
    ) -> Float[Tensor, "b n d"]:
        """What the decoder makes of every token, from the features of the seen ones (class and register tokens take part)."""
        return decoded(self.decoder, self.narrow, seen, self.entering(seen, mask, places), valid)

    def entering(self, seen: Features, mask: Mask, places: Float[Tensor, "#b n r"]) -> Float[Tensor, "b n d"]:
        """What enters the decoder: seen tokens and mask tokens, each at its place."""
        narrow, place = self.narrow(seen.tokens), sincos(places, self.config.decoder.dim)
        return put(narrow, mask.keep, self.mask_token.expand(len(narrow), place.shape[1], -1)) + place

    def target(self, x: Input) -> Float[Tensor, "b n p"]:
        patches = self.encoder.tokenizer.patches(x)
        return standardise_patches(patches) if self.config.standardise and self.encoder.tokenizer.alike else patches
