"""Convolutional encoders of any rank: a residual net with batch norm, and ConvNeXt.

Their tokens are the positions of the last feature map; they take no `keep`, since a convolution sees every position.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.tokens import Normalise

CONV: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORM: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOL: tuple[Any, ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Residual blocks (He et al., 2015), basic or bottleneck; every stage after the first halves each axis.

    stem_stride  1 keeps small inputs whole (the CIFAR stem); 2 is the 7-wide stem with max pooling
    stem         channels of the stem; 0 takes those of the first stage, or of its narrow inside if bottleneck
    bottleneck   1-3-1 blocks with a narrow inside, which strides in the 3 (ResNet-50, version 1.5)
    narrowing    how many times narrower than the block that inside is; 2 in Wide ResNet-50-2 and -101-2
    """

    modality: str = "image"
    channels: int = 3
    rank: int = 2
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    stem_stride: int = 2
    stem: int = 0
    bottleneck: bool = False
    narrowing: int = 4

    def __post_init__(self) -> None:
        _same_length(self)
        if self.bottleneck and any(w % self.narrowing for w in self.widths):
            raise RequestError(f"ResNetConfig: bottleneck widths must divide by {self.narrowing}; got {self.widths}.")

    @property
    def stride(self) -> int:
        """Positions of the input to one of the last feature map, along each axis."""
        return (1 if self.stem_stride == 1 else 2 * self.stem_stride) << (len(self.widths) - 1)

    @property
    def ends(self) -> tuple[int, ...]:
        """How many layers of the body stand up to the end of each stage."""
        stem = 3 if self.stem_stride == 1 else 4
        return tuple(stem + deep for deep in accumulate(self.depths))

    def build(self) -> "ConvNet":
        return ConvNet(self)


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """ConvNeXt (Liu et al., 2022): patchify stem, depthwise 7-wide convolutions, layer norm, one GELU per block.

    The mean of the tokens is normalised, the tokens themselves are not, as in the paper; `eps` is of that last norm.
    """

    modality: str = "image"
    channels: int = 3
    rank: int = 2
    widths: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    stem_stride: int = 4
    layer_scale: float = 1e-6
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _same_length(self)

    @property
    def stride(self) -> int:
        """As in ResNetConfig."""
        return self.stem_stride << (len(self.widths) - 1)

    @property
    def ends(self) -> tuple[int, ...]:
        """As in ResNetConfig."""
        return tuple(2 + 2 * stage + deep for stage, deep in enumerate(accumulate(self.depths)))

    def build(self) -> "ConvNet":
        return ConvNet(self)


class ConvNet(Encoder):
    def __init__(self, config: ResNetConfig | ConvNeXtConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.modality, config.widths[-1]
        self.normalise = Normalise(config.channels)
        self.body = _resnet(config) if isinstance(config, ResNetConfig) else _convnext(config)
        if config.rank == 2:
            # a third faster on CPUs, and what GPUs want
            self.body = torch.nn.utils.convert_conv2d_weight_memory_format(self.body, torch.channels_last)
        self.norm = nn.LayerNorm(self.dim, config.eps) if isinstance(config, ConvNeXtConfig) else nn.Identity()

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        if keep is not None:
            raise RequestError(
                f"A convolutional encoder sees every position and cannot leave out tokens; "
                f"this method needs an encoder made of tokens, such as --encoder vit-tiny ({self.modality})."
            )
        tokens = self.maps(x)[-1].flatten(2).transpose(1, 2)
        return Features(tokens, self.norm(tokens.mean(1)))

    def maps(
        self, x: Input, seen: Bool[Tensor, "b ..."] | None = None, upto: int | None = None
    ) -> list[Float[Tensor, "b c ..."]]:
        """The last feature map of each stage, the finest first; of the first `upto` stages alone where that is given.

        `seen` divides the input into units, such as those that become one position of the last map; the encoder then works
        on the seen ones alone. After every layer hidden positions are zero, and batch statistics are those of seen positions.
        """
        dense = self.normalise(values(x))
        if self.config.rank == 2:
            dense = dense.contiguous(memory_format=torch.channels_last)
        dense, found = shown(dense, seen), []
        last = self.config.ends[(upto or len(self.config.ends)) - 1]
        for i, layer in zip(range(1, last + 1), self.body, strict=False):
            dense = applied(layer, dense, seen)
            if i in self.config.ends:
                found.append(dense)
        return found


def at(seen: Bool[Tensor, "b ..."], x: Float[Tensor, "b c ..."]) -> Bool[Tensor, "b ..."]:
    """Which positions of a feature map are seen. Raises RequestError where units are not as large as each other."""
    for axis, (wanted, units) in enumerate(zip(x.shape[2:], seen.shape[1:], strict=True), 1):
        if wanted % units:
            raise RequestError(
                f"A feature map of {tuple(x.shape[2:])} does not divide into {tuple(seen.shape[1:])} units."
            )
        seen = seen.repeat_interleave(wanted // units, axis)
    return seen


def shown(x: Float[Tensor, "b c ..."], seen: Bool[Tensor, "b ..."] | None) -> Float[Tensor, "b c ..."]:
    """Zero wherever it is hidden."""
    return x if seen is None else x * at(seen, x)[:, None]


def applied(layer: nn.Module, x: Float[Tensor, "b c ..."], seen: Bool[Tensor, "b ..."] | None) -> Tensor:
    """A layer as in sparse convolution (SparK, 2023): hidden positions say nothing, hear nothing and do not count."""
    if seen is None:
        return layer(x)
    if isinstance(layer, nn.Sequential):
        for part in layer:
            x = applied(part, x, seen)
        return x
    if isinstance(layer, Residual | ConvNeXtBlock):
        return layer(x, seen)
    if isinstance(layer, BATCH_NORM):
        where, last = at(seen, x), x.movedim(1, -1)
        real = layer(last[where].view(-1, x.shape[1], *[1] * (x.ndim - 2))).flatten(1)
        return real.new_zeros(last.shape).index_put((where,), real).movedim(-1, 1)
    return shown(layer(x), seen)


class Residual(nn.Module):
    def __init__(self, rank: int, width_in: int, width: int, stride: int, bottleneck: bool, narrowing: int) -> None:
        super().__init__()
        conv, norm = CONV[rank - 1], BATCH_NORM[rank - 1]
        narrow = width // narrowing
        # (channels in, channels out, kernel, stride)
        shapes = (
            [(width_in, narrow, 1, 1), (narrow, narrow, 3, stride), (narrow, width, 1, 1)]
            if bottleneck
            else [(width_in, width, 3, stride), (width, width, 3, 1)]
        )
        layers: list[nn.Module] = []
        for inner, outer, kernel, step in shapes:
            layers += [conv(inner, outer, kernel, step, kernel // 2, bias=False), norm(outer), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.skip = (
            nn.Identity()
            if stride == 1 and width_in == width
            else nn.Sequential(conv(width_in, width, 1, stride, bias=False), norm(width))
        )

    def forward(
        self, x: Float[Tensor, "b c ..."], seen: Bool[Tensor, "b ..."] | None = None
    ) -> Float[Tensor, "b d ..."]:
        return torch.relu(applied(self.skip, x, seen) + applied(self.body, x, seen))


class ConvNeXtBlock(nn.Module):
    def __init__(self, rank: int, width: int, layer_scale: float) -> None:
        super().__init__()
        self.spatial = CONV[rank - 1](width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))

    def forward(
        self, x: Float[Tensor, "b c ..."], seen: Bool[Tensor, "b ..."] | None = None
    ) -> Float[Tensor, "b c ..."]:
        y = self.gamma * self.mlp(self.norm(self.spatial(x).movedim(1, -1)))
        return x + shown(y.movedim(-1, 1), seen)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def _resnet(config: ResNetConfig) -> nn.Sequential:
    conv, norm, r = CONV[config.rank - 1], BATCH_NORM[config.rank - 1], config.rank
    width = config.stem or config.widths[0] // (4 if config.bottleneck else 1)
    kernel = 3 if config.stem_stride == 1 else 7
    layers: list[nn.Module] = [
        conv(config.channels, width, kernel, config.stem_stride, kernel // 2, bias=False),
        norm(width),
        nn.ReLU(inplace=True),
    ]
    if config.stem_stride > 1:
        layers.append(MAX_POOL[r - 1](3, 2, 1))
    for stage, (wide, deep) in enumerate(zip(config.widths, config.depths, strict=True)):
        for i in range(deep):
            layers.append(
                Residual(r, width, wide, 2 if i == 0 and stage > 0 else 1, config.bottleneck, config.narrowing)
            )
            width = wide
    return nn.Sequential(*layers)


def _convnext(config: ConvNeXtConfig) -> nn.Sequential:
    conv, s = CONV[config.rank - 1], config.stem_stride
    layers: list[nn.Module] = [conv(config.channels, config.widths[0], s, s), ChannelNorm(config.widths[0])]
    for stage, (wide, deep) in enumerate(zip(config.widths, config.depths, strict=True)):
        if stage:
            layers += [ChannelNorm(config.widths[stage - 1]), conv(config.widths[stage - 1], wide, 2, 2)]
        layers += [ConvNeXtBlock(config.rank, wide, config.layer_scale) for _ in range(deep)]
    return nn.Sequential(*layers)


def _same_length(config: ResNetConfig | ConvNeXtConfig) -> None:
    if len(config.widths) != len(config.depths):
        raise RequestError(
            f"{type(config).__name__}: widths {config.widths} and depths {config.depths} must name the same stages."
        )
