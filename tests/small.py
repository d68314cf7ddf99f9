"""Encoders and batches small enough to test every method with."""

from dataclasses import replace

import torch

from headwater.core.rng import Rng
from headwater.core.types import Annotations, Batch, Graph, Input, Step
from headwater.core.verbs import Encoder
from headwater.parts.convnet import ResNetConfig
from headwater.parts.crate import CrateConfig
from headwater.parts.dit import DiTConfig
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.graphnet import GraphNetConfig
from headwater.parts.mixer import MixerConfig
from headwater.parts.pdn import PDNConfig
from headwater.parts.seq2seq import T5EncoderConfig, T5TrunkConfig
from headwater.parts.tokens import (
    GraphTokenizerConfig,
    GridTokenizerConfig,
    PointsTokenizerConfig,
    SeriesTokenizerConfig,
    SpectrogramTokenizerConfig,
    TableTokenizerConfig,
    TextTokenizerConfig,
)
from headwater.parts.transformer import TransformerConfig

TRUNK = TransformerConfig(dim=16, depth=2, heads=2)


def vit(channels: int = 3, patch: int = 4, **more: object) -> Encoder:
    """16 x 16 pictures -> 16 tokens of width 16."""
    tokenizer = GridTokenizerConfig(modality="image", channels=channels, patch=(patch, patch))
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK, **more).build()


def crate(**more: object) -> Encoder:
    """The same tokens, and white-box layers."""
    tokenizer = GridTokenizerConfig(modality="image", channels=3, patch=(4, 4))
    trunk = CrateConfig(dim=16, depth=2, heads=2, **more)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=trunk, class_token=True).build()


def dit() -> Encoder:
    """The same tokens, and layers that are told the time."""
    tokenizer = GridTokenizerConfig(modality="image", channels=3, patch=(4, 4))
    trunk = DiTConfig(dim=16, depth=2, heads=2)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=trunk, class_token=True, registers=3, pool="prefix").build()


def convnet(channels: int = 3) -> Encoder:
    return ResNetConfig(channels=channels, widths=(8, 16), depths=(1, 1), stem_stride=1).build()


def pdn() -> Encoder:
    return PDNConfig(inner=(4, 8), dim=6, padded=True).build()


def text() -> Encoder:
    return TokenEncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=32), trunk=TRUNK, pool="last").build()


def t5(**more: object) -> Encoder:
    trunk = T5TrunkConfig(dim=16, depth=2, heads=2, head_dim=8, hidden=24, **more)
    return T5EncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=32), trunk=trunk).build()


def table() -> Encoder:
    """Six columns, the last two of words."""
    return TokenEncoderConfig(
        tokenizer=TableTokenizerConfig(columns=6, categories=(0, 0, 0, 0, 3, 2)), trunk=TRUNK
    ).build()


def tjepa() -> Encoder:
    """The same columns, post-norm, and a regularisation token."""
    tokenizer = TableTokenizerConfig(columns=6, categories=(0, 0, 0, 0, 3, 2))
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=replace(TRUNK, norm="post"), registers=1).build()


def points() -> Encoder:
    return TokenEncoderConfig(tokenizer=PointsTokenizerConfig(groups=8, size=6), trunk=TRUNK).build()


def mixer(channels: int = 2, **more: object) -> Encoder:
    """Of the last 24 steps of series."""
    return MixerConfig(
        **{"channels": channels, "length": 24, "patch": 4, "dim": 16, "depth": 1, "any_series": True, **more}
    ).build()


def series(**more: object) -> Encoder:
    """Two channels of 32 samples -> 8 tokens."""
    tokenizer = SeriesTokenizerConfig(channels=2, patch=4)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK, **more).build()


def graph(**more: object) -> Encoder:
    return GraphNetConfig(tokenizer=GraphTokenizerConfig(channels=3), dim=16, depth=2, heads=2, **more).build()


def audio(**more: object) -> Encoder:
    """A tenth of a second at 8 kHz -> 4 x 4 tokens."""
    tokenizer = SpectrogramTokenizerConfig(rate=8000, patch=(2, 4), mels=16)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK, **more).build()


def frames() -> Encoder:
    """The same -> 4 tokens in a row, of all mel bins."""
    tokenizer = SpectrogramTokenizerConfig(rate=8000, patch=(2, 16), mels=16)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK).build()


def clips(channels: int = 3, patch: tuple[int, int, int] = (2, 4, 4), **more: object) -> Encoder:
    """Clips of 8 frames of 16 x 16 pixels -> 4 x 4 x 4 tokens."""
    tokenizer = GridTokenizerConfig(modality="video", channels=channels, patch=patch)
    return TokenEncoderConfig(tokenizer=tokenizer, **{"trunk": TRUNK, **more}).build()


def graphs(b: int, g: torch.Generator) -> Graph:
    """Rings of 7 to 12 nodes with three features each."""
    n = 7 + torch.arange(b) % 6
    at = torch.arange(12).expand(b, -1)
    ring = torch.stack([at, (at + 1) % n[:, None]], -1)
    edges = torch.cat([ring, ring.flip(-1)], 1)
    real = torch.cat([at, at], 1) < n[:, None]
    values = torch.randn(b, 3, 12, generator=g) * (at < n[:, None])[:, None]
    return Graph(values, n[:, None], torch.where(real[..., None], edges, -1))


def batch(b: int = 8, seed: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = {
        "image": torch.rand(b, 3, 16, 16, generator=g),
        "text": torch.randint(0, 32, (b, 5), generator=g),
        "table": torch.cat([torch.randn(b, 4, generator=g), torch.randint(0, 2, (b, 2), generator=g)], 1),
        "points": torch.randn(b, 3, 40, generator=g),
        "graph": graphs(b, g),
        "series": torch.randn(b, 2, 32, generator=g),
        "audio": 0.1 * torch.randn(b, 1, 800, generator=g),
        "video": torch.rand(b, 3, 8, 16, 16, generator=g),
    }
    marked = marks(b, g)
    return Batch(x=x, y=torch.arange(b) % 4, annotations=marked, targets=torch.randn(b, 5, generator=g))


def marks(b: int, g: torch.Generator) -> Annotations:
    """One to three boxes of three classes on each picture."""
    corner, side = torch.randint(0, 8, (b, 3, 2), generator=g), torch.randint(4, 9, (b, 3, 2), generator=g)
    there = torch.arange(3) <= torch.arange(b)[:, None] % 3
    boxes = torch.cat([corner, corner + side], 2).float() * there[..., None]
    return Annotations(boxes, torch.where(there, torch.randint(3, (b, 3), generator=g), -1))


def some(x: Input, rows: list[int]) -> Input:
    """These samples of a batch, in this order."""
    assert isinstance(x, torch.Tensor | Graph)
    return x[rows] if isinstance(x, torch.Tensor) else Graph(x.values[rows], x.extent[rows], x.edges[rows])


def step(seed: int = 2, progress: float = 0.5) -> Step:
    return Step(Rng(seed), progress)
