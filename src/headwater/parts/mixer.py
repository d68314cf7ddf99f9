"""PatchTSMixer (Ekambaram et al., TSMixer, 2023): patches of a series mixed by small networks over patches and features.

Each channel is scaled by itself and becomes patches; all channels share the weights and, with `mixing`, also speak to each
other. After every network a gate weighs what it says. A network over patches knows their number, so the length is fixed;
with `levels` it is that of TTM (Ekambaram et al., Tiny Time Mixers, 2024).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Graph, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.positions import sincos
from headwater.parts.tokens import Normalise
from headwater.parts.tokens.base import coordinates

LEAST_VARIANCE, LEAST_SCALE = 1e-5, 1e-10  # so that a channel that never changes stays finite
LEAST_DIM = 4  # patches are not cut into parts of so few features


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """`length` is that of the series in steps; what does not fill a patch is left out at the beginning.

    stride     steps from patch to patch; 0 is the patch itself, so that they do not overlap
    scaling    of each channel of each sample: to mean 0 and deviation 1, to a mean size of 1, or none
    attention  heads of an attention over the patches beside their network; 0 leaves it out
    levels     TTM's stacks of `depth` blocks: the first cuts each patch into 2^(levels - 1) parts, the last into none; 0: one
    resolutions  so many kinds of sampling rate, told by a token before the patches; 0: none
    any_series   takes any number of channels and the last `length` steps of longer series; otherwise both are refused
    """

    modality: str = "series"
    channels: int
    length: int
    patch: int = 16
    stride: int = 0
    dim: int = 64
    depth: int = 4
    expansion: int = 2
    mixing: bool = False
    gated: bool = True
    attention: int = 0
    scaling: Literal["std", "mean", "none"] = "std"
    position: Literal["none", "sincos", "learned"] = "none"
    norm: Literal["layer", "batch"] = "layer"
    eps: float = 1e-5
    dropout: float = 0.0
    levels: int = 0
    resolutions: int = 0
    any_series: bool = False

    def __post_init__(self) -> None:
        if self.patch > self.length:
            raise RequestError(
                f"MixerConfig: a patch of {self.patch} is longer than the series of {self.length} steps."
            )
        if self.attention and self.dim % self.attention:
            raise RequestError(f"MixerConfig: dim {self.dim} does not divide into {self.attention} heads.")
        if self.any_series and (self.mixing or self.scaling == "none"):
            raise RequestError(
                "MixerConfig: any_series=True needs channels that do not mix and are scaled by themselves."
            )
        if self.levels and self.dim % self.parts(self.levels - 1):
            raise RequestError(
                f"MixerConfig: with levels={self.levels}, dim {self.dim} must divide by {self.parts(self.levels - 1)}."
            )

    @property
    def patches(self) -> int:
        return (self.length - self.patch) // (self.stride or self.patch) + 1

    @property
    def tokens(self) -> int:
        """The patches, and the token that tells the sampling rate."""
        return self.patches + (self.resolutions > 0)

    def parts(self, level: int) -> int:
        """How many parts each patch is cut into at a level, counted from the coarsest."""
        return 2**level if self.dim // 2**level > LEAST_DIM else 1

    def over(self, tokens: int, dim: int) -> "MixerConfig":
        """That of blocks over so many tokens of so many features."""
        return replace(self, length=tokens, patch=1, stride=0, dim=dim, levels=0, resolutions=0)

    def build(self) -> "Mixer":
        return Mixer(self)


class Mixer(Encoder):
    """Its tokens are the patches of the first channel, then of the second and so on; their mean is pooled."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.modality, config.dim
        self.normalise = Normalise(config.channels)
        self.embed = nn.Linear(config.patch, config.dim)
        table = sincos(coordinates((config.patches,), "cpu")[None], config.dim)[0]
        if config.position == "learned":
            self.position = nn.Parameter(0.02 * torch.randn_like(table))
        elif config.position == "sincos":
            self.register_buffer("position", table)
        if config.resolutions:
            between = (config.patch + config.dim) // 2
            self.resolution = nn.Sequential(
                nn.Embedding(config.resolutions, config.patch),
                nn.Linear(config.patch, between),
                nn.GELU(),
                nn.Linear(between, config.dim),
            )
        if config.levels:
            self.blocks = nn.Sequential(*(Level(config, config.parts(i)) for i in reversed(range(config.levels))))
        else:
            self.blocks = stack(config.over(config.tokens, config.dim))

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        """NaN is a missing value and counts as its channel's mean."""
        if keep is not None:
            raise RequestError(
                "A mixer knows every patch by its number and cannot leave out tokens; this method needs an encoder such as "
                f"--encoder vit-micro ({self.modality})."
            )
        out = self.mix(self.cut(scaled(self.seen(x), self.config.scaling)))
        first = out.shape[2] - self.config.patches
        tokens = out[:, :, first:].flatten(1, 2)
        return Features(tokens, tokens.mean(1), out[:, :, 0] if first else None)

    def seen(self, x: Input) -> Float[Tensor, "b c t"]:
        """The steps that it looks at, each channel normalised as the data are."""
        length = self.config.length
        dense = last(x, length) if self.config.any_series else values(x)
        if dense.shape[-1] != length:
            raise RequestError(f"The mixer was made for series of {length} steps; the input has {dense.shape[-1]}.")
        return self.standard(dense)

    def standard(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b c t"]:
        """Each channel normalised as the data are; channels of other data, as they come."""
        foreign = self.config.any_series and x.shape[1] != self.config.channels
        out: Tensor = x if foreign else self.normalise(x)
        return out

    def original(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b c t"]:
        """The inverse of `standard`."""
        foreign = self.config.any_series and x.shape[1] != self.config.channels
        return x if foreign else x * self.normalise.std[:, None] + self.normalise.mean[:, None]

    def cut(self, x: Shaped[Tensor, "b c t"]) -> Shaped[Tensor, "b c n p"]:
        config = self.config
        stride = config.stride or config.patch
        start = config.length - config.patch - stride * (config.patches - 1)
        return x[..., start:].unfold(-1, config.patch, stride)

    def mix(
        self, patches: Float[Tensor, "b c n p"], resolution: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c m d"]:
        """What the blocks make of scaled patches; with `resolutions` the token of the sampling rate comes first, which is
        the first kind (unknown) where nothing is said."""
        vectors = self.embed(patches)
        if self.config.position != "none":
            vectors = vectors + self.position
        if self.config.resolutions:
            kind = (
                torch.zeros(len(vectors), dtype=torch.long, device=vectors.device) if resolution is None else resolution
            )
            told = self.resolution(kind)[:, None, None].expand(-1, vectors.shape[1], -1, -1)
            vectors = torch.cat([told.to(vectors.dtype), vectors], 2)
        out: Tensor = self.blocks(vectors)
        return out


def last(x: Input, length: int) -> Float[Tensor, "b c s"]:
    """The last `length` steps of each series."""
    if isinstance(x, Tensor | Graph):
        return values(x)[..., -length:]
    if int(x.extent.min()) < length:
        raise RequestError(f"A series of {int(x.extent.min())} steps is shorter than the {length} that the mixer sees.")
    at = x.extent - length + torch.arange(length, device=x.values.device)
    return x.values.gather(2, at[:, None].expand(-1, x.values.shape[1], -1))


def moments(x: Float[Tensor, "b c t"], kind: str) -> tuple[Float[Tensor, "b c 1"], Float[Tensor, "b c 1"]]:
    """What `scaled` takes away from each channel of each sample, and what it divides by."""
    known = ~x.isnan()
    n, filled = known.sum(-1, keepdim=True).clamp(min=1), x.nan_to_num(0.0)
    mean = filled.sum(-1, keepdim=True) / n
    if kind == "std":
        off = (filled - mean) * known
        return mean, (off.square().sum(-1, keepdim=True) / n + LEAST_VARIANCE).sqrt()
    size = (filled.abs().sum(-1, keepdim=True) / n).clamp(min=LEAST_SCALE)
    return torch.zeros_like(mean), size if kind == "mean" else torch.ones_like(mean)


def scaled(x: Float[Tensor, "b c t"], kind: str) -> Float[Tensor, "b c t"]:
    """Each channel of each sample by itself; a missing value becomes its mean."""
    known = ~x.isnan()
    away, scale = moments(x, kind)
    if kind == "std":
        return (x.nan_to_num(0.0) - away) * known / scale
    mean = x.nan_to_num(0.0).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(known, x, mean) / scale


def stack(config: MixerConfig) -> nn.Sequential:
    return nn.Sequential(*(Block(config) for _ in range(config.depth)))


class Level(nn.Module):
    """Blocks over patches cut into parts: as many more tokens with as many fewer features, by a change of shape alone."""

    def __init__(self, config: MixerConfig, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.blocks = stack(config.over(config.tokens * parts, config.dim // parts))

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n d"]:
        return self.down(self.blocks(self.up(x)))

    def up(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c m e"]:
        return x.unflatten(3, (self.parts, -1)).flatten(2, 3)

    def down(self, x: Float[Tensor, "b c m e"]) -> Float[Tensor, "b c n d"]:
        return x.unflatten(2, (-1, self.parts)).flatten(3, 4)


class Block(nn.Module):
    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.channels = Mix(config, config.channels, axis=1) if config.mixing else nn.Identity()
        self.patches = Mix(config, config.patches, axis=2)
        self.features = Mix(config, config.dim, axis=3)

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n d"]:
        return self.features(self.patches(self.channels(x)))


class Mix(nn.Module):
    """A network along one axis of [b c n d], with a gate (before it along the channels, after it along the others)."""

    def __init__(self, config: MixerConfig, size: int, axis: int) -> None:
        super().__init__()
        self.axis, hidden = axis, size * config.expansion
        self.norm = Norm(config)
        self.mlp = nn.Sequential(
            nn.Linear(size, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, size),
            nn.Dropout(config.dropout),
        )
        self.gate = Gate(size) if config.gated else nn.Identity()
        self.attention = Attention(config) if config.attention and axis == 2 else None

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n d"]:
        y = self.norm(x)
        along = y.movedim(self.axis, -1)
        along = self.mlp(self.gate(along)) if self.axis == 1 else self.gate(self.mlp(along))
        said = along.movedim(-1, self.axis)
        return x + (said if self.attention is None else self.attention(y, said))


class Gate(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(size, size)

    def forward(self, x: Float[Tensor, "b u v s"]) -> Float[Tensor, "b u v s"]:
        return x * self.weigh(x).softmax(-1)


class Attention(nn.Module):
    """Attention over the patches of each channel, added to what their network said, and normalised with it."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.heads = config.attention
        self.qkv, self.out = nn.Linear(config.dim, 3 * config.dim), nn.Linear(config.dim, config.dim)
        self.norm = Norm(config)

    def forward(self, x: Float[Tensor, "b c n d"], said: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n d"]:
        q, k, v = self.qkv(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).view_as(x)
        return self.norm(said + self.out(out))


class Norm(nn.Module):
    """Over the features of each patch, or over the batch."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.batch = config.norm == "batch"
        self.norm = nn.BatchNorm1d(config.dim, config.eps) if self.batch else nn.LayerNorm(config.dim, config.eps)

    def forward(self, x: Float[Tensor, "b c n d"]) -> Float[Tensor, "b c n d"]:
        return self.norm(x.flatten(0, 2)).view_as(x) if self.batch else self.norm(x)
