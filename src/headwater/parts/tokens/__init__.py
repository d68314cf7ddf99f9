"""Raw input -> patches -> tokens: the only parts that know a modality, and the moving of token sets.

A tokenizer offers `grid(x)`, `patches(x)` (what a reconstruction has to predict), `unpatch` (its exact inverse) and
`forward(x) -> Tokens`. Normalisation by the mean and deviation of the data is its first act, so that whoever holds an
encoder feeds it plain values: pixels as decoded, cells as written.
"""

from headwater.parts.tokens.bands import BandsTokenizer, BandsTokenizerConfig
from headwater.parts.tokens.base import Normalise, Tokenizer, coordinates, inside, pick, put, take
from headwater.parts.tokens.graph import GraphTokenizer, GraphTokenizerConfig
from headwater.parts.tokens.grid import GridTokenizer, GridTokenizerConfig
from headwater.parts.tokens.points import PointsTokenizer, PointsTokenizerConfig
from headwater.parts.tokens.series import SeriesTokenizer, SeriesTokenizerConfig
from headwater.parts.tokens.spectrogram import SpectrogramTokenizer, SpectrogramTokenizerConfig
from headwater.parts.tokens.table import TableTokenizer, TableTokenizerConfig
from headwater.parts.tokens.text import TextTokenizer, TextTokenizerConfig
from headwater.parts.tokens.wave import WaveTokenizer, WaveTokenizerConfig

TokenizerConfig = (
    BandsTokenizerConfig
    | GraphTokenizerConfig
    | GridTokenizerConfig
    | PointsTokenizerConfig
    | SeriesTokenizerConfig
    | SpectrogramTokenizerConfig
    | TableTokenizerConfig
    | TextTokenizerConfig
    | WaveTokenizerConfig
)

__all__ = [
    "BandsTokenizer",
    "BandsTokenizerConfig",
    "GraphTokenizer",
    "GraphTokenizerConfig",
    "GridTokenizer",
    "GridTokenizerConfig",
    "Normalise",
    "PointsTokenizer",
    "PointsTokenizerConfig",
    "SeriesTokenizer",
    "SeriesTokenizerConfig",
    "SpectrogramTokenizer",
    "SpectrogramTokenizerConfig",
    "TableTokenizer",
    "TableTokenizerConfig",
    "TextTokenizer",
    "TextTokenizerConfig",
    "Tokenizer",
    "TokenizerConfig",
    "WaveTokenizer",
    "WaveTokenizerConfig",
    "coordinates",
    "inside",
    "pick",
    "put",
    "take",
]
