"""ColorMAE: MAE, with masks from filtered noise, whose colour says how coarse the hidden regions are.

    corrupt   hide the places where band-pass noise is lowest: patches of one size, seen and hidden in turn
    encode    the seen patches alone
    predict   MAE's decoder over seen tokens and mask tokens
    target    the data: each hidden patch, standardised by its own mean and deviation

No teacher, no weights and no arithmetic beside MAE's: the mask knows nothing of the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headwater.core.verbs import Encoder, Paper
from headwater.methods.reconstruct import mae
from headwater.parts.encoders import only_tokens
from headwater.parts.masks import MaskSampler
from headwater.parts.noise_masks import NoiseMask
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="ColorMAE: Exploring data-independent masking strategies in Masked AutoEncoders",
    year=2024,
    arxiv="2407.13036",
    differs="noise is drawn and filtered anew for every mask, where the paper crops and mirrors a stock of 3,072 filtered "
    "pictures, of which its code uses the first of each batch alone; the widths of the blurs, in patches, are our own: "
    "those of the paper are (unverified), as is the family of filters; the colour does not change during training. The "
    "count of the hidden is rounded down, where MAE's code rounds that of the seen.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`mask.colour`: green is the paper's best; red, blue and purple are the others, and `RandomMask` is white."""

    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    mask: MaskSampler = NoiseMask(ratio=0.75, colour="green")
    decoder: TransformerConfig = TransformerConfig(dim=512, depth=8, heads=16)
    standardise: bool = True

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "ColorMAE":
        made = mae.Config(view=self.view, mask=self.mask, decoder=self.decoder, standardise=self.standardise)
        return ColorMAE(made, only_tokens(encoders, "ColorMAE"))


SMALL = Config(decoder=TransformerConfig(dim=64, depth=2, heads=4))
TINY = Config(view=Crop(16), decoder=TransformerConfig(dim=16, depth=1, heads=2))


class ColorMAE(mae.MAE):
    """MAE on what fills a plane or a line, where neighbours are alike."""

    modalities = ("image", "audio", "series")
