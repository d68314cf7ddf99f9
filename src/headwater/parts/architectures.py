"""Encoders by name and size, and as JSON: a closed table of kinds, so nothing in a file can name code to import."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any, Literal

from headwater.core.errors import RequestError, spelled, unknown
from headwater.parts.conformer import ConformerConfig
from headwater.parts.convnet import ConvNeXtConfig, ResNetConfig
from headwater.parts.crate import CrateConfig
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.graphnet import GraphNetConfig
from headwater.parts.mixer import MixerConfig
from headwater.parts.modalities import MODALITIES, SMALL_PICTURE, patch_for
from headwater.parts.perceptron import PerceptronConfig
from headwater.parts.seq2seq import T5EncoderConfig, T5TrunkConfig
from headwater.parts.speech import SpeechEncoderConfig
from headwater.parts.swin import SwinConfig
from headwater.parts.texttower import TextTowerConfig
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
from headwater.parts.transformer import TransformerConfig
from headwater.parts.wrapped import WrappedConfig

EncoderConfig = (
    TokenEncoderConfig
    | ResNetConfig
    | ConvNeXtConfig
    | SwinConfig
    | MixerConfig
    | PerceptronConfig
    | GraphNetConfig
    | SpeechEncoderConfig
    | ConformerConfig
    | T5EncoderConfig
    | TextTowerConfig
    | WrappedConfig
)

KINDS: dict[str, type[Any]] = {
    kind.__name__.removesuffix("Config"): kind
    for kind in (
        TokenEncoderConfig,
        ResNetConfig,
        ConvNeXtConfig,
        SwinConfig,
        MixerConfig,
        PerceptronConfig,
        SpeechEncoderConfig,
        ConformerConfig,
        T5EncoderConfig,
        T5TrunkConfig,
        TextTowerConfig,
        WrappedConfig,
        TransformerConfig,
        CrateConfig,
        GraphNetConfig,
        BandsTokenizerConfig,
        GraphTokenizerConfig,
        GridTokenizerConfig,
        PointsTokenizerConfig,
        SeriesTokenizerConfig,
        SpectrogramTokenizerConfig,
        TableTokenizerConfig,
        TextTokenizerConfig,
        WaveTokenizerConfig,
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
NOPE = {name.replace("vit", "nope"): size for name, size in VIT.items()}  # the same, with no positions (MP3, 2022)
# width, depth, heads (Pai et al., 2024, from tiny on)
CRATE = {
    "crate-micro": (96, 4, 3),
    "crate-nano": (128, 6, 4),
    "crate-tiny": (384, 12, 6),
    "crate-small": (576, 12, 12),
    "crate-base": (768, 12, 12),
    "crate-large": (1024, 24, 16),
}
# width, depth, heads: post-norm, with a regularisation token (Thimonier et al., 2024)
TJEPA = {"tjepa-micro": (64, 4, 8)}
# widths, depths, stem stride
RESNET = {
    "resnet-micro": ((16, 32, 64), (1, 1, 1), 1),
    "resnet-nano": ((32, 64, 128), (1, 1, 1), 1),
    "resnet-18": ((64, 128, 256, 512), (2, 2, 2, 2), 2),
    "resnet-34": ((64, 128, 256, 512), (3, 4, 6, 3), 2),
    "resnet-50": ((256, 512, 1024, 2048), (3, 4, 6, 3), 2),
    "resnet-101": ((256, 512, 1024, 2048), (3, 4, 23, 3), 2),
    "resnet-152": ((256, 512, 1024, 2048), (3, 8, 36, 3), 2),
}
BOTTLENECK = ("resnet-50", "resnet-101", "resnet-152")
CONVNEXT = {
    "convnext-nano": ((64, 128, 256), (2, 2, 4), 2),
    "convnext-tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 4),
    "convnext-small": ((96, 192, 384, 768), (3, 3, 27, 3), 4),
    "convnext-base": ((128, 256, 512, 1024), (3, 3, 27, 3), 4),
}
# width, depths, heads, window, version (Liu et al., 2021 and 2022)
SWIN: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int, Literal[1, 2]]] = {
    "swin-micro": (48, (2, 2), (2, 4), 4, 1),
    "swin-tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 1),
    "swin-small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 1),
    "swin-base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 1),
    "swin-large": (192, (2, 2, 18, 2), (6, 12, 24, 48), 7, 1),
    "swinv2-tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 8, 2),
    "swinv2-small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 8, 2),
    "swinv2-base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 8, 2),
}
# width, depth
MIXER = {"mixer-micro": (64, 4), "mixer-nano": (128, 6)}
# width, blocks of a level, levels, patch, dropout (Ekambaram et al., 2024, for tiny)
TTM = {"ttm-micro": (32, 2, 3, 8, 0.0), "ttm-tiny": (192, 2, 3, 64, 0.2)}
PERCEPTRON = {"mlp-micro": (128, 3), "mlp-nano": (256, 4)}
# width, depth, heads (Gulati et al., 2020, from small on)
CONFORMER = {
    "conformer-micro": (96, 4, 4),
    "conformer-tiny": (144, 8, 4),
    "conformer-small": (144, 16, 4),
    "conformer-medium": (256, 16, 4),
    "conformer-large": (512, 17, 8),
}
# width, depth, heads, channels of the convolutions over the wave, tokens that tell a place (Baevski et al., 2020)
WAV2VEC2 = {
    "wav2vec2-micro": (96, 4, 3, 64, 32),
    "wav2vec2-base": (768, 12, 12, 512, 128),
    "wav2vec2-large": (1024, 24, 16, 512, 128),
}
# width, depth, heads, width of a head, width of the MLP (version 1.1 of T5 from small on)
T5 = {
    "t5-micro": (96, 4, 3, 32, 256),
    "t5-nano": (128, 6, 4, 32, 344),
    "t5-small": (512, 8, 6, 64, 1024),
    "t5-base": (768, 12, 12, 64, 2048),
    "t5-large": (1024, 24, 16, 64, 2816),
}
GRAPHNET = {"gin-micro": (96, 4), "gin-nano": (192, 5), "gat-micro": (96, 3), "gat-nano": (192, 4)}


def names() -> list[str]:
    first = chain(VIT, NOPE, CRATE, TJEPA, RESNET, CONVNEXT, SWIN, MIXER, TTM)
    return [*first, *PERCEPTRON, *CONFORMER, *WAV2VEC2, *T5, *GRAPHNET]


def named(name: str, modality: str, facts: Mapping[str, Any]) -> EncoderConfig:
    """The encoder `name` for data with these facts, such as `vit-small`, `vit-small/8` (patch), `vit-small/wave` (another
    way to make tokens, see `Modality.others`) or `resnet-18`.

    The facts are those of `Source.spec`.
    """
    kind, _, patch = spelled(name).partition("/")
    known = MODALITIES[modality]
    if patch and not patch.isdigit() and (patch not in known.others or kind not in (*VIT, *NOPE, *CRATE, *CONFORMER)):
        also = f", or {' or '.join(known.others)}" if known.others else ""
        raise RequestError(
            f"Encoder {name!r}: what follows the slash is the patch, a whole number such as vit-tiny/16{also}."
        )
    for sizes, reads, make in (
        (SWIN, "image", _swin),
        (MIXER, "series", _mixer),
        (TTM, "series", _ttm),
        (PERCEPTRON, "table", _perceptron),
        (T5, "text", _t5),
    ):
        if kind in sizes and modality == reads:
            return make(kind, facts, int(patch or 0))
        if kind in sizes:
            near = known.encoder(facts, tokens=True)
            raise RequestError(
                f"Encoder {name!r} reads {MODALITIES[reads].plural}; {known.plural} need one such as {near}."
            )
    if kind in CONFORMER or kind in WAV2VEC2:
        if modality != "audio":
            near = known.encoder(facts, tokens=True)
            raise RequestError(f"Encoder {name!r} reads sounds; {known.plural} need one such as {near}.")
        return _conformer(kind, facts, patch) if kind in CONFORMER else _wav2vec2(name, facts)
    if kind in GRAPHNET:
        if modality != "graph":
            raise RequestError(f"Encoder {name!r} reads graphs; {known.plural} need one such as vit-micro.")
        dim, depth = GRAPHNET[kind]
        nodes = known.tokenizer(facts, 0)
        assert isinstance(nodes, GraphTokenizerConfig)
        return GraphNetConfig(tokenizer=nodes, dim=dim, depth=depth, layer="gin" if kind.startswith("gin") else "gat")
    if kind in (*VIT, *NOPE, *CRATE, *TJEPA):
        tokenizer = known.others[patch](facts) if patch in known.others else known.tokenizer(facts, int(patch or 0))
        return _of_tokens(kind, tokenizer)
    if kind not in RESNET and kind not in CONVNEXT:
        raise unknown("encoder", name, names())
    if known.rank is None:
        raise RequestError(
            f"Encoder {name!r} is convolutional and needs a grid; a {modality} needs one such as vit-micro."
        )
    shape = {"modality": modality, "channels": facts["channels"], "rank": known.rank}
    widths, depths, stem = RESNET[kind] if kind in RESNET else CONVNEXT[kind]
    if kind in RESNET:
        return ResNetConfig(**shape, widths=widths, depths=depths, stem_stride=stem, bottleneck=kind in BOTTLENECK)
    return ConvNeXtConfig(**shape, widths=widths, depths=depths, stem_stride=stem)


def _of_tokens(kind: str, tokenizer: TokenizerConfig) -> TokenEncoderConfig:
    """CRATE's class token takes part in its attention as the paper has it."""
    dim, depth, heads = {**VIT, **NOPE, **CRATE, **TJEPA}[kind]
    if kind in CRATE:
        return TokenEncoderConfig(
            tokenizer=tokenizer, trunk=CrateConfig(dim=dim, depth=depth, heads=heads), class_token=True
        )
    if kind in TJEPA:
        trunk = TransformerConfig(dim=dim, depth=depth, heads=heads, eps=1e-5, norm="post")
        return TokenEncoderConfig(tokenizer=tokenizer, trunk=trunk, registers=1)
    trunk = TransformerConfig(dim=dim, depth=depth, heads=heads)
    return TokenEncoderConfig(tokenizer=tokenizer, trunk=trunk, position="none" if kind in NOPE else "sincos")


def _swin(kind: str, facts: Mapping[str, Any], patch: int) -> SwinConfig:
    dim, depths, heads, window, version = SWIN[kind]
    patch = patch or (4 if min(facts["size"]) > SMALL_PICTURE else 2)
    return SwinConfig(
        channels=facts["channels"], patch=patch, dim=dim, depths=depths, heads=heads, window=window, version=version
    )


def _mixer(kind: str, facts: Mapping[str, Any], patch: int) -> MixerConfig:
    dim, depth = MIXER[kind]
    if facts["length"] is None:
        raise RequestError(
            f"Encoder {kind!r} reads series of one length, and these differ; reading={{'window': ...}} cuts them to one, or "
            "take one such as vit-micro."
        )
    patch = patch or patch_for(facts["length"], 16)
    return MixerConfig(channels=facts["channels"], length=facts["length"], patch=patch, dim=dim, depth=depth)


def _ttm(kind: str, facts: Mapping[str, Any], patch: int) -> MixerConfig:
    dim, depth, levels, usual, dropout = TTM[kind]
    whole = _mixer("mixer-micro", facts, patch or patch_for(facts["length"] or usual, usual))
    return replace(whole, dim=dim, depth=depth, levels=levels, dropout=dropout, any_series=True)


def _perceptron(kind: str, facts: Mapping[str, Any], patch: int) -> PerceptronConfig:
    dim, depth = PERCEPTRON[kind]
    cells = MODALITIES["table"].tokenizer(facts, 0)
    assert isinstance(cells, TableTokenizerConfig)
    return PerceptronConfig(tokenizer=cells, dim=dim, depth=depth)


def _t5(kind: str, facts: Mapping[str, Any], patch: int) -> T5EncoderConfig:
    dim, depth, heads, head_dim, hidden = T5[kind]
    trunk = T5TrunkConfig(dim=dim, depth=depth, heads=heads, head_dim=head_dim, hidden=hidden)
    return T5EncoderConfig(tokenizer=TextTokenizerConfig(vocabulary=facts["vocabulary"]), trunk=trunk)


def _conformer(kind: str, facts: Mapping[str, Any], patch: str) -> ConformerConfig:
    """Frames of sound, `patch` of them to a token."""
    (dim, depth, heads), ways = CONFORMER[kind], MODALITIES["audio"].others
    tokenizer = ways["frames" if patch.isdigit() else patch or "frames"](facts)
    if patch.isdigit():
        assert isinstance(tokenizer, SpectrogramTokenizerConfig)
        tokenizer = replace(tokenizer, patch=(int(patch), tokenizer.mels))
    return ConformerConfig(tokenizer=tokenizer, dim=dim, depth=depth, heads=heads)


def _wav2vec2(name: str, facts: Mapping[str, Any]) -> SpeechEncoderConfig:
    """The base and smaller ones are post-norm with a norm over time, the large one pre-norm with norms over channels."""
    kind, _, patch = spelled(name).partition("/")
    if patch:
        raise RequestError(f"Encoder {name!r}: {kind} reads the wave itself and takes no patch.")
    dim, depth, heads, width, kernel = WAV2VEC2[kind]
    large = kind == "wav2vec2-large"
    stem = WaveTokenizerConfig(
        rate=facts["rate"], channels=facts["channels"], width=width, norm="layer" if large else "group", bias=large
    )
    trunk = TransformerConfig(dim=dim, depth=depth, heads=heads, eps=1e-5, norm="pre" if large else "post")
    return SpeechEncoderConfig(tokenizer=stem, trunk=trunk, kernel=kernel)


def to_json(config: Any) -> Any:
    """A tree of frozen dataclasses as plain JSON. "kind" says which class each is; a field of that name becomes "kind_"."""
    if is_dataclass(config):
        content = {"kind_" if f.name == "kind" else f.name: to_json(getattr(config, f.name)) for f in fields(config)}
        return {"kind": type(config).__name__.removesuffix("Config"), **content}
    return [to_json(v) for v in config] if isinstance(config, tuple) else config


def from_json(value: Any, kinds: Mapping[str, type[Any]] = KINDS) -> Any:
    """The inverse of `to_json`, made of these kinds alone. Raises RequestError for a kind or a field that this version does
    not know."""
    if isinstance(value, list):
        return tuple(from_json(v, kinds) for v in value)
    if not isinstance(value, dict):
        return value
    kind = kinds.get(value.get("kind", ""))
    if kind is None:
        raise unknown("architecture", str(value.get("kind")), kinds)
    given = {"kind" if k == "kind_" else k: from_json(v, kinds) for k, v in value.items() if k != "kind"}
    known = [f.name for f in fields(kind)]
    for name in given:
        if name not in known:
            raise unknown(f"field of {kind.__name__}", name, known)
    return kind(**given)
