"""Vision transformers: ViT, DeiT, MAE's encoder, DINOv2 with and without registers, the image towers of CLIP and SigLIP.

What is pooled is the class token after the last norm (SigLIP: its attention head). The `pooler` that some checkpoints
carry belongs to a classifier and is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Parted, Rule, Same
from headwater.interop.huggingface.images import PictureFamily
from headwater.interop.huggingface.trunks import (
    ACTIVATIONS,
    OLD,
    Names,
    activation,
    blocks,
    both,
    pair,
    patches,
    positions,
    prefix,
    ratio,
    sizes,
)
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig

DINO = Names(
    norm1="norm1",
    norm2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    scale1="layer_scale1.lambda1",
    scale2="layer_scale2.lambda1",
)
TOWER = Names(
    block="encoder.layers.{i}.",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    out="self_attn.out_proj",
    norm1="layer_norm1",
    norm2="layer_norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    norm="post_layernorm",
    positions="embeddings.position_embedding.weight",
    patches="embeddings.patch_embedding",
)


class Vision(PictureFamily):
    """All of them; the differences are in the names and in a few settings."""

    kinds = (
        "vit",
        "deit",
        "vit_mae",
        "dinov2",
        "dinov2_with_registers",
        "clip_vision_model",
        "siglip_vision_model",
    )
    left = ("pooler.", "embeddings.mask_token", "embeddings.position_ids")

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        kind = config["model_type"]
        for name, wanted in (("use_swiglu_ffn", False), ("qkv_bias", True)):
            if config.get(name, wanted) != wanted:
                raise RequestError(
                    f"The checkpoint's {name}={config[name]!r} is not among what our {kind} encoder does."
                )
        sides, patch = pair(config["image_size"]), pair(config["patch_size"])
        dim, hidden = config["hidden_size"], config.get("intermediate_size")
        trunk = TransformerConfig(
            dim=dim,
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=float(config.get("mlp_ratio", 4)) if hidden is None else ratio(hidden, dim),
            activation=activation(config),
            eps=config.get("layer_norm_eps", 1e-6),
            layer_scale=config.get("layerscale_value", 1.0) if kind.startswith("dinov2") else 0.0,
        )
        extra = {"deit": 1, "dinov2_with_registers": config.get("num_register_tokens", 4)}.get(kind, 0)
        siglip = kind == "siglip_vision_model"
        return TokenEncoderConfig(
            tokenizer=GridTokenizerConfig(modality="image", channels=config.get("num_channels", 3), patch=patch),
            trunk=trunk,
            position="learned",
            grid=(sides[0] // patch[0], sides[1] // patch[1]),
            class_token=not siglip,
            registers=extra,
            prefix_positions=0 if siglip else 2 if kind == "deit" else 1,
            input_norm=kind == "clip_vision_model",
            pool="attention" if siglip else "class",
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        kind, names = config["model_type"], _names(config["model_type"])
        sides = pair(config["patch_size"])
        out: list[Rule] = [patches(f"{names.patches}.weight", int(config.get("num_channels", 3)), sides)]
        if kind != "clip_vision_model":
            out.append(Same("tokenizer.embed.bias", f"{names.patches}.bias"))
        out += _positions(kind, names)
        if kind == "clip_vision_model":
            out += both("input_norm", "pre_layrnorm")
        out += blocks(names, self.architecture(config, {}).transformer) + both("trunk.norm", names.norm)
        if kind == "siglip_vision_model":
            out.append(Same("head.query", "head.probe"))
            out += [Same(f"head.attention.in_proj_{e}", f"head.attention.in_proj_{e}") for e in ("weight", "bias")]
            out += both("head.attention.out_proj", "head.attention.out_proj") + both("head.norm", "head.layernorm")
            out += both("head.mlp.0", "head.mlp.fc1") + both("head.mlp.2", "head.mlp.fc2")
        return out

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        out = super().constants(config, processor)
        if config["model_type"] == "clip_vision_model":
            out["tokenizer.embed.bias"] = torch.zeros(config["hidden_size"])
        return out

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        """ViT, DINOv2 or CLIP's or SigLIP's tower, whichever can express the encoder."""
        if not isinstance(architecture, TokenEncoderConfig) or not isinstance(
            architecture.tokenizer, GridTokenizerConfig
        ):
            raise RequestError("Only encoders of pictures made of tokens can be written as a vision transformer.")
        a, t = architecture, architecture.transformer
        kind = _kind(a)
        if kind is None:
            raise RequestError(
                "No vision transformer of transformers is like this encoder: it takes learned positions (one for the class "
                "token too), square patches, and a class token that is pooled. Export it as safetensors or ONNX instead."
            )
        tokenizer = a.tokenizer
        assert isinstance(tokenizer, GridTokenizerConfig)
        patch = tokenizer.patch
        made: dict[str, Any] = {
            "model_type": kind,
            "architectures": [MODELS[kind]],
            **sizes(t),
            "mlp_ratio": int(t.mlp_ratio) if kind.startswith("dinov2") else None,
            "image_size": a.grid[0] * patch[0],
            "patch_size": patch[0],
            "num_channels": tokenizer.channels,
            "qkv_bias": True,
            "layerscale_value": t.layer_scale if kind.startswith("dinov2") else None,
            "num_register_tokens": a.registers if kind == "dinov2_with_registers" else None,
        }
        return {k: v for k, v in made.items() if v is not None}


MODELS = {
    "vit": "ViTModel",
    "deit": "DeiTModel",
    "vit_mae": "ViTMAEModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}


def _kind(a: TokenEncoderConfig) -> str | None:
    """The model_type that can express this encoder."""
    t, grid = a.transformer, a.tokenizer
    assert isinstance(grid, GridTokenizerConfig)
    square = len(grid.patch) == 2 and grid.patch[0] == grid.patch[1] and a.grid and a.grid[0] == a.grid[1]
    plain = (
        t.qkv_bias is True and not (t.rotary or t.causal) and t.norm == "pre" and t.activation in ACTIVATIONS.values()
    )
    more = a.token_types or a.pool_norm or a.relative != "none"
    if not (square and plain and a.position == "learned") or more:
        return None
    if a.pool == "attention":
        return "siglip_vision_model" if not a.class_token and not a.registers and not t.layer_scale else None
    if not a.class_token or a.pool != "class" or not a.prefix_positions:
        return None
    if a.input_norm:
        return "clip_vision_model" if not a.registers and not t.layer_scale else None
    if t.layer_scale:
        if t.mlp_ratio != int(t.mlp_ratio):
            return None
        return "dinov2_with_registers" if a.registers else "dinov2"
    return {(0, 1): "vit", (1, 2): "deit"}.get((a.registers, a.prefix_positions))


def _names(kind: str) -> Names:
    return DINO if kind.startswith("dinov2") else TOWER if kind in ("clip_vision_model", "siglip_vision_model") else OLD


def _positions(kind: str, names: Names) -> list[Rule]:
    """Their one table begins with the positions of the class (and distillation) token, ours are two."""
    if kind == "siglip_vision_model":
        return [Changed("table.table", names.positions, lambda x: x[None], lambda x: x[0])]
    if kind == "clip_vision_model":
        return [
            Parted(
                ("prefix_table", "table.table"),
                (names.positions,),
                lambda t: [t[0][:1], t[0][None, 1:]],
                lambda o: [torch.cat([o[0], o[1][0]])],
            ),
            Changed("prefix", "embeddings.class_embedding", lambda x: x[None], lambda x: x[0]),
        ]
    more = {"deit": "embeddings.distillation_token", "dinov2_with_registers": "embeddings.register_tokens"}.get(kind)
    tokens = ("embeddings.cls_token", *([more] if more else []))
    return [positions(names.positions, 2 if kind == "deit" else 1), prefix(*tokens)]
