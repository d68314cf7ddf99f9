"""SparK: masked modelling for convolutional networks, which see the seen units alone and rebuild the others at all scales.

corrupt   keep some of the units, squares that become one position of the last feature map
encode    the seen units, by the same network with hidden positions at zero after every layer, as in sparse convolution
predict   a U-Net from all stages, a learned vector at the hidden positions of each
target    the data: each hidden unit, standardised by its own mean and deviation

The network needs no change: with everything seen, and after pre-training, it is an ordinary one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only, values
from headwater.parts.convnet import ConvNet, ResNetConfig
from headwater.parts.losses import standardise_patches
from headwater.parts.masks import hide, where_hidden
from headwater.parts.tokens.grid import split
from headwater.parts.unet import Densify, UNetDecoder
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling",
    year=2023,
    arxiv="2301.03580",
    differs="AdamW instead of LAMB, constant weight decay; weights of the decoder begin as torch draws them; stages finer than "
    "the decoder's blocks, which small networks have and the paper's have not, take no part; any grid of numbers instead "
    "of pictures alone; small data uses a narrower decoder.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`ratio`: the share of units hidden. `width`: channels of the decoder where it is coarsest; each doubling halves them."""

    view: View = Crop(224, (0.67, 1.0), kind="bicubic")
    ratio: float = 0.6
    width: int = 768

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "SparK":
        encoder = only(encoders, "SparK")
        if not isinstance(encoder, ConvNet) or encoder.config.stride < 2 or encoder.config.stride.bit_count() != 1:
            kind = type(encoder).__name__
            raise RequestError(
                "SparK needs a convolutional encoder whose last feature map is 2, 4, 8, ... times as coarse as its input, such "
                f"as --encoder resnet-50; got a {kind}{f' with {encoder.config.stride}' if isinstance(encoder, ConvNet) else ''}."
            )
        return SparK(self, encoder)


SMALL = Config(width=64)
TINY = Config(view=Crop(16), width=16)


class SparK(Method):
    modalities = ("image", "series", "volume")

    def __init__(self, config: Config, encoder: ConvNet) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        encoder.norm.requires_grad_(False)  # of what is pooled, and nothing is pooled here
        shape = encoder.config
        self.decoder = UNetDecoder(shape.rank, config.width, shape.stride.bit_length() - 1, shape.channels)
        inputs = [*reversed(shape.widths)][: len(self.decoder.blocks)]
        batch = isinstance(shape, ResNetConfig)
        self.densify = nn.ModuleList(
            Densify(shape.rank, wide, self.decoder.widths[i], 3 if i else 1, batch) for i, wide in enumerate(inputs)
        )

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = values(self.config.view(batch.x[self.encoder.modality], step.rng))
        seen = self.draw(x, step.rng)
        patch = (self.encoder.config.stride,) * self.encoder.config.rank
        target = standardise_patches(split(self.encoder.normalise(x), patch))
        error = (split(self.rebuild(x, seen), patch) - target).square().mean(2)
        hidden = ~seen.flatten(1)
        return Loss((error * hidden).sum() / hidden.sum())  # as many in every sample

    def draw(self, x: Tensor, rng: Rng) -> Bool[Tensor, "b ..."]:
        """Which units each sample shows. Raises RequestError where they do not divide it or none could be hidden."""
        stride, size = self.encoder.config.stride, tuple(x.shape[2:])
        grid = tuple(s // stride for s in size)
        n = math.prod(grid)
        count = round(n * (1 - self.config.ratio))
        if any(s % stride for s in size) or not 0 < count < n:
            raise RequestError(
                f"SparK: an input of {size} in units of {stride} shows {count} of {n} of them at ratio={self.config.ratio}; it "
                "must divide, and some must be seen and some hidden."
            )
        return ~where_hidden(hide(rng.rand(len(x), n), n - count)).unflatten(1, grid)

    def rebuild(self, x: Tensor, seen: Bool[Tensor, "b ..."]) -> Float[Tensor, "b c ..."]:
        """The decoder's picture of the whole, from the seen units."""
        maps = reversed(self.encoder.maps(x, seen))
        return self.decoder([fill(found, seen) for fill, found in zip(self.densify, maps, strict=False)])
