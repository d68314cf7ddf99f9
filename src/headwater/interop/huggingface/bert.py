"""Text encoders of BERT's kind: BERT, RoBERTa and what was trained from them, such as sentence encoders.

The mean of the tokens is pooled, as sentence encoders do; the `pooler` belongs to BERT's second task and is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Family, Rule, Same, Stacked
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import TextTokenizerConfig
from headwater.parts.transformer import TransformerConfig

ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh"}


class Bert(Family):
    kinds = ("bert", "roberta", "xlm-roberta")
    modality = "text"
    left = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        if config.get("hidden_act", "gelu") not in ACTIVATIONS:
            raise RequestError(
                f"The checkpoint's hidden_act={config['hidden_act']!r} is none of {', '.join(ACTIVATIONS)}."
            )
        if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder", False):
            raise RequestError("The checkpoint has relative positions or is a decoder, which our BERT encoder is not.")
        trunk = TransformerConfig(
            dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=config["intermediate_size"] / config["hidden_size"],
            activation=ACTIVATIONS[config.get("hidden_act", "gelu")],  # type: ignore[arg-type]
            eps=config.get("layer_norm_eps", 1e-12),
            norm="post",
        )
        roberta = config["model_type"] != "bert"
        return TokenEncoderConfig(
            tokenizer=TextTokenizerConfig(vocabulary=config["vocab_size"]),
            trunk=trunk,
            position="learned",
            grid=(config["max_position_embeddings"],),
            token_types=config.get("type_vocab_size", 2),
            position_offset=config.get("pad_token_id", 1) + 1 if roberta else 0,
            input_norm=True,
        )

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        """How words become numbers: the checkpoint's tokenizer.json, which `loading` hands over as processor["tokenizer"]."""
        offset = config.get("pad_token_id", 1) + 1 if config["model_type"] != "bert" else 0
        longest = config["max_position_embeddings"] - offset
        if "tokenizer" not in processor:
            return {}
        return {"read": {"tokenizer": processor["tokenizer"], "ended": False, "longest": longest}}

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        out: list[Rule] = [
            Same("tokenizer.embed.weight", "embeddings.word_embeddings.weight"),
            Changed("table.table", "embeddings.position_embeddings.weight", lambda x: x[None], lambda x: x[0]),
            Same("types", "embeddings.token_type_embeddings.weight"),
            *_both("input_norm", "embeddings.LayerNorm"),
        ]
        for i in range(config["num_hidden_layers"]):
            ours, theirs = f"trunk.blocks.{i}.", f"encoder.layer.{i}."
            for end in ("weight", "bias"):
                parts = tuple(f"{theirs}attention.self.{p}.{end}" for p in ("query", "key", "value"))
                out.append(Stacked(f"{ours}attention.qkv.{end}", parts))
            out += _both(f"{ours}attention.out", f"{theirs}attention.output.dense")
            out += _both(f"{ours}norm1", f"{theirs}attention.output.LayerNorm")
            out += _both(f"{ours}mlp.0", f"{theirs}intermediate.dense")
            out += _both(f"{ours}mlp.2", f"{theirs}output.dense")
            out += _both(f"{ours}norm2", f"{theirs}output.LayerNorm")
        return out

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        like = (
            isinstance(a, TokenEncoderConfig)
            and isinstance(a.tokenizer, TextTokenizerConfig)
            and a.transformer.norm == "post"
            and a.position == "learned"
            and a.input_norm
            and a.token_types > 0
            and a.transformer.qkv_bias is True
            and a.transformer.activation in ACTIVATIONS.values()
            and not (a.class_token or a.registers or a.pool_norm or a.relative != "none")
        )
        if not like:
            raise RequestError(
                "No text encoder of transformers is like this one: it takes a post-norm trunk, learned positions and token "
                "types, as BERT has. Export it as safetensors or ONNX instead."
            )
        kind = "roberta" if a.position_offset else "bert"
        return {
            "model_type": kind,
            "architectures": ["RobertaModel" if a.position_offset else "BertModel"],
            "vocab_size": a.tokenizer.vocabulary,
            "hidden_size": a.transformer.dim,
            "num_hidden_layers": a.transformer.depth,
            "num_attention_heads": a.transformer.heads,
            "intermediate_size": int(a.transformer.dim * a.transformer.mlp_ratio),
            "hidden_act": {"gelu": "gelu", "relu": "relu", "gelu-tanh": "gelu_new"}[a.transformer.activation],
            "layer_norm_eps": a.transformer.eps,
            "max_position_embeddings": a.grid[0],
            "type_vocab_size": a.token_types,
            "pad_token_id": a.position_offset - 1 if a.position_offset else 0,
        }


def _both(ours: str, theirs: str) -> list[Rule]:
    return [Same(f"{ours}.{end}", f"{theirs}.{end}") for end in ("weight", "bias")]
