"""ConvNeXt in the format of `transformers`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Rule, Same
from headwater.interop.huggingface.images import PictureFamily
from headwater.parts.convnet import ConvNeXtConfig


class ConvNeXt(PictureFamily):
    normalise = "normalise"
    kinds: ClassVar[tuple[str, ...]] = ("convnext",)

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ConvNeXtConfig:
        if config.get("hidden_act", "gelu") != "gelu":
            raise RequestError(f"hidden_act={config['hidden_act']!r} is not supported for ConvNeXt; gelu is.")
        if not config.get("layer_scale_init_value", 1e-6) > 0:
            raise RequestError("layer_scale_init_value=0 is not supported for ConvNeXt: its blocks have a layer scale.")
        return ConvNeXtConfig(
            channels=config.get("num_channels", 3),
            widths=tuple(config.get("hidden_sizes") or (96, 192, 384, 768)),
            depths=tuple(config.get("depths") or (3, 3, 9, 3)),
            stem_stride=config.get("patch_size", 4),
            layer_scale=config.get("layer_scale_init_value", 1e-6),
            eps=config.get("layer_norm_eps", 1e-12),
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        depths = config.get("depths") or (3, 3, 9, 3)
        pairs = [
            ("body.0", "embeddings.patch_embeddings"),
            ("body.1.norm", "embeddings.layernorm"),
            ("norm", "layernorm"),
        ]
        scales: list[Rule] = []
        at = 2
        for stage, deep in enumerate(depths):
            if stage:
                down = f"encoder.stages.{stage}.downsampling_layer"
                pairs += [(f"body.{at}.norm", f"{down}.0"), (f"body.{at + 1}", f"{down}.1")]
                at += 2
            for i in range(deep):
                ours, theirs = f"body.{at}", f"encoder.stages.{stage}.layers.{i}"
                pairs += [
                    (f"{ours}.spatial", f"{theirs}.dwconv"),
                    (f"{ours}.norm", f"{theirs}.layernorm"),
                    (f"{ours}.mlp.0", f"{theirs}.pwconv1"),
                    (f"{ours}.mlp.2", f"{theirs}.pwconv2"),
                ]
                scales.append(Same(f"{ours}.gamma", f"{theirs}.layer_scale_parameter"))
                at += 1
        return [*scales, *(Same(f"{o}.{p}", f"{t}.{p}") for o, t in pairs for p in ("weight", "bias"))]

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(architecture, ConvNeXtConfig) or architecture.rank != 2:
            raise RequestError("ConvNeXt of `transformers` is a ConvNeXt over pictures.")
        stages = len(architecture.widths)
        size = preprocessing.get("size")
        return {
            "model_type": "convnext",
            "architectures": ["ConvNextModel"],
            "num_channels": architecture.channels,
            "hidden_sizes": [*architecture.widths],
            "depths": [*architecture.depths],
            "num_stages": stages,
            "patch_size": architecture.stem_stride,
            "hidden_act": "gelu",
            "layer_scale_init_value": architecture.layer_scale,
            "layer_norm_eps": architecture.eps,
            **({"image_size": size[0]} if size else {}),
        }
