"""Point-CMAE: hide a cloud's groups twice at random, restore both times, and say the same of what was hidden twice.

corrupt   keep two fifths of the groups of points, drawn twice
encode    the seen groups alone, of each draw, by one encoder
predict   two decoders with weights of their own, each over seen groups and mask tokens
target    the data: the points of each hidden group; and, for groups hidden both times, what the other decoder says
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.types import Batch, Input, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import masked_mean
from headwater.parts.masks import MaskSampler, RandomMask, where_hidden
from headwater.parts.tokens import put, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import View
from headwater.parts.views.kit import ViewKit
from headwater.parts.views.points import Move

PAPER = Paper(
    title="Bringing Masked Autoencoders Explicit Contrastive Properties for Point Cloud Self-Supervised Learning",
    year=2024,
    arxiv="2407.05862",
    differs="a group is matched with itself, as the paper writes; with match=cloud with all groups of the other branch, as "
    "the authors' code does; the small PointNet of the tokens has no batch norm, and computes them once per branch; fixed "
    "sines tell the encoder where groups stand, once, and not a learned map before every block (the decoders have that); "
    "no class token unless the encoder has one, and none goes to the decoders; a linear map stands between encoder and "
    "decoders, whose widths may differ; no drop path unless configured; features are the mean of the groups, not their "
    "maximum beside the class token; clouds are not moved, since tokens are centred.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    restore  the weight of the restoring beside the matching: ways are squared, and small
    match    of a group hidden both times, either the same group in the other branch or all groups of its cloud there
    """

    view: View = Move("none", (1.0, 1.0), (2 / 3, 3 / 2))
    mask: MaskSampler = RandomMask(ratio=0.6)
    decoder: TransformerConfig = TransformerConfig(dim=384, depth=4, heads=6)
    restore: float = 1000.0
    contrast: float = 1.0
    match: Literal["group", "cloud"] = "group"

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "PointCMAE":
        return PointCMAE(self, only_tokens(encoders, "Point-CMAE"))


SMALL = Config(decoder=TransformerConfig(dim=96, depth=1, heads=3))
TINY = Config(
    view=Move("none", (0.9, 1.1)),
    mask=RandomMask(ratio=0.7),
    decoder=TransformerConfig(dim=16, depth=1, heads=2),
)


class Decoder(nn.Module):
    """A transformer that is told before every block where groups stand, and a guess of their points."""

    def __init__(self, config: TransformerConfig, dim: int, guess_dim: int) -> None:
        super().__init__()
        self.narrow, self.trunk = nn.Linear(dim, config.dim), config.build()
        self.mask_token = nn.Parameter(torch.zeros(config.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, config.dim))
        self.guess = nn.Linear(config.dim, guess_dim)

    def forward(
        self, seen: Float[Tensor, "b k d"], mask: Mask, places: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n e"]:
        """Features of every group, in the order of the groups, before the last norm."""
        place = self.place((places / 8 - 1).to(seen.dtype))  # the centre in the unit ball again
        x = put(self.narrow(seen), mask.keep, self.mask_token.expand_as(place))
        for block in self.trunk.blocks:
            x = block(x + place, None, None)
        return x


class PointCMAE(Method):
    tokens = True
    modalities = ("points",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        make = (config.decoder, encoder.dim, encoder.tokenizer.guess_dim)
        self.decoders = nn.ModuleList(Decoder(*make) for _ in range(2))

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        grid = self.encoder.tokenizer.grid(x)
        masks = [self.config.mask(len(x), grid, step.rng) for _ in range(2)]
        told = self.told(x, masks)
        restored = self.restored(x, told, masks)
        twice = where_hidden(masks[0]) & where_hidden(masks[1])
        apart = masked_mean(self.apart(told[0], told[1]), twice, step.gather)
        value = self.config.restore * restored + self.config.contrast * apart
        return Loss(value, {"restored": restored.detach(), "apart": apart.detach()})

    def told(self, x: Input, masks: list[Mask]) -> list[Float[Tensor, "b n e"]]:
        """What each branch says of all groups."""
        places = self.encoder.tokenizer.places(x)
        seen = [self.encoder(x, keep=mask.keep).tokens for mask in masks]
        return [d(s, m, places) for d, s, m in zip(self.decoders, seen, masks, strict=True)]

    def restored(self, x: Input, told: list[Float[Tensor, "b n e"]], masks: list[Mask]) -> Float[Tensor, ""]:
        """Chamfer's distance of the guesses of hidden groups, of both branches together."""
        tokenizer, out = self.encoder.tokenizer, torch.zeros((), device=told[0].device, dtype=told[0].dtype)
        points = tokenizer.patches(x)
        for decoder, said, mask in zip(self.decoders, told, masks, strict=True):
            assert isinstance(decoder, Decoder)
            guess = decoder.guess(decoder.trunk.norm(take(said, mask.drop)))
            out = out + tokenizer.distance(guess, take(points, mask.drop)).mean()
        return out

    def apart(self, a: Float[Tensor, "b n e"], b: Float[Tensor, "b n e"]) -> Float[Tensor, "b n"]:
        """1 - the cosine of what the branches say of each group, or the mean of that over all groups of the second."""
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        return 1 - ((a * b).sum(-1) if self.config.match == "group" else (a @ b.mT).mean(-1))
