"""PatchTSMixer in the format of `transformers`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Family, Rule, Same, Stacked, State
from headwater.parts.mixer import MixerConfig

FRONT = "encoder.mlp_mixer_encoder.mixers"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SCALINGS: Mapping[Any, str] = {"std": "std", True: "std", "mean": "mean", False: "none", None: "none"}


class PatchTSMixer(Family):
    kinds: ClassVar[tuple[str, ...]] = ("patchtsmixer",)
    modality = "series"

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> MixerConfig:
        scaling = config.get("scaling", "std")
        if scaling not in SCALINGS:
            raise RequestError(f"scaling={scaling!r} is not supported for PatchTSMixer; std, mean and false are.")
        position = {"sincos": "sincos", "random": "learned"}.get(config.get("positional_encoding_type", "sincos"))
        return MixerConfig(
            channels=config.get("num_input_channels", 1),
            length=config.get("context_length", 32),
            patch=config.get("patch_length", 8),
            stride=config.get("patch_stride", 8),
            dim=config.get("d_model", 8),
            depth=config.get("num_layers", 3),
            expansion=config.get("expansion_factor", 2),
            mixing=config.get("mode", "common_channel") == "mix_channel",
            gated=config.get("gated_attn", True),
            attention=config.get("self_attn_heads", 1) if config.get("self_attn", False) else 0,
            scaling=SCALINGS[scaling],  # type: ignore[arg-type]
            position=position if config.get("use_positional_encoding", False) else "none",  # type: ignore[arg-type]
            norm="batch" if "batch" in config.get("norm_mlp", "LayerNorm").lower() else "layer",
            eps=config.get("norm_eps", 1e-5),
            dropout=config.get("dropout", 0.2),
        )

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        channels = config.get("num_input_channels", 1)
        plain = {"mean": [0.0] * channels, "std": [1.0] * channels}
        return {f"normalise.{k}": torch.tensor(processor.get(k, v), dtype=torch.float32) for k, v in plain.items()}

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        """Theirs has no processor. Where our encoder normalises channels, what it takes away and divides by stands there:
        those who use `transformers` do so first, as with pictures."""
        mean, std = ours["normalise.mean"], ours["normalise.std"]
        if not mean.any() and (std == 1).all():
            return {}
        return {"do_normalize": True, "mean": mean.tolist(), "std": std.tolist()}

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        made = self.architecture(config, {})
        mixes = [("patches", "patch_mixer"), ("features", "feature_mixer")]
        mixes += [("channels", "channel_feature_mixer")] if made.mixing else []
        norm = BATCH_NORM if made.norm == "batch" else ("weight", "bias")
        inner = "norm.batchnorm" if made.norm == "batch" else "norm"
        pairs, out = [("embed", "encoder.patcher")], list[Rule]()
        if made.position != "none":
            out.append(Same("position", "encoder.positional_encoder.position_enc"))
        for i in range(made.depth):
            for part, theirs in ((f"blocks.{i}.{o}", f"{FRONT}.{i}.{t}") for o, t in mixes):
                pairs += [(f"{part}.mlp.0", f"{theirs}.mlp.fc1"), (f"{part}.mlp.3", f"{theirs}.mlp.fc2")]
                pairs += [(f"{part}.gate.weigh", f"{theirs}.gating_block.attn_layer")] if made.gated else []
                out += [Same(f"{part}.norm.norm.{p}", f"{theirs}.norm.{inner}.{p}") for p in norm]
                if made.attention and theirs.endswith("patch_mixer"):
                    at = f"{theirs}.self_attn_layer"
                    for p in ("weight", "bias"):
                        out.append(Stacked(f"{part}.attention.qkv.{p}", tuple(f"{at}.{q}_proj.{p}" for q in "qkv")))
                    pairs.append((f"{part}.attention.out", f"{at}.out_proj"))
                    out += [Same(f"{part}.attention.norm.norm.{p}", f"{theirs}.norm_attn.{inner}.{p}") for p in norm]
        return [*out, *(Same(f"{o}.{p}", f"{t}.{p}") for o, t in pairs for p in ("weight", "bias"))]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(architecture, MixerConfig):
            raise RequestError("PatchTSMixer of `transformers` is a mixer over series.")
        if architecture.levels or architecture.resolutions:
            raise RequestError("PatchTSMixer of `transformers` has neither levels nor resolutions; this mixer has.")
        made = architecture
        return {
            "model_type": "patchtsmixer",
            "architectures": ["PatchTSMixerModel"],
            "num_input_channels": made.channels,
            "context_length": made.length,
            "patch_length": made.patch,
            "patch_stride": made.stride or made.patch,
            "d_model": made.dim,
            "num_layers": made.depth,
            "expansion_factor": made.expansion,
            "mode": "mix_channel" if made.mixing else "common_channel",
            "gated_attn": made.gated,
            "self_attn": made.attention > 0,
            "self_attn_heads": made.attention or 1,
            "scaling": False if made.scaling == "none" else made.scaling,
            "use_positional_encoding": made.position != "none",
            "positional_encoding_type": "random" if made.position == "learned" else "sincos",
            "norm_mlp": "BatchNorm" if made.norm == "batch" else "LayerNorm",
            "norm_eps": made.eps,
            "dropout": made.dropout,
        }
