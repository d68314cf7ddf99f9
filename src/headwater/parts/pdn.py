"""Patch description networks: a few convolutions whose every output sees 33 pixels of the picture and no more."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.tokens import Normalise

LEAST = 33  # pixels a side, without padding: what one output sees
MARGIN = 4  # positions that the map lacks at each edge, without padding


@dataclass(frozen=True, kw_only=True)
class PDNConfig:
    """Two convolutions with average pooling after each, then two, or with `deep` four (Batzner et al., 2023).

    inner   channels of the first and of the second convolution; `dim` those that come out
    padded  the picture is padded, so that the map is a quarter of it; without, 256 pixels become 56
    """

    modality: str = "image"
    channels: int = 3
    inner: tuple[int, int] = (128, 256)
    dim: int = 384
    deep: bool = False
    padded: bool = False

    def build(self) -> "PDN":
        return PDN(self)


class PatchNet(nn.Module):
    """The convolutions alone, named as in anomalib, so that its weights fit."""

    def __init__(self, config: PDNConfig) -> None:
        super().__init__()
        (first, second), dim = config.inner, config.dim
        pad = int(config.padded)
        self.pad = pad
        self.conv1 = nn.Conv2d(config.channels, first, 4, padding=3 * pad)
        self.conv2 = nn.Conv2d(first, second, 4, padding=3 * pad)
        self.deep = config.deep
        if config.deep:
            self.conv3, self.conv4 = nn.Conv2d(second, second, 1), nn.Conv2d(second, second, 3, padding=pad)
            self.conv5, self.conv6 = nn.Conv2d(second, dim, 4), nn.Conv2d(dim, dim, 1)
        else:
            self.conv3, self.conv4 = nn.Conv2d(second, second, 3, padding=pad), nn.Conv2d(second, dim, 4)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        if not self.pad and min(x.shape[2:]) < LEAST:
            raise RequestError(
                f"A patch description network without padding sees {LEAST} pixels a side at least; got {tuple(x.shape[2:])}. "
                "pdn-micro is padded."
            )
        for conv in (self.conv1, self.conv2):
            x = F.avg_pool2d(F.relu(conv(x)), 2, 2, self.pad)
        x = self.conv4(F.relu(self.conv3(x)))
        return self.conv6(F.relu(self.conv5(F.relu(x)))) if self.deep else x


class PDN(Encoder):
    """Tokens are the positions of the map, pooled is their mean."""

    def __init__(self, config: PDNConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.modality, config.dim
        self.normalise, self.net = Normalise(config.channels), PatchNet(config)
        self.margin = 0 if config.padded else MARGIN

    def map(self, x: Input) -> Float[Tensor, "b d p q"]:
        out: Tensor = self.net(self.normalise(values(x)))
        return out

    def wider(self, times: int) -> PatchNet:
        """A fresh network of the same form with `times` as many channels at its end."""
        return PatchNet(replace(self.config, dim=times * self.dim))

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        if keep is not None:
            raise RequestError("A convolutional encoder sees every position and cannot leave out tokens.")
        tokens = self.map(x).flatten(2).transpose(1, 2)
        return Features(tokens, tokens.mean(1))
