"""CroCo: complete a picture of which most is hidden by looking at the same scene from elsewhere.

corrupt   most patches of the first view; the second stays whole
encode    the seen patches of the first, and all of the second, by one encoder
predict   a decoder over seen tokens and mask tokens of the first, which looks at those of the second
target    the data: each hidden patch of the first, standardised by its own mean and deviation
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Features, Input, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper, values
from headwater.parts.crossdecoder import CrossDecoder
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import masked_mean, standardise_patches
from headwater.parts.masks import MaskSampler, RandomMask
from headwater.parts.positions import sincos
from headwater.parts.tokens import put, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Chain, Colour, Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="CroCo: Self-Supervised Pre-training for 3D Vision Tasks by Cross-View Completion",
    year=2022,
    arxiv="2210.10716",
    differs="without pairs, the two views are crops of one picture; pairs of pictures of one scene (the paper's 1.8 million "
    "rendered ones, unverified) come side by side in one (side_by_side); the alternative block that attends to both views "
    "at once (unverified) is left out; the decoder is dropped after pre-training, so of the two-view tasks of the paper none "
    "is here; cosine decay to the end, where the authors stop half-way; small data uses a smaller decoder and hides less.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`view` makes each of the two, by draws of its own. `side_by_side`: the left half of a picture is the first view of a
    scene and the right half the second, instead of two views of the whole."""

    view: View = Chain(Crop(224, (0.5, 1.0), flip=0.0, kind="bicubic"), Colour(0.4, 0.4, 0.4))
    side_by_side: bool = False
    mask: MaskSampler = RandomMask(ratio=0.9)
    decoder: TransformerConfig = TransformerConfig(dim=512, depth=8, heads=16)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "CroCo":
        return CroCo(self, only_tokens(encoders, "CroCo"))


SMALL = Config(mask=RandomMask(0.75), decoder=TransformerConfig(dim=64, depth=2, heads=4))
TINY = Config(view=Crop(16), mask=RandomMask(0.75), decoder=TransformerConfig(dim=16, depth=1, heads=2))


class CroCo(Method):
    tokens = True
    modalities = ("image",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        dim = config.decoder.dim
        self.narrow = nn.Linear(encoder.dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder = CrossDecoder(config.decoder)
        self.to_patch = nn.Linear(dim, encoder.tokenizer.guess_dim)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x[self.encoder.modality]
        first, second = (self.config.view(v, step.rng) for v in (halves(x) if self.config.side_by_side else (x, x)))
        tokenizer = self.encoder.tokenizer
        valid = tokenizer.valid(first)
        mask = self.config.mask(len(first), tokenizer.grid(first), step.rng, valid)
        said = self.complete(first, mask, self.encoder(second), tokenizer.places(second))
        error = tokenizer.distance(self.to_patch(take(said, mask.drop)), take(self.target(first), mask.drop))
        counted = None if valid is None else valid.gather(1, mask.drop)
        return Loss(masked_mean(error, counted, step.gather))

    def complete(self, x: Input, mask: Mask, other: Features, elsewhere: Tensor) -> Float[Tensor, "b n d"]:
        """What the decoder makes of every place of x, with `other` as its memory. Positions are added to both."""
        tokenizer, dim = self.encoder.tokenizer, self.config.decoder.dim
        place = sincos(tokenizer.places(x), dim)
        seen = self.narrow(self.encoder(x, keep=mask.keep).tokens)
        tokens = put(seen, mask.keep, self.mask_token.expand(len(seen), place.shape[1], -1)) + place
        memory = self.narrow(other.tokens) + sincos(elsewhere, dim)
        out: Tensor = self.decoder(tokens, memory, tokenizer.valid(x), other.valid)
        return out

    def target(self, x: Input) -> Float[Tensor, "b n p"]:
        return standardise_patches(self.encoder.tokenizer.patches(x))


def halves(x: Input) -> tuple[Tensor, Tensor]:
    """Left and right. Raises RequestError for pictures of odd width, and for those that differ in size."""
    whole = values(x)
    if whole.shape[-1] % 2:
        raise RequestError(f"Two views side by side have the same width; got pictures {whole.shape[-1]} pixels wide.")
    left, right = whole.chunk(2, -1)
    return left, right
