"""From a picture to finer ones: transposed convolutions and residual blocks (SatMAE++; Noman et al., 2024)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.parts.convnet import ChannelNorm


class Upsampler(nn.Module):
    """`levels` doublings of a picture, with features of so many channels."""

    def __init__(self, channels: int, levels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 1), nn.GELU(), ChannelNorm(width))
        self.doublings = nn.ModuleList(Doubling(width) for _ in range(levels))
        self.shown = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1) for _ in range(levels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c ..."]]:
        """The picture at 2, 4, ... times its size. Each doubling goes on from the features of the last, not its picture."""
        features, out = self.enter(x), []
        for double, show in zip(self.doublings, self.shown, strict=True):
            features = double(features)
            out.append(show(features))
        return out


class Doubling(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 4, 2, 1)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.inner, self.outer = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d ..."]:
        x = nn.functional.leaky_relu(self.norm1(self.up(x)))
        out: Tensor = self.norm2(x + 0.5 * self.outer(torch.relu(self.inner(x))))
        return out
