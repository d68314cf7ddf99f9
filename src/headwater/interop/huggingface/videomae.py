"""VideoMAE in the format of `transformers`: tubelets of clips, sines by number, keys without bias.

What is pooled is the mean of the tokens. In a classifier (VideoMAEForVideoClassification) the mean is normalised, and the
tokens are not; otherwise the tokens are, where the checkpoint has a norm for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import BESIDE, Rule, Same, State
from headwater.interop.huggingface.images import PictureFamily
from headwater.interop.huggingface.trunks import (
    OLD,
    activation,
    blocks,
    both,
    pair,
    patches,
    ratio,
    reads_back,
    side,
    sizes,
)
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig

CLASSIFIER = "VideoMAEForVideoClassification"
CLASSIFIER_EPS = 1e-5  # of the norm of what is pooled, whatever the configuration says of the others
UNLIKE = (
    "VideoMAE of transformers is not like this encoder: it takes clips, sines by number (position=sequence), no bias of "
    "keys, and the mean of its tokens. Export it as safetensors or ONNX instead."
)
NAMES = replace(OLD, bias_q="attention.attention.q_bias", bias_v="attention.attention.v_bias")


class VideoMAE(PictureFamily):
    kinds: ClassVar[tuple[str, ...]] = ("videomae",)
    modality = "video"
    front: ClassVar[str] = "videomae."

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        classifier = (config.get("architectures") or [""])[0] == CLASSIFIER
        mean = config["use_mean_pooling"]
        if classifier and not mean:
            raise RequestError(
                "use_mean_pooling=False is not supported for a classifier of VideoMAE, which then reads its first token."
            )
        sides, patch = pair(config["image_size"]), pair(config["patch_size"])
        trunk = TransformerConfig(
            dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp_ratio=ratio(config["intermediate_size"], config["hidden_size"]),
            activation=activation(config),
            eps=config["layer_norm_eps"],
            qkv_bias="qv" if config.get("qv_bias", config.get("qkv_bias", True)) else False,
            norm="open" if mean else "pre",
        )
        tubelet = (int(config["tubelet_size"]), *patch)
        return TokenEncoderConfig(
            tokenizer=GridTokenizerConfig(modality="video", channels=config["num_channels"], patch=tubelet),
            trunk=trunk,
            position="sequence",
            grid=tuple(s // p for s, p in zip((int(config["num_frames"]), *sides), tubelet, strict=True)),
            pool_norm=CLASSIFIER_EPS if classifier else 0.0,
        )

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        """Of clips, whose frames all undergo the same."""
        made = super().processor(architecture, preprocessing, ours)
        return {"do_center_crop": False, **made, "image_processor_type": "VideoMAEImageProcessor"} if made else {}

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        a = self.architecture(config, {})
        assert isinstance(a.tokenizer, GridTokenizerConfig)
        out: list[Rule] = [
            patches(f"{NAMES.patches}.weight", a.tokenizer.channels, a.tokenizer.patch),
            Same("tokenizer.embed.bias", f"{NAMES.patches}.bias"),
        ]
        if a.pool_norm:
            out += both("pool_norm", f"{BESIDE}fc_norm")
        if a.transformer.norm == "pre":
            out += both("trunk.norm", NAMES.norm)
        return [*out, *blocks(NAMES, a.transformer)]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if (
            not isinstance(a, TokenEncoderConfig)
            or not isinstance(a.tokenizer, GridTokenizerConfig)
            or len(a.grid) != 3
        ):
            raise RequestError(UNLIKE)
        sides = [g * p for g, p in zip(a.grid, a.tokenizer.patch, strict=True)]
        made = {
            "model_type": "videomae",
            "architectures": [CLASSIFIER if a.pool_norm else "VideoMAEModel"],
            **sizes(a.transformer),
            "image_size": side((sides[1], sides[2])),
            "patch_size": side(a.tokenizer.patch[1:]),
            "num_channels": a.tokenizer.channels,
            "num_frames": sides[0],
            "tubelet_size": a.tokenizer.patch[0],
            "qkv_bias": a.transformer.qkv_bias == "qv",
            "use_mean_pooling": a.transformer.norm == "open",
        }
        if not reads_back(self, made, a):
            raise RequestError(UNLIKE)
        return made
