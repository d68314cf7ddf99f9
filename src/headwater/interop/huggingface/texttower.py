"""The text towers of CLIP and SigLIP, alone or from a checkpoint of both towers.

What is pooled is theirs before the projection into the space of images: the token that ends the text (CLIP), the last
place of a text filled to its greatest length, through a linear head (SigLIP, which learned so, and without a mask).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Family, Rule, Same, Stacked
from headwater.interop.huggingface.trunks import activation, blocks, both, ratio, sizes
from headwater.interop.huggingface.vision import TOWER
from headwater.parts.texttower import LARGEST, TextTowerConfig
from headwater.parts.tokens import TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig

CLIP, SIGLIP = "clip_text_model", "siglip_text_model"
LEGACY_END = 2  # what early conversions of CLIP say of every vocabulary; there the largest id ends the text


class TextTowers(Family):
    kinds = (CLIP, SIGLIP)
    modality = "text"
    left = ("embeddings.position_ids", "text_projection.")

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TextTowerConfig:
        clip, end = config["model_type"] == CLIP, config.get("eos_token_id", LEGACY_END)
        if clip and not isinstance(end, int):
            raise RequestError(
                f"The checkpoint's eos_token_id={end!r} is not the one id that our CLIP text encoder pools."
            )
        return TextTowerConfig(
            tokenizer=TextTokenizerConfig(vocabulary=config["vocab_size"]),
            trunk=_trunk(config),
            longest=config["max_position_embeddings"],
            end=int(end) if clip and end != LEGACY_END else LARGEST,
            fill=None if clip else _padding(config, processor),
            head=0 if clip else _head(config),
        )

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        if "tokenizer" not in processor:
            return {}
        longest = config["max_position_embeddings"]
        return {"read": {"tokenizer": processor["tokenizer"], "ended": False, "longest": longest}}

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        positions = "embeddings.position_embedding.weight"
        out: list[Rule] = [
            Same("body.tokenizer.embed.weight", "embeddings.token_embedding.weight"),
            Changed("body.table.table", positions, lambda x: x[None], lambda x: x[0]),
        ]
        for rule in blocks(TOWER, _trunk(config)):
            assert isinstance(rule, Same | Stacked)
            out.append(replace(rule, ours=f"body.{rule.ours}"))
        out += both("body.trunk.norm", "final_layer_norm")
        return out + (both("head", "head") if config["model_type"] == SIGLIP else [])

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if isinstance(a, TextTowerConfig):
            clip = a.fill is None
            pooled = {"eos_token_id": LEGACY_END if a.end == LARGEST else a.end}
            made = {
                "model_type": CLIP if clip else SIGLIP,
                "architectures": ["CLIPTextModel" if clip else "SiglipTextModel"],
                "vocab_size": a.tokenizer.vocabulary,
                **sizes(a.trunk),
                "max_position_embeddings": a.longest,
                **(pooled if clip else {"projection_size": a.head, "pad_token_id": a.fill}),
            }
            again = self.architecture(made, {})
            kept = replace(again.trunk, mlp_ratio=a.trunk.mlp_ratio, drop_path=a.trunk.drop_path)
            if replace(again, trunk=kept) == a:
                return made
        raise RequestError(
            "Only a text tower as CLIP has it (causal, its end is pooled) or SigLIP (filled, with a head) can be written as one."
        )


def _trunk(config: Mapping[str, Any]) -> TransformerConfig:
    return TransformerConfig(
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_ratio=ratio(config["intermediate_size"], config["hidden_size"]),
        activation=activation(config),
        eps=config["layer_norm_eps"],
        causal=config["model_type"] == CLIP,
    )


def _head(config: Mapping[str, Any]) -> int:
    return int(config["projection_size"] or config["hidden_size"])


def _padding(config: Mapping[str, Any], processor: Mapping[str, Any]) -> int:
    """The id that texts are filled with, as its tokenizer has it; else as the settings have it, which are seldom kept."""
    if "tokenizer" in processor:
        tokenizer = json.loads(processor["tokenizer"])
        known = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens") or []}
        if processor.get("pad_token") in known:
            return known[processor["pad_token"]]
        if tokenizer.get("padding"):
            return int(tokenizer["padding"]["pad_id"])
    return int(config["pad_token_id"])
