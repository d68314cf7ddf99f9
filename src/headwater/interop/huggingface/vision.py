"""Vision transformers: ViT, DeiT, MAE's encoder, DINOv2 with and without registers, the image towers of CLIP and SigLIP.

What is pooled is the class token after the last norm (SigLIP: its attention head). The `pooler` that some checkpoints
carry belongs to a classifier and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface import images
from headwater.interop.huggingface.family import Changed, Family, Parted, Rule, Same, Stacked, State
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import Activation, TransformerConfig

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "relu": "relu",
}


@dataclass(frozen=True)
class Names:
    """What a family calls its parts; `{i}` stands for the number of a block."""

    block: str
    q: str
    k: str
    v: str
    out: str
    norm1: str
    norm2: str
    up: str
    down: str
    norm: str
    positions: str
    patches: str
    prefix: tuple[str, ...] = ()
    input_norm: str = ""
    scale1: str = ""
    scale2: str = ""


OLD = Names(
    block="encoder.layer.{i}.",
    q="attention.attention.query",
    k="attention.attention.key",
    v="attention.attention.value",
    out="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    up="intermediate.dense",
    down="output.dense",
    norm="layernorm",
    positions="embeddings.position_embeddings",
    patches="embeddings.patch_embeddings.projection",
    prefix=("embeddings.cls_token",),
)
DINO = Names(
    block="encoder.layer.{i}.",
    q="attention.attention.query",
    k="attention.attention.key",
    v="attention.attention.value",
    out="attention.output.dense",
    norm1="norm1",
    norm2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
    norm="layernorm",
    positions="embeddings.position_embeddings",
    patches="embeddings.patch_embeddings.projection",
    prefix=("embeddings.cls_token",),
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


class Vision(Family):
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
        sides, patch = _pair(config["image_size"]), _pair(config["patch_size"])
        dim, hidden = config["hidden_size"], config.get("intermediate_size")
        trunk = TransformerConfig(
            dim=dim,
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=float(config.get("mlp_ratio", 4)) if hidden is None else hidden / dim,
            activation=_activation(config),
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

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        """Size, resampling and share of the centre, as the checkpoint's processor has them."""
        return images.preprocessing(config, processor)

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        kind, names = config["model_type"], _names(config["model_type"])
        out: list[Rule] = [_patches(config, f"{names.patches}.weight")]
        if kind != "clip_vision_model":
            out.append(Same("tokenizer.embed.bias", f"{names.patches}.bias"))
        out += _positions(kind, names)
        if kind == "clip_vision_model":
            out += _both("input_norm", "pre_layrnorm")
        for i in range(config["num_hidden_layers"]):
            ours, theirs = f"trunk.blocks.{i}.", names.block.format(i=i)
            for end in ("weight", "bias"):
                parts = tuple(f"{theirs}{part}.{end}" for part in (names.q, names.k, names.v))
                out.append(Stacked(f"{ours}attention.qkv.{end}", parts))
            for mine, other in (
                ("attention.out", names.out),
                ("norm1", names.norm1),
                ("norm2", names.norm2),
                ("mlp.0", names.up),
                ("mlp.2", names.down),
            ):
                out += _both(ours + mine, theirs + other)
            if names.scale1:
                out.append(Same(f"{ours}scale1.gamma", theirs + names.scale1))
                out.append(Same(f"{ours}scale2.gamma", theirs + names.scale2))
        out += _both("trunk.norm", names.norm)
        if kind == "siglip_vision_model":
            out.append(Same("head.query", "head.probe"))
            out += [Same(f"head.attention.in_proj_{e}", f"head.attention.in_proj_{e}") for e in ("weight", "bias")]
            out += _both("head.attention.out_proj", "head.attention.out_proj") + _both("head.norm", "head.layernorm")
            out += _both("head.mlp.0", "head.mlp.fc1") + _both("head.mlp.2", "head.mlp.fc2")
        return out

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        out = images.constants("tokenizer.normalise", config, processor)
        if config["model_type"] == "clip_vision_model":
            out["tokenizer.embed.bias"] = torch.zeros(config["hidden_size"])
        return out

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        return images.processor(preprocessing, ours["tokenizer.normalise.mean"], ours["tokenizer.normalise.std"])

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        """ViT, DINOv2 or CLIP's or SigLIP's tower, whichever can express the encoder."""
        if not isinstance(architecture, TokenEncoderConfig) or not isinstance(
            architecture.tokenizer, GridTokenizerConfig
        ):
            raise RequestError("Only encoders of pictures made of tokens can be written as a vision transformer.")
        a, t = architecture, architecture.trunk
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
            "hidden_size": t.dim,
            "num_hidden_layers": t.depth,
            "num_attention_heads": t.heads,
            "intermediate_size": int(t.dim * t.mlp_ratio),
            "mlp_ratio": int(t.mlp_ratio) if kind.startswith("dinov2") else None,
            "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[t.activation],
            "layer_norm_eps": t.eps,
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
    t, grid = a.trunk, a.tokenizer
    assert isinstance(grid, GridTokenizerConfig)
    square = len(grid.patch) == 2 and grid.patch[0] == grid.patch[1] and a.grid and a.grid[0] == a.grid[1]
    plain = t.qkv_bias and not t.rotary and not t.causal and t.norm == "pre" and not a.token_types
    if not (square and plain and a.position == "learned"):
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


def _activation(config: Mapping[str, Any]) -> Activation:
    name = config.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise RequestError(f"The checkpoint's hidden_act={name!r} is none of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _both(ours: str, theirs: str) -> list[Rule]:
    return [Same(f"{ours}.{end}", f"{theirs}.{end}") for end in ("weight", "bias")]


def _patches(config: Mapping[str, Any], theirs: str) -> Changed:
    """A convolution [d c p p] is our linear map [d, p p c]."""
    c, sides = int(config.get("num_channels", 3)), _pair(config["patch_size"])

    def to_ours(w: Tensor) -> Tensor:
        return w.permute(0, 2, 3, 1).flatten(1).contiguous()

    def to_theirs(w: Tensor) -> Tensor:
        return w.view(len(w), *sides, c).permute(0, 3, 1, 2).contiguous()

    return Changed("tokenizer.embed.weight", theirs, to_ours, to_theirs)


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
    placed = 2 if kind == "deit" else 1
    tokens = ("embeddings.cls_token", *([more] if more else []))
    return [
        Parted(
            ("prefix_table", "table.table"),
            (names.positions,),
            lambda t: [t[0][0, :placed], t[0][:, placed:]],
            lambda o: [torch.cat([o[0][None], o[1]], 1)],
        ),
        Parted(
            ("prefix",),
            tokens,
            lambda t: [torch.cat([x[0] for x in t])],
            lambda o: [o[0][None, :1], *([o[0][None, 1:]] if more else [])],
        ),
    ]
