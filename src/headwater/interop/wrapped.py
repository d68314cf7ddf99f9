"""Checkpoints without a counterpart here: any other model of `transformers` or timm, behind our interface."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Encoder
from headwater.interop import timm_resnet
from headwater.interop.huggingface import FAMILIES, Loaded, images
from headwater.interop.huggingface.loading import PROCESSORS, read_config, read_processor, read_weights
from headwater.parts.convnet import ConvNet
from headwater.parts.wrapped import INPUTS, Wrapped, WrappedConfig, encoding_part, quiet, said

VIDEO = ("videomae", "vivit", "timesformer")  # which call clips what other models call pictures
PLAIN = 16_000  # samples per second, where an audio checkpoint does not say


def load(at: Path) -> Loaded:
    """The checkpoint's model as it is. Raises RequestError where its library does not know it, it reads what is no one
    modality, or weights are missing."""
    config, processor = read_config(at), read_processor(at)
    if "model_type" not in config and "architecture" in config:
        return _timm(at, config)
    kind = str(config.get("model_type"))
    try:
        from transformers import AutoModel
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError as error:
        near = str(unknown("family of encoders", kind, FAMILIES))
        raise RequestError(
            f"{at}: {near} Others are wrapped, which needs transformers: pip install 'headwater[hf]'"
        ) from error
    if kind not in CONFIG_MAPPING:
        raise RequestError(f"{at}: {unknown('model_type', kind, FAMILIES)} Nor is it one that transformers can build.")
    read_weights(at)  # which refuses pickles
    try:
        with quiet():
            model, info = AutoModel.from_pretrained(
                at,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, ImportError, RuntimeError) as error:
        raise RequestError(f"{at}: transformers cannot load this {kind} ({_first_line(error)}).") from error
    lacking = sorted(n for n in info["missing_keys"] if "pooler" not in n)
    if lacking:
        raise RequestError(f"{at}: the checkpoint lacks {len(lacking)} weights of a {kind}, such as {lacking[0]}.")
    modality = _modality(model, kind)
    preprocessing = _preprocessing(at, config, processor, modality)
    made = WrappedConfig(
        library="transformers",
        settings=json.dumps({**model.config.to_dict(), "dtype": "float32"}, sort_keys=True, default=str),
        modality=modality,
        channels=int(config.get("num_channels", 3)),
        dim=1,
    )
    pooled = not info["missing_keys"] and modality in ("image", "video")
    made = _measured(model, made, pooled, preprocessing, kind)
    encoder = made.build()
    assert isinstance(encoder, Wrapped)
    encoder.model.load_state_dict(encoding_part(model).state_dict())
    if modality in ("image", "video"):
        encoder.normalise.load_state_dict(
            {k.rpartition(".")[2]: v for k, v in images.constants("", config, processor).items()}
        )
    return Loaded(encoder.eval(), encoder.config, preprocessing, kind)


def save(encoder: Encoder, architecture: WrappedConfig, preprocessing: Mapping[str, Any], at: Path) -> str:
    """The wrapped model as its own library writes it. Returns its model_type."""
    assert isinstance(encoder, Wrapped)
    if architecture.library == "timm":
        raise RequestError(
            "A wrapped model of timm cannot be written in the format of transformers; write safetensors."
        )
    with quiet():
        encoder.model.save_pretrained(at)  # type: ignore[operator]
    if architecture.modality in ("image", "video"):
        state = encoder.normalise.state_dict()
        made = images.processor(preprocessing, state["mean"], state["std"])
        if made:
            (at / PROCESSORS[0]).write_text(json.dumps(made, indent=1))
    tokenizer = preprocessing.get("read", {}).get("tokenizer")
    if tokenizer:
        (at / "tokenizer.json").write_text(tokenizer)
    return str(json.loads(architecture.settings)["model_type"])


def _modality(model: Any, kind: str) -> str:
    named = {theirs: ours for ours, theirs in INPUTS.items() if ours != "video"}
    name = str(model.main_input_name)
    several = isinstance(model.input_modalities, tuple | list) and len(model.input_modalities) > 1
    if name not in named or several:
        raise RequestError(
            f"A {kind} reads {name}{' and more' if several else ''}, which is no one modality of ours "
            f"({', '.join(sorted(named))} are); it cannot be wrapped."
        )
    return "video" if kind in VIDEO else named[name]


def _measured(
    model: Any, made: WrappedConfig, pooled: bool, preprocessing: Mapping[str, Any], kind: str
) -> WrappedConfig:
    """With the width of what it says, and whether it pools by itself: found by asking it once."""
    settings = model.config
    h, w = preprocessing.get("size") or (64, 64)
    sample = {
        "image": lambda: torch.zeros(1, made.channels, h, w),
        "video": lambda: torch.zeros(1, made.channels, getattr(settings, "num_frames", 8), h, w),
        "text": lambda: torch.ones(1, 4, dtype=torch.long),
        "audio": lambda: torch.zeros(1, 1, PLAIN),
        "series": lambda: torch.zeros(1, settings.num_input_channels, settings.context_length),
    }[made.modality]
    try:
        with torch.inference_mode():
            for pool in ("own", "mean") if pooled else ("mean",):
                tried = replace(made, pool=pool)
                try:
                    tokens, own = said(encoding_part(model).eval(), tried, sample(), None)
                    return replace(tried, dim=int((tokens if own is None else own).shape[-1]))
                except (AttributeError, KeyError):
                    if pool == "mean":
                        raise
        raise AssertionError
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"A {kind} does not answer with tokens and cannot be wrapped ({_first_line(error)})."
        ) from error


def _preprocessing(at: Path, config: Mapping[str, Any], processor: Mapping[str, Any], modality: str) -> dict[str, Any]:
    if modality in ("image", "video"):
        return images.preprocessing(config, processor)
    if modality == "audio":
        return {"read": {"rate": int(processor.get("sampling_rate", PLAIN))}}
    if modality == "text" and (at / "tokenizer.json").is_file():
        longest = int(config.get("max_position_embeddings", 512))
        return {"read": {"tokenizer": (at / "tokenizer.json").read_text(), "ended": False, "longest": longest}}
    return {}


def _timm(at: Path, config: Mapping[str, Any]) -> Loaded:
    """A folder of timm: config.json with "architecture" and "pretrained_cfg" beside the weights; a ResNet as one of ours."""
    about, name = config.get("pretrained_cfg", {}), str(config["architecture"])
    channels, height, width = about.get("input_size", (3, 224, 224))
    filters = ("bilinear", "bicubic")
    if about.get("interpolation", "bicubic") not in filters:
        raise RequestError(
            f"{at}: interpolation={about['interpolation']!r} is not supported; {' and '.join(filters)} are."
        )
    preprocessing = {
        "size": [height, width],
        "interpolation": about.get("interpolation", "bicubic"),
        "fit": "cover",
        "crop": float(about.get("crop_pct", 0.875)),
    }
    weights, args = read_weights(at), config.get("model_args", {})
    encoder: ConvNet | Wrapped
    if name in timm_resnet.SIZES and not args:
        encoder = timm_resnet.build(name, int(channels), weights, at)
    else:
        encoder = _wrapped_timm(name, args, config.get("num_features", 0), (channels, height, width), weights, at)
    mean, std = (
        torch.tensor(about.get(k, v)) for k, v in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225)))
    )
    assert isinstance(encoder.normalise, torch.nn.Module)
    encoder.normalise.load_state_dict({"mean": mean, "std": std})
    return Loaded(encoder.eval(), encoder.config, preprocessing, f"timm:{name}")


def _wrapped_timm(
    name: str, args: Mapping[str, Any], dim: int, size: tuple[int, int, int], weights: Mapping[str, Any], at: Path
) -> Wrapped:
    settings = json.dumps({"architecture": name, "model_args": args}, sort_keys=True)
    made = WrappedConfig(
        library="timm", settings=settings, modality="image", channels=int(size[0]), dim=int(dim), pool="own"
    )
    encoder = made.build()
    missing, _ = encoder.model.load_state_dict(weights, strict=False)  # what is over is the classifier
    if missing:
        raise RequestError(f"{at}: the checkpoint lacks {len(missing)} weights of a {name}, such as {missing[0]}.")
    with torch.inference_mode():
        dim = int(encoder.eval()(torch.zeros(1, *size)).pooled.shape[-1])
    encoder.config, encoder.dim = replace(made, dim=dim), dim
    return encoder


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
