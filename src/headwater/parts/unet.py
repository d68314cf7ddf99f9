"""A decoder of feature maps, from the coarsest to the input's own resolution (U-Net; Ronneberger et al., 2015), and what
makes maps with holes whole for it (SparK, 2023)."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.parts.convnet import BATCH_NORM, CONV, ChannelNorm, applied, at

RISE: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class UNetDecoder(nn.Module):
    """`doublings` blocks, each twice as fine and half as wide as the one before; what the encoder said at a block's scale
    is added to what enters it."""

    def __init__(self, rank: int, width: int, doublings: int, channels: int) -> None:
        super().__init__()
        self.widths = [max(1, width >> i) for i in range(doublings + 1)]
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        self.blocks = nn.ModuleList(_block(rank, wide, narrow) for wide, narrow in pairs)
        self.out = CONV[rank - 1](self.widths[-1], channels, 1)

    def forward(self, maps: Sequence[Float[Tensor, "b _ ..."]]) -> Float[Tensor, "b c ..."]:
        """From maps with this decoder's widths, the coarsest first and each twice as fine as the one before; at most as many
        as there are blocks."""
        x = maps[0]
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 or i >= len(maps) else x + maps[i])
        out: Tensor = self.out(x)
        return out


def _block(rank: int, wide: int, narrow: int) -> nn.Sequential:
    conv, norm, rise = CONV[rank - 1], BATCH_NORM[rank - 1], RISE[rank - 1]
    return nn.Sequential(
        rise(wide, wide, 4, 2, 1),
        conv(wide, wide, 3, padding=1, bias=False),
        norm(wide),
        nn.ReLU6(inplace=True),
        conv(wide, narrow, 3, padding=1, bias=False),
        norm(narrow),
    )


class Densify(nn.Module):
    """A feature map with holes, normalised, the holes filled by one learned vector, at the decoder's width."""

    def __init__(self, rank: int, wide: int, out: int, kernel: int, batch: bool) -> None:
        super().__init__()
        self.norm = BATCH_NORM[rank - 1](wide) if batch else ChannelNorm(wide)
        self.stand_in = nn.Parameter(torch.zeros(wide))
        nn.init.trunc_normal_(self.stand_in, std=0.02, a=-0.02, b=0.02)
        same = kernel == 1 and wide == out
        self.project = nn.Identity() if same else CONV[rank - 1](wide, out, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "b c ..."], seen: Bool[Tensor, "b ..."]) -> Float[Tensor, "b d ..."]:
        stand_in = self.stand_in.view(-1, *[1] * (x.ndim - 2)).to(x.dtype)
        out: Tensor = self.project(torch.where(at(seen, x)[:, None], applied(self.norm, x, seen), stand_in))
        return out
