"""Swin and SwinV2 in the format of `transformers`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Rule, Same, Stacked
from headwater.interop.huggingface.images import PictureFamily
from headwater.parts.swin import SwinConfig

# ours, theirs, within a block; of what has a weight and a bias
BLOCK = (
    ("attention.out", "attention.output.dense"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("mlp.0", "intermediate.dense"),
    ("mlp.2", "output.dense"),
)
QKV = ("query", "key", "value")
FIXED = {"hidden_act": "gelu", "use_absolute_embeddings": False}


class Swin(PictureFamily):
    normalise = "normalise"
    kinds: ClassVar[tuple[str, ...]] = ("swin", "swinv2")
    left: ClassVar[tuple[str, ...]] = ("embeddings.mask_token",)

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> SwinConfig:
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise RequestError(f"{name}={config[name]!r} is not supported for Swin; {value!r} is.")
        version: Literal[1, 2] = 2 if config["model_type"] == "swinv2" else 1
        depths = tuple(config.get("depths") or (2, 2, 6, 2))
        learned_at = tuple(config.get("pretrained_window_sizes") or ())[: len(depths)] if version == 2 else ()
        return SwinConfig(
            channels=config.get("num_channels", 3),
            patch=_side(config, "patch_size", 4),
            dim=config.get("embed_dim", 96),
            depths=depths,
            heads=tuple(config.get("num_heads") or (3, 6, 12, 24)),
            window=config.get("window_size", 7),
            version=version,
            mlp_ratio=config.get("mlp_ratio", 4.0),
            qkv_bias=config.get("qkv_bias", True),
            eps=config.get("layer_norm_eps", 1e-5),
            learned_at=learned_at if any(learned_at) else (),
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        made = self.architecture(config, {})
        pairs = [
            ("patches", "embeddings.patch_embeddings.projection"),
            ("patch_norm", "embeddings.norm"),
            ("norm", "layernorm"),
        ]
        out: list[Rule] = []
        for stage, deep in enumerate(made.depths):
            if stage:
                theirs = f"encoder.layers.{stage - 1}.downsample"
                pairs.append((f"merges.{stage - 1}.norm", f"{theirs}.norm"))
                out.append(Same(f"merges.{stage - 1}.reduce.weight", f"{theirs}.reduction.weight"))
            for i in range(deep):
                ours, theirs = f"stages.{stage}.{i}", f"encoder.layers.{stage}.blocks.{i}"
                pairs += [(f"{ours}.{o}", f"{theirs}.{t}") for o, t in BLOCK]
                out += _attention(f"{ours}.attention", f"{theirs}.attention.self", made)
        return [*out, *(Same(f"{o}.{p}", f"{t}.{p}") for o, t in pairs for p in ("weight", "bias"))]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(architecture, SwinConfig):
            raise RequestError("Swin of `transformers` is a Swin.")
        made, size = architecture, preprocessing.get("size")
        stages = len(made.depths)
        return {
            "model_type": "swin" if made.version == 1 else "swinv2",
            "architectures": ["SwinModel" if made.version == 1 else "Swinv2Model"],
            "num_channels": made.channels,
            "patch_size": made.patch,
            "embed_dim": made.dim,
            "hidden_size": made.dim << (stages - 1),
            "depths": [*made.depths],
            "num_heads": [*made.heads],
            "num_layers": stages,
            "window_size": made.window,
            "mlp_ratio": made.mlp_ratio,
            "qkv_bias": made.qkv_bias,
            "layer_norm_eps": made.eps,
            "drop_path_rate": made.drop_path,
            **FIXED,
            **({"image_size": size[0]} if size else {}),
            **({"pretrained_window_sizes": [*(made.learned_at or (0,) * stages)]} if made.version == 2 else {}),
        }


def _attention(ours: str, theirs: str, made: SwinConfig) -> list[Rule]:
    out: list[Rule] = [Stacked(f"{ours}.qkv.weight", tuple(f"{theirs}.{p}.weight" for p in QKV))]
    if made.version == 1:
        if made.qkv_bias:
            out.append(Stacked(f"{ours}.qkv.bias", tuple(f"{theirs}.{p}.bias" for p in QKV)))
        return [*out, Same(f"{ours}.table", f"{theirs}.relative_position_bias_table")]
    if made.qkv_bias:
        out += [Same(f"{ours}.bias_{p[0]}", f"{theirs}.{p}.bias") for p in ("query", "value")]
    out.append(Changed(f"{ours}.logit", f"{theirs}.logit_scale", lambda x: x.flatten(), lambda x: x[:, None, None]))
    mlp = "continuous_position_bias_mlp"
    return [*out, *(Same(f"{ours}.bias.{p}", f"{theirs}.{mlp}.{p}") for p in ("0.weight", "0.bias", "2.weight"))]


def _side(config: Mapping[str, Any], name: str, default: int) -> int:
    given = config.get(name, default)
    if isinstance(given, int):
        return given
    if len({*given}) != 1:
        raise RequestError(f"{name}={given!r} is not supported for Swin; a square one is.")
    return int(given[0])
