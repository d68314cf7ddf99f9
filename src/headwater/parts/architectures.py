"""Encoders by name and size, and as JSON: a closed table of kinds, so nothing in a file can name code to import."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from headwater.core.errors import RequestError, spelled, unknown
from headwater.parts.convnet import ConvNeXtConfig, ResNetConfig
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.graphnet import GraphNetConfig
from headwater.parts.modalities import MODALITIES
from headwater.parts.tokens import (
    GraphTokenizerConfig,
    GridTokenizerConfig,
    PointsTokenizerConfig,
    SpectrogramTokenizerConfig,
    TableTokenizerConfig,
    TextTokenizerConfig,
)
from headwater.parts.transformer import TransformerConfig

EncoderConfig = TokenEncoderConfig | ResNetConfig | ConvNeXtConfig | GraphNetConfig

KINDS: dict[str, type[Any]] = {
    kind.__name__.removesuffix("Config"): kind
    for kind in (
        TokenEncoderConfig,
        ResNetConfig,
        ConvNeXtConfig,
        TransformerConfig,
        GraphNetConfig,
        GraphTokenizerConfig,
        GridTokenizerConfig,
        PointsTokenizerConfig,
        SpectrogramTokenizerConfig,
        TableTokenizerConfig,
        TextTokenizerConfig,
    )
}

# width, depth, heads (Dosovitskiy et al., 2020; Touvron et al., 2021; micro and nano are for 8 to 64 pixels)
VIT = {
    "vit-micro": (96, 4, 3),
    "vit-nano": (128, 6, 4),
    "vit-tiny": (192, 12, 3),
    "vit-small": (384, 12, 6),
    "vit-base": (768, 12, 12),
    "vit-large": (1024, 24, 16),
    "vit-huge": (1280, 32, 16),
}
# widths, depths, stem stride
RESNET = {
    "resnet-micro": ((16, 32, 64), (1, 1, 1), 1),
    "resnet-nano": ((32, 64, 128), (1, 1, 1), 1),
    "resnet-18": ((64, 128, 256, 512), (2, 2, 2, 2), 2),
    "resnet-34": ((64, 128, 256, 512), (3, 4, 6, 3), 2),
}
CONVNEXT = {
    "convnext-nano": ((64, 128, 256), (2, 2, 4), 2),
    "convnext-tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 4),
    "convnext-small": ((96, 192, 384, 768), (3, 3, 27, 3), 4),
    "convnext-base": ((128, 256, 512, 1024), (3, 3, 27, 3), 4),
}
# width, depth
GRAPHNET = {"gin-micro": (96, 4), "gin-nano": (192, 5), "gat-micro": (96, 3), "gat-nano": (192, 4)}


def names() -> list[str]:
    return [*VIT, *RESNET, *CONVNEXT, *GRAPHNET]


def named(name: str, modality: str, facts: Mapping[str, Any]) -> EncoderConfig:
    """The encoder `name` for data with these facts, such as `vit-small`, `vit-small/8` (patch) or `resnet-18`.

    The facts are those of `Source.spec`.
    """
    kind, _, patch = spelled(name).partition("/")
    known = MODALITIES[modality]
    if patch and not patch.isdigit():
        raise RequestError(
            f"Encoder {name!r}: what follows the slash is the patch, a whole number such as vit-tiny/16."
        )
    if kind in GRAPHNET:
        if modality != "graph":
            raise RequestError(f"Encoder {name!r} reads graphs; {known.plural} need one such as vit-micro.")
        dim, depth = GRAPHNET[kind]
        nodes = known.tokenizer(facts, 0)
        assert isinstance(nodes, GraphTokenizerConfig)
        return GraphNetConfig(tokenizer=nodes, dim=dim, depth=depth, layer="gin" if kind.startswith("gin") else "gat")
    if kind in VIT:
        dim, depth, heads = VIT[kind]
        trunk = TransformerConfig(dim=dim, depth=depth, heads=heads)
        return TokenEncoderConfig(tokenizer=known.tokenizer(facts, int(patch or 0)), trunk=trunk)
    if kind not in RESNET and kind not in CONVNEXT:
        raise unknown("encoder", name, names())
    if known.rank is None:
        raise RequestError(
            f"Encoder {name!r} is convolutional and needs a grid; a {modality} needs one such as vit-micro."
        )
    shape = {"modality": modality, "channels": facts["channels"], "rank": known.rank}
    config, sizes = (ResNetConfig, RESNET) if kind in RESNET else (ConvNeXtConfig, CONVNEXT)
    widths, depths, stem = sizes[kind]
    return config(**shape, widths=widths, depths=depths, stem_stride=stem)


def to_json(config: Any) -> Any:
    """A tree of frozen dataclasses as plain JSON."""
    if is_dataclass(config):
        content = {f.name: to_json(getattr(config, f.name)) for f in fields(config)}
        return {"kind": type(config).__name__.removesuffix("Config"), **content}
    return [to_json(v) for v in config] if isinstance(config, tuple) else config


def from_json(value: Any) -> Any:
    """The inverse of `to_json`. Raises RequestError for a kind or a field that this version does not know."""
    if isinstance(value, list):
        return tuple(from_json(v) for v in value)
    if not isinstance(value, dict):
        return value
    kind = KINDS.get(value.get("kind", ""))
    if kind is None:
        raise unknown("architecture", str(value.get("kind")), KINDS)
    given = {k: from_json(v) for k, v in value.items() if k != "kind"}
    known = [f.name for f in fields(kind)]
    for name in given:
        if name not in known:
            raise unknown(f"field of {kind.__name__}", name, known)
    return kind(**given)
