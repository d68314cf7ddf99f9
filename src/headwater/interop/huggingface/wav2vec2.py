"""wav2vec 2.0 and HuBERT in the format of `transformers`: encoders of the wave itself.

The mean of the frames is pooled. What hides frames while they learn (masked_spec_embed) and the quantiser belong to their
training and are left out. Padding changes nothing here; theirs lets it into the norms over time of the base models, which
they therefore run on one sound at a time or with padding as silence.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from headwater.core.errors import RequestError
from headwater.interop.huggingface.ast import RATE, UNLIKE
from headwater.interop.huggingface.family import Family, Rule, Same, State
from headwater.interop.huggingface.trunks import ACTIVATIONS, Names, blocks, both, ratio, sizes
from headwater.parts.speech import SpeechEncoderConfig
from headwater.parts.tokens import WaveTokenizerConfig
from headwater.parts.transformer import TransformerConfig

# settings that our encoder has in one way alone
ONLY: Mapping[str, Any] = {
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}
LAYER = Names(
    block="encoder.layers.{i}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.out_proj",
    norm1="layer_norm",
    norm2="final_layer_norm",
    up="feed_forward.intermediate_dense",
    down="feed_forward.output_dense",
)


class Waves(Family):
    """What the two share: all but the name."""

    modality = "audio"
    left = ("masked_spec_embed",)
    renamed: ClassVar[Mapping[str, str]] = {
        "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
        "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
    }

    @abstractmethod
    def extra(self) -> dict[str, Any]:
        """Settings by which their config.json says which of the two it is."""

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> SpeechEncoderConfig:
        for name, wanted in ONLY.items():
            if config.get(name, wanted) != wanted:
                raise RequestError(f"The checkpoint's {name}={config[name]!r} is not among what our encoder does.")
        widths, norm = config["conv_dim"], config.get("feat_extract_norm", "group")
        if len({*widths}) != 1:
            raise RequestError(f"The checkpoint's conv_dim={[*widths]} are several widths; our convolutions have one.")
        act = config.get("hidden_act", "gelu")
        if act not in ACTIVATIONS or norm not in ("group", "layer"):
            raise RequestError(
                f"The checkpoint's hidden_act={act!r} is none of {', '.join(ACTIVATIONS)}, or feat_extract_norm={norm!r} "
                "neither group nor layer."
            )
        if processor.get("feature_size", 1) != 1:
            raise RequestError(
                f"The checkpoint's feature_size={processor['feature_size']} is not a wave of one channel."
            )
        eps = config.get("layer_norm_eps", 1e-5)
        return SpeechEncoderConfig(
            tokenizer=WaveTokenizerConfig(
                rate=processor.get("sampling_rate", RATE),
                width=widths[0],
                kernels=tuple(config["conv_kernel"]),
                strides=tuple(config["conv_stride"]),
                norm=norm,
                bias=config.get("conv_bias", False),
                standardise=processor.get("do_normalize", True),
                eps=eps,
            ),
            trunk=TransformerConfig(
                dim=config["hidden_size"],
                depth=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                mlp_ratio=ratio(config["intermediate_size"], config["hidden_size"]),
                activation=ACTIVATIONS[act],
                eps=eps,
                norm="pre" if config.get("do_stable_layer_norm", False) else "post",
            ),
            kernel=config.get("num_conv_pos_embeddings", 128),
            groups=config.get("num_conv_pos_embedding_groups", 16),
        )

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        return {"read": {"rate": processor.get("sampling_rate", RATE), "mix": True}}

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        tokenizer = architecture.tokenizer
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": tokenizer.rate,
            "do_normalize": tokenizer.standardise,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": tokenizer.norm == "layer",
        }

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        conv = "encoder.pos_conv_embed.conv"
        out: list[Rule] = [
            Same("positions.gain", f"{conv}.parametrizations.weight.original0"),
            Same("positions.direction", f"{conv}.parametrizations.weight.original1"),
            Same("positions.bias", f"{conv}.bias"),
            *both("tokenizer.norm", "feature_projection.layer_norm"),
            *both("tokenizer.embed", "feature_projection.projection"),
        ]
        every = config.get("feat_extract_norm", "group") == "layer"
        for i in range(len(config["conv_kernel"])):
            theirs = f"feature_extractor.conv_layers.{i}"
            out.append(Same(f"tokenizer.stem.convs.{i}.weight", f"{theirs}.conv.weight"))
            if config.get("conv_bias", False):
                out.append(Same(f"tokenizer.stem.convs.{i}.bias", f"{theirs}.conv.bias"))
            if every or not i:
                out += both(f"tokenizer.stem.norms.{i}", f"{theirs}.layer_norm")
        last = "trunk.norm" if config.get("do_stable_layer_norm", False) else "input_norm"
        return [*out, *blocks(LAYER, self.architecture(config, {}).trunk), *both(last, "encoder.layer_norm")]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if not isinstance(a, SpeechEncoderConfig) or not isinstance(a.tokenizer, WaveTokenizerConfig):
            raise RequestError(UNLIKE)
        trunk, stem = a.trunk, a.tokenizer
        if trunk.activation not in ACTIVATIONS.values():
            raise RequestError(UNLIKE)
        made = {
            "model_type": self.kinds[0],
            **self.extra(),
            **sizes(trunk),
            "conv_dim": [stem.width] * len(stem.kernels),
            "conv_kernel": [*stem.kernels],
            "conv_stride": [*stem.strides],
            "conv_bias": stem.bias,
            "feat_extract_norm": stem.norm,
            "feat_extract_activation": "gelu",
            "num_conv_pos_embeddings": a.kernel,
            "num_conv_pos_embedding_groups": a.groups,
            "do_stable_layer_norm": trunk.norm == "pre",
            "mask_time_prob": 0.0,  # there is no vector to hide frames behind
            "mask_feature_prob": 0.0,
        }
        heard = {"sampling_rate": stem.rate, "do_normalize": stem.standardise}
        if self.architecture(made, heard) != replace(a, trunk=replace(trunk, drop_path=0.0)):
            raise RequestError(UNLIKE)
        return made


class Wav2Vec2(Waves):
    kinds = ("wav2vec2",)

    def extra(self) -> dict[str, Any]:
        return {"architectures": ["Wav2Vec2Model"]}


class Hubert(Waves):
    kinds = ("hubert",)

    def extra(self) -> dict[str, Any]:
        return {"architectures": ["HubertModel"], "feat_proj_layer_norm": True, "conv_pos_batch_norm": False}
