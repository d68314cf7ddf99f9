"""T5 (Raffel et al., 2020) and what is built like it: T5 1.1, Flan-T5, UL2, mT5.

`T5` reads the half that reads, which is an encoder of ours; `decoder` the half that writes, for those who go on with both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Family, Rule, Same, Stacked, State, to_ours
from headwater.parts.seq2seq import Decoder, DecoderConfig, T5EncoderConfig, T5TrunkConfig
from headwater.parts.tokens import TextTokenizerConfig

# their feed_forward_proj: is it gated, and our name of the activation; of two that mean the same the second is written
MLPS = {
    "relu": (False, "relu"),
    "gelu": (False, "gelu"),
    "gelu_new": (False, "gelu-tanh"),
    "silu": (False, "silu"),
    "gated-relu": (True, "relu"),
    "gated-silu": (True, "silu"),
    "gated-gelu": (True, "gelu-tanh"),
}
LONGEST = 512  # tokens that it learned from; distances have no end


class T5(Family):
    kinds = ("t5", "mt5")
    left = ("decoder.", "lm_head.", "encoder.embed_tokens.")

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> T5EncoderConfig:
        words = TextTokenizerConfig(vocabulary=config["vocab_size"])
        return T5EncoderConfig(tokenizer=words, trunk=_trunk(config, config["num_layers"]))

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        """Its tokenizer.json ends every text with </s>, which remains where a text is cut."""
        if "tokenizer" not in processor:
            return {}
        longest = config.get("n_positions", LONGEST)
        return {"read": {"tokenizer": processor["tokenizer"], "ended": False, "longest": longest}}

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        out: list[Rule] = [Same("tokenizer.embed.weight", "shared.weight"), _positions("encoder.")]
        for i in range(config["num_layers"]):
            ours, theirs = f"blocks.{i}.", f"encoder.block.{i}.layer."
            out += [*_own(ours, f"{theirs}0."), *_mlp(config, f"{ours}mlp.", f"{theirs}1.DenseReluDense.")]
            out.append(Same(f"{ours}norm2.weight", f"{theirs}1.layer_norm.weight"))
        return [*out, Same("norm.weight", "encoder.final_layer_norm.weight")]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if not isinstance(a, T5EncoderConfig):
            raise RequestError("Only an encoder built as T5's can be written as one.")
        names = {ours: theirs for theirs, ours in MLPS.items()}
        if (a.trunk.gated, a.trunk.activation) not in names:
            raise RequestError(f"transformers knows no T5 with a gated MLP of activation={a.trunk.activation}.")
        return {
            "model_type": "t5",
            "architectures": ["T5EncoderModel"],
            "is_encoder_decoder": False,
            "vocab_size": a.tokenizer.vocabulary,
            "d_model": a.trunk.dim,
            "d_kv": a.trunk.head_dim,
            "d_ff": a.trunk.hidden,
            "num_layers": a.trunk.depth,
            "num_heads": a.trunk.heads,
            "feed_forward_proj": names[a.trunk.gated, a.trunk.activation],
            "relative_attention_num_buckets": a.trunk.buckets,
            "relative_attention_max_distance": a.trunk.distance,
            "layer_norm_epsilon": a.trunk.eps,
        }


def decoder(config: Mapping[str, Any], theirs: State) -> Decoder:
    """The half that writes, of a T5ForConditionalGeneration, from its config.json and its weights.

    Its words are those of the encoder (`encoder.tokenizer.embed.weight`). Raises RequestError for a checkpoint without it.
    """
    own = theirs.get("lm_head.weight")
    tied = own is None or torch.equal(own, theirs["shared.weight"])
    depth = config.get("num_decoder_layers") or config["num_layers"]
    # T5 scales what its tied head sees, and 1.1 does not; newer files say so, older ones say it by tying the words
    scaled = config["model_type"] == "t5" and config.get(
        "scale_decoder_outputs", config.get("tie_word_embeddings", True)
    )
    start = config.get("decoder_start_token_id")
    made = DecoderConfig(
        trunk=_trunk(config, depth),
        head=0 if tied else config["vocab_size"],
        scaled=scaled,
        start=config.get("pad_token_id", 0) if start is None else start,
        end=config.get("eos_token_id", 1),
    ).build()
    rules: list[Rule] = [_positions("decoder."), Same("norm.weight", "decoder.final_layer_norm.weight")]
    for i in range(depth):
        ours, name = f"blocks.{i}.", f"decoder.block.{i}.layer."
        cross = f"{name}1.EncDecAttention."
        rules += [
            *_own(ours, f"{name}0."),
            Same(f"{ours}norm2.weight", f"{name}1.layer_norm.weight"),
            Same(f"{ours}cross.q.weight", f"{cross}q.weight"),
            Stacked(f"{ours}cross.kv.weight", (f"{cross}k.weight", f"{cross}v.weight")),
            Same(f"{ours}cross.out.weight", f"{cross}o.weight"),
            *_mlp(config, f"{ours}mlp.", f"{name}2.DenseReluDense."),
            Same(f"{ours}norm3.weight", f"{name}2.layer_norm.weight"),
        ]
    made.load_state_dict(to_ours(rules if tied else [*rules, Same("head.weight", "lm_head.weight")], theirs))
    return made.eval()


def _trunk(config: Mapping[str, Any], depth: int) -> T5TrunkConfig:
    mlp = config.get("feed_forward_proj", "relu")
    if mlp not in MLPS:
        raise RequestError(f"The checkpoint's feed_forward_proj={mlp!r} is none of {', '.join(MLPS)}.")
    if config.get("is_decoder", False):
        raise RequestError("The checkpoint's is_decoder=True: it is a decoder alone, which our T5 encoder is not.")
    gated, activation = MLPS[mlp]
    return T5TrunkConfig(
        dim=config["d_model"],
        depth=depth,
        heads=config["num_heads"],
        head_dim=config["d_kv"],
        hidden=config["d_ff"],
        gated=gated,
        activation=activation,  # type: ignore[arg-type]
        buckets=config.get("relative_attention_num_buckets", 32),
        distance=config.get("relative_attention_max_distance", 128),
        eps=config.get("layer_norm_epsilon", 1e-6),
    )


def _positions(theirs: str) -> Rule:
    name = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return Same("positions.table.weight", theirs + name)


def _own(ours: str, theirs: str) -> list[Rule]:
    """Attention to the tokens of the text itself, and the norm before it."""
    return [
        Same(f"{ours}norm1.weight", f"{theirs}layer_norm.weight"),
        Stacked(f"{ours}attention.qkv.weight", tuple(f"{theirs}SelfAttention.{p}.weight" for p in "qkv")),
        Same(f"{ours}attention.out.weight", f"{theirs}SelfAttention.o.weight"),
    ]


def _mlp(config: Mapping[str, Any], ours: str, theirs: str) -> list[Rule]:
    gated, _ = MLPS[config.get("feed_forward_proj", "relu")]
    up: Rule = Same(f"{ours}up.weight", f"{theirs}wi.weight")
    if gated:
        up = Stacked(f"{ours}up.weight", (f"{theirs}wi_0.weight", f"{theirs}wi_1.weight"))
    return [up, Same(f"{ours}down.weight", f"{theirs}wo.weight")]
