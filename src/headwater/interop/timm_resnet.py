"""ResNet and Wide ResNet as timm and torchvision name their weights, in our own encoder: timm itself is not needed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from headwater.core.errors import RequestError
from headwater.parts.convnet import ConvNet, ResNetConfig

BASIC = ResNetConfig()
DEEP = ResNetConfig(widths=(256, 512, 1024, 2048), bottleneck=True)
SIZES = {
    "resnet18": BASIC,
    "resnet34": replace(BASIC, depths=(3, 4, 6, 3)),
    "resnet50": replace(DEEP, depths=(3, 4, 6, 3)),
    "resnet101": replace(DEEP, depths=(3, 4, 23, 3)),
    "resnet152": replace(DEEP, depths=(3, 8, 36, 3)),
    "wide_resnet50_2": replace(DEEP, depths=(3, 4, 6, 3), narrowing=2),  # Zagoruyko and Komodakis, 2016
    "wide_resnet101_2": replace(DEEP, depths=(3, 4, 23, 3), narrowing=2),
}
STEM = 4  # places of `body` before the first block: convolution, norm, ReLU, max pooling
CLASSIFIER = "fc."


def build(name: str, channels: int, weights: Mapping[str, Tensor], at: Path) -> ConvNet:
    """Raises RequestError where a weight is missing, is left over, or has another shape."""
    encoder = replace(SIZES[name], channels=channels).build()
    own = encoder.state_dict()
    theirs = {ours: f"{front}.{rest}" for front, here in _pairs(SIZES[name]) for ours, rest in _within(own, here)}
    lacking = [n for n in theirs.values() if n not in weights and not n.endswith("num_batches_tracked")]
    over = sorted({n for n in weights if not n.startswith(CLASSIFIER)} - {*theirs.values()})
    if lacking or over:
        what = f"lacks {len(lacking)} weights" if lacking else f"has {len(over)} weights too many"
        raise RequestError(f"{at}: the checkpoint {what} of a {name}, such as {(lacking or over)[0]}.")
    for ours, named in theirs.items():
        if named in weights and weights[named].shape != own[ours].shape:
            has, takes = tuple(weights[named].shape), tuple(own[ours].shape)
            raise RequestError(f"{at}: {named} has shape {has}, and a {name} takes {takes}.")
    encoder.load_state_dict({k: weights.get(theirs.get(k, ""), v) for k, v in own.items()})
    return encoder


def _pairs(config: ResNetConfig) -> list[tuple[str, str]]:
    """The names of their layers with ours; of each, convolutions and norms alone have weights."""
    made, at = [("conv1", "body.0"), ("bn1", "body.1")], STEM
    for stage, deep in enumerate(config.depths, 1):
        for i in range(deep):
            front = f"layer{stage}.{i}"
            for j in range(3 if config.bottleneck else 2):
                made += [
                    (f"{front}.conv{j + 1}", f"body.{at}.body.{3 * j}"),
                    (f"{front}.bn{j + 1}", f"body.{at}.body.{3 * j + 1}"),
                ]
            made += [(f"{front}.downsample.{j}", f"body.{at}.skip.{j}") for j in (0, 1)]
            at += 1
    return made


def _within(own: Mapping[str, Tensor], here: str) -> list[tuple[str, str]]:
    return [(name, name.removeprefix(f"{here}.")) for name in own if name.startswith(f"{here}.")]
