"""DINOv3's vision transformers in the format of `transformers`: rotations centred on the picture, registers, gated MLPs.

What is pooled is the class token. Pictures of any size that divides into patches are seen as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Rule, Same
from headwater.interop.huggingface.images import PictureFamily
from headwater.interop.huggingface.trunks import (
    Names,
    activation,
    blocks,
    both,
    pair,
    patches,
    prefix,
    ratio,
    reads_back,
    side,
    sizes,
)
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig

NAMES = Names(
    block="layer.{i}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    bias_q="attention.q_proj.bias",
    bias_v="attention.v_proj.bias",
    out="attention.o_proj",
    norm1="norm1",
    norm2="norm2",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    scale1="layer_scale1.lambda1",
    scale2="layer_scale2.lambda1",
    norm="norm",
    patches="embeddings.patch_embeddings",
)
TOKENS = ("embeddings.cls_token", "embeddings.register_tokens")
UNLIKE = (
    "DINOv3 of transformers is not like this encoder: it takes a rotary trunk with centred places and layer scale, and a "
    "class token that is pooled. Export it as safetensors or ONNX instead."
)
FIXED = {"rope_theta": 100.0, "proj_bias": True, "mlp_bias": True}
# biases of queries, keys and values
BIASES: Mapping[tuple[bool, ...], bool | Literal["qv"]] = {
    (True, True, True): True,
    (True, False, True): "qv",
    (False, False, False): False,
}


class DINOv3(PictureFamily):
    kinds: ClassVar[tuple[str, ...]] = ("dinov3_vit",)
    left: ClassVar[tuple[str, ...]] = ("embeddings.mask_token",)

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise RequestError(f"{name}={config[name]!r} is not supported for DINOv3; {value!r} is.")
        named = ("query_bias", "key_bias", "value_bias")
        biases = tuple(bool(config[name]) for name in named)
        if biases not in BIASES:
            given = ", ".join(f"{name}={on}" for name, on in zip(named, biases, strict=True))
            raise RequestError(f"{given} is not supported for DINOv3; all, none, or all but key_bias are.")
        if config["use_gated_mlp"] and config["hidden_act"] != "silu":
            raise RequestError(
                f"hidden_act={config['hidden_act']!r} with use_gated_mlp=True is not supported for DINOv3; 'silu' is."
            )
        sides, patch = pair(config["image_size"]), pair(config["patch_size"])
        trunk = TransformerConfig(
            dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=ratio(config["intermediate_size"], config["hidden_size"]),
            activation="swiglu" if config["use_gated_mlp"] else activation(config),
            eps=config["layer_norm_eps"],
            qkv_bias=BIASES[biases],
            layer_scale=config["layerscale_value"] or 1.0,  # where learning began; theirs has the factors at any value
            rotary=True,
        )
        return TokenEncoderConfig(
            tokenizer=GridTokenizerConfig(modality="image", channels=config["num_channels"], patch=patch),
            trunk=trunk,
            position="centred",
            grid=(sides[0] // patch[0], sides[1] // patch[1]),
            class_token=True,
            registers=config["num_register_tokens"],
            pool="class",
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        a = self.architecture(config, {})
        assert isinstance(a.tokenizer, GridTokenizerConfig)
        return [
            patches(f"{NAMES.patches}.weight", a.tokenizer.channels, a.tokenizer.patch),
            Same("tokenizer.embed.bias", f"{NAMES.patches}.bias"),
            prefix(*TOKENS),
            *blocks(NAMES, a.transformer),
            *both("trunk.norm", NAMES.norm),
        ]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if (
            not isinstance(a, TokenEncoderConfig)
            or not isinstance(a.tokenizer, GridTokenizerConfig)
            or len(a.grid) != 2
        ):
            raise RequestError(UNLIKE)
        t, patch = a.transformer, a.tokenizer.patch
        biases = next(on for on, ours in BIASES.items() if ours == t.qkv_bias)
        made = {
            "model_type": "dinov3_vit",
            "architectures": ["DINOv3ViTModel"],
            **sizes(t),
            "image_size": side(tuple(g * p for g, p in zip(a.grid, patch, strict=True))),
            "patch_size": side(patch),
            "num_channels": a.tokenizer.channels,
            **dict(zip(("query_bias", "key_bias", "value_bias"), biases, strict=True)),
            **FIXED,
            "layerscale_value": t.layer_scale,
            "drop_path_rate": t.drop_path,
            "use_gated_mlp": t.activation == "swiglu",
            "num_register_tokens": a.registers,
            "pos_embed_rescale": None,
        }
        if not reads_back(self, made, a):
            raise RequestError(UNLIKE)
        return made
