"""PatchTSMixer (Ekambaram et al., TSMixer, 2023): patches of a series mixed by small networks over patches and features.

Each channel is scaled by itself and becomes patches; all channels share the weights and, with `mixing`, also speak to each
other. After every network a gate weighs what it says. A network over patches knows their number, so the length is fixed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, values
from headwater.parts.positions import sincos
from headwater.parts.tokens import Normalise
from headwater.parts.tokens.base import coordinates

LEAST_VARIANCE, LEAST_SCALE = 1e-5, 1e-10  # so that a channel that never changes stays finite


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """`length` is that of the series in steps; what does not fill a patch is left out at the beginning.

    stride     steps from patch to patch; 0 is the patch itself, so that they do not overlap
    scaling    of each channel of each sample: to mean 0 and deviation 1, to a mean size of 1, or none
    attention  heads of an attention over the patches beside their network; 0 leaves it out
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

    def __post_init__(self) -> None:
        if self.patch > self.length:
            raise RequestError(
                f"MixerConfig: a patch of {self.patch} is longer than the series of {self.length} steps."
            )
        if self.attention and self.dim % self.attention:
            raise RequestError(f"MixerConfig: dim {self.dim} does not divide into {self.attention} heads.")

    @property
    def patches(self) -> int:
        return (self.length - self.patch) // (self.stride or self.patch) + 1

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
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        """NaN is a missing value and counts as its channel's mean."""
        config = self.config
        if keep is not None:
            raise RequestError(
                "A mixer knows every patch by its number and cannot leave out tokens; this method needs an encoder such as "
                f"--encoder vit-micro ({self.modality})."
            )
        dense = self.normalise(values(x))
        if dense.shape[-1] != config.length:
            raise RequestError(
                f"The mixer was made for series of {config.length} steps; the input has {dense.shape[-1]}."
            )
        stride = config.stride or config.patch
        start = config.length - config.patch - stride * (config.patches - 1)
        vectors = self.embed(scaled(dense, config.scaling)[..., start:].unfold(-1, config.patch, stride))
        if config.position != "none":
            vectors = vectors + self.position
        tokens = self.blocks(vectors).flatten(1, 2)
        return Features(tokens, tokens.mean(1))


def scaled(x: Float[Tensor, "b c t"], kind: str) -> Float[Tensor, "b c t"]:
    """Each channel of each sample by itself; a missing value becomes its mean."""
    known = ~x.isnan()
    n, filled = known.sum(-1, keepdim=True).clamp(min=1), x.nan_to_num(0.0)
    mean = filled.sum(-1, keepdim=True) / n
    if kind == "std":
        off = (filled - mean) * known
        return off / (off.square().sum(-1, keepdim=True) / n + LEAST_VARIANCE).sqrt()
    x = torch.where(known, x, mean)
    return x / (filled.abs().sum(-1, keepdim=True) / n).clamp(min=LEAST_SCALE) if kind == "mean" else x


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
