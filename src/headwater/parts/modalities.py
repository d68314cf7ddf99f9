"""What is known of each modality: how it becomes tokens, which views suit it, which encoder to begin with.

The one place to look, and the one to add to. Facts are those of `Source.spec`: channels and size for images and what
else fills a grid, channels and length for series and sound, columns for tables, vocabulary for text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.core.errors import unknown
from headwater.parts.tokens import (
    BandsTokenizerConfig,
    GraphTokenizerConfig,
    GridTokenizerConfig,
    PointsTokenizerConfig,
    SeriesTokenizerConfig,
    SpectrogramTokenizerConfig,
    TableTokenizerConfig,
    TextTokenizerConfig,
    TokenizerConfig,
    WaveTokenizerConfig,
)
from headwater.parts.views import kit

Facts = Mapping[str, Any]
SENTINEL = (("B2", "B3", "B4", "B8"), ("B5", "B6", "B7", "B8A"), ("B11", "B12"), ("B1", "B9", "B10"))
SMALL_PICTURE = 64  # pixels: up to this side, pictures are seen whole and whatever their grain


@dataclass(frozen=True, kw_only=True)
class Modality:
    """`plural` names many of them in messages, and `rank` counts the axes of the grid (None: there is no grid).

    tokenizer   (facts, patch) -> how it becomes tokens; a patch of 0 means one that suits the data
    kit         facts -> its views
    dense       the encoder to begin with where a method needs no tokens; "" means the token encoder
    tokens      the encoder to begin with where it does
    others      other ways to make tokens, by the name that follows the slash in `vit-micro/wave`
    """

    plural: str
    rank: int | None
    tokenizer: Callable[[Facts, int], TokenizerConfig]
    kit: Callable[[Facts], kit.ViewKit]
    dense: Callable[[Facts], str] = lambda facts: ""
    tokens: Callable[[Facts], str] = lambda facts: "vit-micro"
    others: Mapping[str, Callable[[Facts], TokenizerConfig]] = field(default_factory=dict)

    def encoder(self, facts: Facts, tokens: bool) -> str:
        return (not tokens and self.dense(facts)) or self.tokens(facts)


def patch_for(size: int, wanted: int) -> int:
    """The divisor of `size` nearest to `wanted`, leaving at least four patches."""
    fits = [p for p in range(1, size // 4 + 1) if size % p == 0]
    return min(fits, key=lambda p: abs(p - wanted), default=1)


def _image(facts: Facts, patch: int) -> GridTokenizerConfig:
    side = min(facts["size"])
    side = patch or patch_for(side, 16 if side >= 96 else 4)
    return GridTokenizerConfig(modality="image", channels=facts["channels"], patch=(side, side))


def _groups(facts: Facts) -> BandsTokenizerConfig:
    """SatMAE++'s groups where the bands go by Sentinel-2's names: those of the finest pixels, the red edge, short-wave
    infrared, and the three of the coarsest pixels, which it leaves out. Elsewhere neighbours, up to four to a group."""
    channels, patch = facts["channels"], _image(facts, 0).patch
    names = [re.sub("^B0", "B", str(name).upper()) for name in facts.get("bands", ())]
    if len(names) == channels and {*names} <= {name for group in SENTINEL for name in group}:
        groups = [tuple(k for k, name in enumerate(names) if name in group) for group in SENTINEL]
    else:
        n = -(-channels // 4)
        groups = [tuple(range(channels * g // n, channels * (g + 1) // n)) for g in range(n)]
    return BandsTokenizerConfig(groups=tuple(group for group in groups if group), patch=patch[0])


def _series(facts: Facts, patch: int) -> SeriesTokenizerConfig:
    length = facts["length"]
    patch = patch or (16 if length is None else patch_for(length, 16))
    return SeriesTokenizerConfig(channels=facts["channels"], patch=patch, gaps=facts.get("gaps", False))


def _table(facts: Facts, patch: int) -> TableTokenizerConfig:
    categories = tuple(facts.get("categories", ()))
    return TableTokenizerConfig(columns=facts["columns"], categories=categories if any(categories) else ())


def _video(facts: Facts, patch: int) -> GridTokenizerConfig:
    """Tubelets of two frames (VideoMAE, 2022)."""
    time, *sides = facts["size"]
    side = patch or patch_for(min(sides), 16 if min(sides) >= 96 else 8)
    return GridTokenizerConfig(modality="video", channels=facts["channels"], patch=(2 - time % 2, side, side))


def _volume(facts: Facts, patch: int) -> GridTokenizerConfig:
    if facts["size"] is None:
        return GridTokenizerConfig(modality="volume", channels=facts["channels"], patch=(patch or 16,) * 3, fill=True)
    patches = tuple(patch or patch_for(s, 16 if s >= 96 else 4) for s in facts["size"])
    return GridTokenizerConfig(modality="volume", channels=facts["channels"], patch=patches)


def _audio(facts: Facts, patch: int) -> SpectrogramTokenizerConfig:
    """AST's patches of 16 x 16 for sounds of seconds, smaller ones for shorter sounds."""
    short = facts["length"] is not None and facts["length"] < 2 * facts["rate"]
    sides = (patch, patch) if patch else ((8, 16) if short else (16, 16))
    mels = 64 if short else 128
    return SpectrogramTokenizerConfig(rate=facts["rate"], channels=facts["channels"], mels=mels, patch=sides)


def _frames(facts: Facts) -> SpectrogramTokenizerConfig:
    """40 ms of all mel bins, as in most of speech."""
    made = _audio(facts, 0)
    return replace(made, patch=(4, made.mels))


def _wave(facts: Facts) -> WaveTokenizerConfig:
    """The 20 ms of wav2vec 2.0 at 16 kHz; narrow for sounds under two seconds."""
    short = facts["length"] is not None and facts["length"] < 2 * facts["rate"]
    return WaveTokenizerConfig(rate=facts["rate"], channels=facts["channels"], width=64 if short else 512)


def _points(facts: Facts, patch: int) -> PointsTokenizerConfig:
    """Point-MAE's 64 groups of 32 for clouds of a thousand points and more; half as many points again as there are, where
    there are fewer, so that groups overlap as theirs do."""
    n = facts["points"]
    size = patch or max(4, min(32, n // 16))
    return PointsTokenizerConfig(groups=max(4, min(64, n // 8)), size=size, channels=facts["channels"])


def _image_net(facts: Facts) -> str:
    side = min(facts["size"])
    return "resnet-18" if side > SMALL_PICTURE else "resnet-micro" if side <= 16 else "resnet-nano"


def _image_transformer(facts: Facts) -> str:
    return "vit-small" if min(facts["size"]) > SMALL_PICTURE else "vit-micro"


MODALITIES: Mapping[str, Modality] = {
    "image": Modality(
        plural="images",
        rank=2,
        tokenizer=_image,
        kit=lambda f: kit.pictures(min(f["size"]), f["channels"], f.get("own_unit", False)),
        dense=_image_net,
        tokens=_image_transformer,
        others={"groups": _groups},
    ),
    "series": Modality(
        plural="series",
        rank=1,
        tokenizer=_series,
        kit=lambda f: kit.series(f["length"] or 0),
        dense=lambda f: "resnet-nano" if f["length"] is not None and not f.get("gaps") else "",
        others={
            "independent": lambda f: replace(_series(f, 0), independent=True, instance_norm=True),
            "instance": lambda f: replace(_series(f, 0), instance_norm=True),
        },
    ),
    "table": Modality(
        plural="table rows",
        rank=None,
        tokenizer=_table,
        kit=lambda f: kit.table(),
    ),
    "text": Modality(
        plural="texts",
        rank=None,
        tokenizer=lambda f, patch: TextTokenizerConfig(vocabulary=f["vocabulary"], scaled=True),
        kit=lambda f: kit.text(),
    ),
    "video": Modality(plural="clips", rank=3, tokenizer=_video, kit=lambda f: kit.video(f["channels"], f["size"])),
    "volume": Modality(
        plural="volumes",
        rank=3,
        tokenizer=_volume,
        kit=lambda f: kit.volume(f["size"] or (64, 64, 64)),
        dense=lambda f: "resnet-nano" if f["size"] else "",
    ),
    "points": Modality(plural="clouds", rank=None, tokenizer=_points, kit=lambda f: kit.points()),
    "graph": Modality(
        plural="graphs",
        rank=None,
        tokenizer=lambda f, patch: GraphTokenizerConfig(channels=f["channels"]),
        kit=lambda f: kit.graph(),
        tokens=lambda f: "gin-micro",
    ),
    "audio": Modality(
        plural="sounds",
        rank=None,
        tokenizer=_audio,
        kit=lambda f: kit.audio(f["rate"]),
        others={"frames": _frames, "wave": _wave},
    ),
}


def modality(name: str) -> Modality:
    """Raises RequestError for a name that is none."""
    if name not in MODALITIES:
        raise unknown("modality", name, MODALITIES)
    return MODALITIES[name]
