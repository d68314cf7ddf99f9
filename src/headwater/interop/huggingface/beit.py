"""BEiT in the format of `transformers`: relative biases of attention instead of (or beside) positions, and keys without bias.

What is pooled is what its classifier reads: the normalised mean of the tokens, which are themselves not normalised, or
the class token. A checkpoint that only learned to fill in what is hidden (BeitForMaskedImageModeling) normalises its
tokens, and their mean is pooled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import BESIDE, Rule, Same
from headwater.interop.huggingface.images import PictureFamily
from headwater.interop.huggingface.trunks import (
    OLD,
    activation,
    blocks,
    both,
    pair,
    patches,
    positions,
    prefix,
    ratio,
    reads_back,
    sizes,
)
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig

BIAS = "relative_position_bias.relative_position_bias_table"
UNLIKE = (
    "BEiT of transformers is not like this encoder: it takes square patches, biases of queries and values alone, a class "
    "token, and a norm of its tokens or of their mean. Export it as safetensors or ONNX instead."
)
NAMES = replace(OLD, scale1="lambda_1", scale2="lambda_2")


class Beit(PictureFamily):
    kinds: ClassVar[tuple[str, ...]] = ("beit",)
    left: ClassVar[tuple[str, ...]] = ("embeddings.mask_token",)
    front: ClassVar[str] = "beit."

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        whose = str((config.get("architectures") or [""])[0])
        sides, patch = pair(config["image_size"]), pair(config["patch_size"])
        grid = (sides[0] // patch[0], sides[1] // patch[1])
        shared, own = config["use_shared_relative_position_bias"], config["use_relative_position_bias"]
        if shared and own:
            raise RequestError(
                "use_relative_position_bias=True together with use_shared_relative_position_bias=True is not supported for "
                "BEiT; one of them is."
            )
        absolute = config["use_absolute_position_embeddings"]
        if (shared or own or absolute) and (grid[0] != grid[1] or patch[0] != patch[1]):
            given = f"image_size={config['image_size']!r} and patch_size={config['patch_size']!r}"
            raise RequestError(f"{given} are not supported for BEiT with positions; square ones are.")
        pool, norm, normed = _ends(config["use_mean_pooling"], whose)
        trunk = TransformerConfig(
            dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=ratio(config["intermediate_size"], config["hidden_size"]),
            activation=activation(config),
            eps=config["layer_norm_eps"],
            qkv_bias="qv",
            layer_scale=max(0.0, config["layer_scale_init_value"]),
            norm=norm,
        )
        return TokenEncoderConfig(
            tokenizer=GridTokenizerConfig(modality="image", channels=config["num_channels"], patch=patch),
            trunk=trunk,
            position="learned" if absolute else "none",
            relative="shared" if shared else "blocks" if own else "none",
            grid=grid,
            class_token=True,
            prefix_positions=int(absolute),
            pool=pool,
            pool_norm=config["layer_norm_eps"] if normed else 0.0,
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        a = self.architecture(config, {})
        assert isinstance(a.tokenizer, GridTokenizerConfig)
        out: list[Rule] = [
            patches(f"{NAMES.patches}.weight", a.tokenizer.channels, a.tokenizer.patch),
            Same("tokenizer.embed.bias", f"{NAMES.patches}.bias"),
            prefix("embeddings.cls_token"),
        ]
        if a.prefix_positions:
            out.append(positions(NAMES.positions))
        if a.relative == "shared":
            out.append(Same("relative.0.table", f"encoder.{BIAS}"))
        elif a.relative == "blocks":
            at = [f"{NAMES.block.format(i=i)}attention.attention.{BIAS}" for i in range(a.transformer.depth)]
            out += [Same(f"relative.{i}.table", name) for i, name in enumerate(at)]
        if a.pool_norm:
            out += both("pool_norm", "pooler.layernorm")
        if a.transformer.norm == "pre":
            out += both("trunk.norm", "layernorm" if a.pool == "class" else f"{BESIDE}layernorm")
        return [*out, *blocks(NAMES, a.transformer)]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if not isinstance(a, TokenEncoderConfig) or not isinstance(a.tokenizer, GridTokenizerConfig) or not a.grid:
            raise RequestError(UNLIKE)
        filled = a.pool == "mean" and a.transformer.norm == "pre"
        made = {
            "model_type": "beit",
            "architectures": ["BeitForMaskedImageModeling" if filled else "BeitModel"],
            **sizes(a.transformer),
            "image_size": a.grid[0] * a.tokenizer.patch[0],
            "patch_size": a.tokenizer.patch[0],
            "num_channels": a.tokenizer.channels,
            "use_absolute_position_embeddings": a.position == "learned",
            "use_relative_position_bias": a.relative == "blocks",
            "use_shared_relative_position_bias": a.relative == "shared",
            "layer_scale_init_value": a.transformer.layer_scale,
            "drop_path_rate": a.transformer.drop_path,
            "use_mean_pooling": a.pool == "mean",
        }
        if not reads_back(self, made, a):
            raise RequestError(UNLIKE)
        return made


def _ends(mean: bool, whose: str) -> tuple[Literal["mean", "class"], Literal["pre", "open"], bool]:
    """What is pooled, whether the tokens are normalised, and whether what is pooled is."""
    if not mean:
        return "class", "pre", False
    if whose == "BeitForMaskedImageModeling":
        return "mean", "pre", False
    return "mean", "open", whose != "BeitForSemanticSegmentation"
