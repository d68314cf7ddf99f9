"""Encoders by name and size, and as JSON: a closed table of kinds, so nothing in a file can name code to import."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any

from headwater.core.errors import RequestError, spelled, unknown
from headwater.parts.conformer import ConformerConfig
from headwater.parts.convnet import ConvNeXtConfig, ResNetConfig
from headwater.parts.crate import CrateConfig
from headwater.parts.dit import DiTConfig
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.graphnet import GraphNetConfig
from headwater.parts.lowrank import FactoredConfig
from headwater.parts.mixer import MixerConfig
from headwater.parts.modalities import MODALITIES, SMALL_PICTURE, patch_for
from headwater.parts.pdn import PDNConfig
from headwater.parts.perceptron import PerceptronConfig
from headwater.parts.prompted import PromptedConfig
from headwater.parts.seq2seq import T5EncoderConfig, T5TrunkConfig
from headwater.parts.sizes import (
    BOTTLENECK,
    CONFORMER,
    CONVNEXT,
    CRATE,
    DIT,
    GRAPHNET,
    MIXER,
    NOPE,
    PDN,
    PERCEPTRON,
    RESNET,
    SWIN,
    T5,
    TJEPA,
    TTM,
    VIT,
    WAV2VEC2,
)
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
    | PDNConfig
    | MixerConfig
    | PerceptronConfig
    | GraphNetConfig
    | SpeechEncoderConfig
    | ConformerConfig
    | T5EncoderConfig
    | TextTowerConfig
    | WrappedConfig
    | FactoredConfig
    | PromptedConfig
)

KINDS: dict[str, type[Any]] = {
    kind.__name__.removesuffix("Config"): kind
    for kind in (
        TokenEncoderConfig,
        ResNetConfig,
        ConvNeXtConfig,
        SwinConfig,
        PDNConfig,
        MixerConfig,
        PerceptronConfig,
        SpeechEncoderConfig,
        ConformerConfig,
        T5EncoderConfig,
        T5TrunkConfig,
        TextTowerConfig,
        WrappedConfig,
        FactoredConfig,
        PromptedConfig,
        TransformerConfig,
        CrateConfig,
        DiTConfig,
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


def names() -> list[str]:
    first = chain(VIT, NOPE, CRATE, DIT, TJEPA, RESNET, CONVNEXT, SWIN, PDN, MIXER, TTM)
    return [*first, *PERCEPTRON, *CONFORMER, *WAV2VEC2, *T5, *GRAPHNET]


def named(name: str, modality: str, facts: Mapping[str, Any]) -> EncoderConfig:
    """The encoder `name` for data with these facts, such as `vit-small`, `vit-small/8` (patch), `vit-small/wave` (another
    way to make tokens, see `Modality.others`) or `resnet-18`.

    The facts are those of `Source.spec`.
    """
    kind, _, patch = spelled(name).partition("/")
    known = MODALITIES[modality]
    tokenwise = (*VIT, *NOPE, *CRATE, *DIT)
    if patch and not patch.isdigit() and (patch not in known.others or kind not in (*tokenwise, *CONFORMER)):
        also = f", or {' or '.join(known.others)}" if known.others else ""
        raise RequestError(
            f"Encoder {name!r}: what follows the slash is the patch, a whole number such as vit-tiny/16{also}."
        )
    for sizes, reads, make in (
        (SWIN, "image", _swin),
        (PDN, "image", _pdn),
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
    if kind in (*tokenwise, *TJEPA):
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
    """CRATE's class token takes part in its attention as the paper has it; a DiT pools four, as UMD does."""
    dim, depth, heads = {**VIT, **NOPE, **CRATE, **DIT, **TJEPA}[kind]
    if kind in CRATE:
        return TokenEncoderConfig(
            tokenizer=tokenizer, trunk=CrateConfig(dim=dim, depth=depth, heads=heads), class_token=True
        )
    if kind in DIT:
        told = DiTConfig(dim=dim, depth=depth, heads=heads)
        return TokenEncoderConfig(tokenizer=tokenizer, trunk=told, class_token=True, registers=3, pool="prefix")
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


def _pdn(kind: str, facts: Mapping[str, Any], patch: int) -> PDNConfig:
    inner, dim, deep, padded = PDN[kind]
    return PDNConfig(channels=facts["channels"], inner=inner, dim=dim, deep=deep, padded=padded)


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
