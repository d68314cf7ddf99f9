"""ResNet (18 to 152) in the format of `transformers`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Rule, Same
from headwater.interop.huggingface.images import PictureFamily
from headwater.parts.convnet import ResNetConfig

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STEM = 4  # places of `body` before the first block: convolution, norm, ReLU, max pooling


class ResNet(PictureFamily):
    normalise = "normalise"
    kinds: ClassVar[tuple[str, ...]] = ("resnet",)

    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ResNetConfig:
        for name, value in (
            ("hidden_act", "relu"),
            ("downsample_in_first_stage", False),
            ("downsample_in_bottleneck", False),
        ):
            if config.get(name, value) != value:
                raise RequestError(f"{name}={config[name]!r} is not supported for ResNet; {value!r} is.")
        return ResNetConfig(
            channels=config.get("num_channels", 3),
            widths=tuple(config.get("hidden_sizes") or (256, 512, 1024, 2048)),
            depths=tuple(config.get("depths") or (3, 4, 6, 3)),
            stem=config.get("embedding_size", 64),
            bottleneck=config.get("layer_type", "bottleneck") == "bottleneck",
        )

    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        ours = self.architecture(config, {})
        pairs = [("body.0", "body.1", "embedder.embedder")]
        at, width = STEM, ours.stem
        for stage, (wide, deep) in enumerate(zip(ours.widths, ours.depths, strict=True)):
            for i in range(deep):
                here, there = f"body.{at}", f"encoder.stages.{stage}.layers.{i}"
                for j in range(3 if ours.bottleneck else 2):
                    pairs.append((f"{here}.body.{3 * j}", f"{here}.body.{3 * j + 1}", f"{there}.layer.{j}"))
                if width != wide or (i == 0 and stage > 0):
                    pairs.append((f"{here}.skip.0", f"{here}.skip.1", f"{there}.shortcut"))
                at, width = at + 1, wide
        out: list[Rule] = []
        for conv, norm, theirs in pairs:
            out.append(Same(f"{conv}.weight", f"{theirs}.convolution.weight"))
            out += [Same(f"{norm}.{p}", f"{theirs}.normalization.{p}") for p in BATCH_NORM]
        return out

    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(architecture, ResNetConfig) or architecture.rank != 2 or architecture.stem_stride != 2:
            raise RequestError("ResNet of `transformers` is a ResNet over pictures with stem_stride=2.")
        if architecture.bottleneck and architecture.narrowing != 4:
            raise RequestError(
                "ResNet of `transformers` has bottlenecks whose inside is a quarter; a wide one is written as safetensors."
            )
        narrow = architecture.widths[0] // (4 if architecture.bottleneck else 1)
        return {
            "model_type": "resnet",
            "architectures": ["ResNetModel"],
            "num_channels": architecture.channels,
            "embedding_size": architecture.stem or narrow,
            "hidden_sizes": [*architecture.widths],
            "depths": [*architecture.depths],
            "layer_type": "bottleneck" if architecture.bottleneck else "basic",
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        }
