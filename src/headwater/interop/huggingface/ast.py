"""Audio Spectrogram Transformer in the format of `transformers`.

Their patches run along time first and ours along pitch, so tables of positions change their order. What is pooled is the
mean of the class and the distillation token after the last norm, as theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Family, Parted, Rule, Same, State
from headwater.interop.huggingface.trunks import ACTIVATIONS, OLD, blocks, both, prefix, ratio, sizes
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.tokens import SpectrogramTokenizerConfig
from headwater.parts.transformer import TransformerConfig

RATE = 16_000  # Hz: their frames are counted in samples, 400 of them and 160 on
FLOOR = 2.0**-23
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet, what their extractor takes where a checkpoint does not say
UNLIKE = (
    "No audio encoder of transformers is like this one: AST takes patches of Kaldi's log-mel values in a fixed number of "
    "frames, learned positions, and a class and a distillation token; wav2vec 2.0 and HuBERT take the wave of one channel "
    "and convolutional positions. Export it as safetensors or ONNX instead."
)


class AST(Family):
    kinds = ("audio-spectrogram-transformer",)
    modality = "audio"

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> TokenEncoderConfig:
        for name, wanted in (("num_mel_bins", config["num_mel_bins"]), ("max_length", config["max_length"])):
            if processor.get(name, wanted) != wanted:
                raise RequestError(
                    f"The checkpoint's preprocessor_config.json has {name}={processor[name]}, its config.json {wanted}."
                )
        for name, value, known in (
            ("sampling_rate", processor.get("sampling_rate", RATE), (RATE,)),
            ("feature_size", processor.get("feature_size", 1), (1,)),
            ("hidden_act", config.get("hidden_act", "gelu"), tuple(ACTIVATIONS)),
        ):
            if value not in known:
                raise RequestError(
                    f"The checkpoint's {name}={value!r} is not among what our encoder does: {', '.join(map(str, known))}."
                )
        if not isinstance(config["patch_size"], int):
            raise RequestError(f"The checkpoint's patch_size={config['patch_size']!r} is not one whole number.")
        dim = config["hidden_size"]
        return TokenEncoderConfig(
            tokenizer=SpectrogramTokenizerConfig(
                rate=RATE,
                patch=(config["patch_size"],) * 2,
                stride=(config["time_stride"], config["frequency_stride"]),
                mels=config["num_mel_bins"],
                frames=config["max_length"],
                floor=FLOOR,
                kaldi=True,
            ),
            trunk=TransformerConfig(
                dim=dim,
                depth=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                mlp_ratio=ratio(config["intermediate_size"], dim),
                activation=ACTIVATIONS[config.get("hidden_act", "gelu")],
                eps=config.get("layer_norm_eps", 1e-12),
                qkv_bias=bool(config.get("qkv_bias", True)),
            ),
            position="learned",
            grid=_grid(config),
            class_token=True,
            registers=1,
            prefix_positions=2,
            pool="prefix",
        )

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        """One channel at their rate, in pieces that fit into the frames; longer files are cut, where theirs end."""
        samples = (config["max_length"] - 1) * 160 + 400
        return {"read": {"rate": RATE, "seconds": samples / RATE, "mix": True}}

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        """They divide by twice the deviation."""
        plain = not processor.get("do_normalize", True)
        mean, std = (0.0, 0.5) if plain else (processor.get("mean", MEAN), processor.get("std", STD))
        return {
            "tokenizer.cut.normalise.mean": torch.tensor([mean]),
            "tokenizer.cut.normalise.std": torch.tensor([2 * std]),
        }

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        tokenizer = architecture.tokenizer
        return {
            "feature_extractor_type": "ASTFeatureExtractor",
            "feature_size": 1,
            "sampling_rate": RATE,
            "num_mel_bins": tokenizer.mels,
            "max_length": tokenizer.frames,
            "do_normalize": True,
            "mean": float(ours["tokenizer.cut.normalise.mean"]),
            "std": float(ours["tokenizer.cut.normalise.std"]) / 2,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        }

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        projection, side = "embeddings.patch_embeddings.projection", config["patch_size"]
        grid = _grid(config)
        out: list[Rule] = [
            Changed(
                "tokenizer.cut.embed.weight",
                f"{projection}.weight",  # [d 1 pitch time]
                lambda w: w[:, 0].transpose(1, 2).flatten(1),
                lambda w: w.unflatten(1, (side, side)).transpose(1, 2)[:, None],
            ),
            Same("tokenizer.cut.embed.bias", f"{projection}.bias"),
            Parted(
                ("prefix_table", "table.table"),
                ("embeddings.position_embeddings",),
                lambda t: [t[0][0, :2], _turned(t[0][:, 2:], grid[::-1])],
                lambda o: [torch.cat([o[0][None], _turned(o[1], grid)], 1)],
            ),
            prefix("embeddings.cls_token", "embeddings.distillation_token"),
        ]
        return [*out, *blocks(OLD, self.architecture(config, {}).transformer), *both("trunk.norm", "layernorm")]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        a = architecture
        if not isinstance(a, TokenEncoderConfig) or not isinstance(a.tokenizer, SpectrogramTokenizerConfig):
            raise RequestError(UNLIKE)
        trunk, tokenizer = a.transformer, a.tokenizer
        if not tokenizer.frames or trunk.activation not in ACTIVATIONS.values():
            raise RequestError(UNLIKE)
        stride = tokenizer.stride or tokenizer.patch
        made = {
            "model_type": self.kinds[0],
            "architectures": ["ASTModel"],
            **sizes(trunk),
            "qkv_bias": trunk.qkv_bias,
            "patch_size": tokenizer.patch[0],
            "time_stride": stride[0],
            "frequency_stride": stride[1],
            "num_mel_bins": tokenizer.mels,
            "max_length": tokenizer.frames,
        }
        plain = replace(a, trunk=replace(trunk, drop_path=0.0), tokenizer=replace(tokenizer, stride=stride))
        if self.architecture(made, {}) != plain:
            raise RequestError(UNLIKE)
        return made


def _grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """Patches along time and along pitch."""
    side = config["patch_size"]
    return (
        (config["max_length"] - side) // config["time_stride"] + 1,
        (config["num_mel_bins"] - side) // config["frequency_stride"] + 1,
    )


def _turned(table: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A table [1 n d] of a grid, with the grid's two axes exchanged."""
    return table.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
