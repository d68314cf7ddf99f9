"""Encoders and batches small enough to test every method with."""

import torch

from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.core.verbs import Encoder
from headwater.parts.convnet import ResNetConfig
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig, TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig

TRUNK = TransformerConfig(dim=16, depth=2, heads=2)


def vit(channels: int = 3, patch: int = 4, **more: object) -> Encoder:
    """16 x 16 pictures -> 16 tokens of width 16."""
    tokenizer = GridTokenizerConfig(modality="image", channels=channels, patch=(patch, patch))
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK, **more).build()


def convnet(channels: int = 3) -> Encoder:
    return ResNetConfig(channels=channels, widths=(8, 16), depths=(1, 1), stem_stride=1).build()


def text() -> Encoder:
    return TokenEncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=32), trunk=TRUNK, pool="last").build()


def batch(b: int = 8, seed: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = {
        "image": torch.rand(b, 3, 16, 16, generator=g),
        "text": torch.randint(0, 32, (b, 5), generator=g),
    }
    return Batch(x=x, y=torch.arange(b) % 4)


def step(seed: int = 2, progress: float = 0.5) -> Step:
    return Step(Rng(seed), progress)
