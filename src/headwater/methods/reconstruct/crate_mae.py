"""CRATE-MAE: a masked autoencoder whose layers are gradient steps towards a sparse code, and its decoder's undo them.

corrupt   most patches are replaced by a mask token, in place
encode    all positions, by layers that compress tokens towards subspaces and code them sparsely
predict   as many layers that leave the code and expand, then one linear layer per token
target    the data: the values of the hidden patches
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Features, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.crate import CrateConfig
from headwater.parts.encoders import TokenEncoder, only_tokens
from headwater.parts.losses import masked_mean, standardise_patches
from headwater.parts.masks import MaskSampler, RandomMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Masked Completion via Structured Diffusion with White-Box Transformers",
    year=2024,
    arxiv="2404.02446",
    differs="the recipe is MAE's, as the authors' page says (unverified: its rates and decay); with one head the "
    "attention keeps its output map, which the authors' code leaves out; patches are drawn and embedded as elsewhere here "
    "(an embedding of unit variance instead of Xavier's); the pooled feature is the mean of the tokens (unverified).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`standardise`: each target patch by its own mean and deviation, an option that the authors' code leaves off."""

    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    mask: MaskSampler = RandomMask(ratio=0.75)
    standardise: bool = False

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "CrateMAE":
        encoder = only_tokens(encoders, "CRATE-MAE")
        if not isinstance(encoder, TokenEncoder) or not isinstance(encoder.config.trunk, CrateConfig):
            raise RequestError(
                "CRATE-MAE's decoder undoes the layers of a CRATE, and needs an encoder made of them, such as "
                "--encoder crate-micro."
            )
        return CrateMAE(self, encoder, encoder.config.trunk)


SMALL = Config()
TINY = Config(view=Crop(16))


class CrateMAE(Method):
    tokens = True
    modalities = ("image",)
    begins: ClassVar[Mapping[str, str]] = {"image": "crate-micro"}

    def __init__(self, config: Config, encoder: TokenEncoder, trunk: CrateConfig) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder = replace(trunk, decoding=True).build()
        self.to_patch = nn.Linear(encoder.dim, encoder.tokenizer.guess_dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid = tokenizer.valid(x)
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng, valid)
        seen = self.encoder(x, hidden=where_hidden(mask), stand_in=self.mask_token)
        guess = self.to_patch(take(self.decode(seen), mask.drop))
        error = tokenizer.distance(guess, take(self.target(x), mask.drop))
        counted = None if valid is None else valid.gather(1, mask.drop)
        return Loss(masked_mean(error, counted, step.gather))

    def decode(self, seen: Features) -> Float[Tensor, "b n d"]:
        """Every token after the layers that undo the encoder's; class and register tokens take part."""
        tokens, valid = seen.tokens, seen.valid
        if seen.prefix is None:
            return self.decoder(tokens, valid)
        q = seen.prefix.shape[1]
        valid = None if valid is None else torch.cat([valid.new_ones(len(valid), q), valid], 1)
        return self.decoder(torch.cat([seen.prefix, tokens], 1), valid)[:, q:]

    def target(self, x: Input) -> Float[Tensor, "b n p"]:
        patches = self.encoder.tokenizer.patches(x)
        return standardise_patches(patches) if self.config.standardise else patches
