"""Maps of features of a trained network, stage by stage, and what they say of each patch of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.parts.convnet import ConvNet
from headwater.parts.encoders import TokenEncoder
from headwater.parts.swin import Swin
from headwater.parts.tokens import GridTokenizerConfig

QUARTERS = 4  # the blocks of a transformer of one resolution count as four stages


def layout(encoder: Encoder, stages: Sequence[int]) -> tuple[int, int]:
    """How many channels the pictures have that it sees, and how many pixels lie from one position of the map of the first of
    these stages to the next. Stages are counted from 1. Raises RequestError for an encoder without maps, or such a stage."""
    channels, spacings = 0, list[int]()
    if encoder.modality == "image" and isinstance(encoder, ConvNet):
        n, channels = len(encoder.config.widths), encoder.config.channels
        spacings = [encoder.config.stride >> (n - 1 - stage) for stage in range(n)]
    elif encoder.modality == "image" and isinstance(encoder, Swin):
        channels = encoder.config.channels
        spacings = [encoder.config.patch << stage for stage in range(len(encoder.config.depths))]
    elif encoder.modality == "image" and isinstance(encoder, TokenEncoder):
        grid = encoder.tokenizer.config
        if isinstance(grid, GridTokenizerConfig):
            channels, spacings = grid.channels, [max(grid.patch)] * QUARTERS
    if not spacings:
        raise RequestError(
            f"The teacher is a {type(encoder).__name__} ({encoder.modality}), which has no maps of pictures to look at; a "
            "ResNet, ConvNeXt, Swin or ViT has, trained here or given as hf:CHECKPOINT."
        )
    if not stages or not all(1 <= stage <= len(spacings) for stage in stages):
        raise RequestError(
            f"stages={tuple(stages)}: the teacher, a {type(encoder).__name__}, has stages 1 to {len(spacings)}."
        )
    return channels, spacings[stages[0] - 1]


def stage_maps(encoder: Encoder, x: Float[Tensor, "b c h w"], stages: Sequence[int]) -> list[Float[Tensor, "b _ _ _"]]:
    """The last map of each of these stages, counted from 1; of a ViT the tokens after so many quarters of its blocks, before
    the last norm. The encoder is one of those that `layout` knows."""
    if isinstance(encoder, ConvNet | Swin):
        made = encoder.maps(x, upto=max(stages))
        return [made[stage - 1] for stage in stages]
    assert isinstance(encoder, TokenEncoder)
    taps, grid = encoder.trace(x), encoder.tokenizer.grid(x)
    ends = [-(-len(taps) * stage // QUARTERS) for stage in stages]
    return [taps[end - 1].out[:, encoder.n_prefix :].mT.unflatten(2, grid) for end in ends]


@dataclass(frozen=True, kw_only=True)
class PatchFeatures:
    """PatchCore's features of patches (Roth et al., 2022): every position of a map with its neighbours, `around` a side, in
    `width` channels; all maps on one grid, side by side, in as many channels as are wanted. Channels become fewer by
    adaptive average pooling along them, which learns nothing.
    """

    around: int = 3
    width: int = 1024

    def __post_init__(self) -> None:
        if self.around < 1 or self.around % 2 == 0 or self.width < 1:
            raise RequestError(f"{self}: around is odd, and width is 1 or more.")

    def __call__(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]], grid: tuple[int, int], dim: int
    ) -> Float[Tensor, "b {dim} {grid[0]} {grid[1]}"]:
        """Bilinear, antialiased; it commutes with the pooling of channels, which comes first because that is cheaper."""
        made = []
        for each in maps:
            each = each.to(torch.promote_types(each.dtype, torch.float32))  # no half precision is resized on CPUs
            near = F.unfold(each, self.around, padding=self.around // 2)  # channel by channel, zero outside
            said = pooled(near, self.width).unflatten(2, each.shape[2:])
            same = tuple(each.shape[2:]) == grid
            made.append(said if same else F.interpolate(said, grid, mode="bilinear", antialias=True))
        return pooled(torch.cat(made, 1).flatten(2), dim).unflatten(2, grid)


def pooled(x: Float[Tensor, "b c n"], channels: int) -> Float[Tensor, "b {channels} n"]:
    return F.adaptive_avg_pool1d(x.mT, channels).mT
