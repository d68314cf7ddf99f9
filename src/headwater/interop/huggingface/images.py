"""preprocessor_config.json of picture models: read into an artefact's card and Normalise buffers, and written from them.

Card: {"size": [h, w] that the encoder sees, "interpolation", "fit": "stretch" (both sides) or "cover" (the shorter
side), "crop": the share of the resized picture that the central cut keeps}.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Family, State

FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# what an old-style `"size": 224` means to these: the shorter side; to all others, both sides
SHORTER = ("CLIP", "ConvNext", "Bit", "VideoMAE", "ChineseCLIP", "LeViT", "Poolformer")
STRETCHED_FROM = 384  # ConvNeXt's processor cuts nothing away from this size on


class PictureFamily(Family):
    """Abstract: a family of pictures or clips. `normalise` is where its encoders keep the mean and deviation."""

    normalise: ClassVar[str] = "tokenizer.normalise"

    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        return preprocessing(config, processor)

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        return constants(self.normalise, config, processor)

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        return processor(preprocessing, ours[f"{self.normalise}.mean"], ours[f"{self.normalise}.std"])


def preprocessing(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """What a card keeps. Without a processor the size is the configuration's, and the picture is stretched to it."""
    side = config.get("image_size")
    resample = processor.get("resample", 2)
    if resample not in FILTERS:
        raise RequestError(
            f"preprocessor_config.json: resample {resample} is not supported; 2 (bilinear) and 3 (bicubic) are."
        )
    made = {"interpolation": FILTERS[resample]}
    resized = processor.get("size", side)
    if resized is None or not processor.get("do_resize", True):
        return {}
    if isinstance(resized, Mapping) and "shortest_edge" in resized:
        shorter, edges = True, [resized["shortest_edge"]] * 2
    elif isinstance(resized, Mapping):
        shorter, edges = False, [resized["height"], resized["width"]]
    else:
        edges = [resized] * 2 if isinstance(resized, int) else [*resized]
        shorter = _type(processor).startswith(SHORTER)
    if _type(processor).startswith("ConvNext"):
        if edges[0] >= STRETCHED_FROM:
            return {**made, "size": edges, "fit": "stretch", "crop": 1.0}
        return {**made, "size": edges, "fit": "cover", "crop": float(processor.get("crop_pct") or 224 / 256)}
    cut = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = edges if cut is None else [cut["height"], cut["width"]] if isinstance(cut, Mapping) else [cut] * 2
    return {**made, "size": size, "fit": "cover" if shorter else "stretch", "crop": size[0] / edges[0]}


def constants(at: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
    """Mean and deviation of values in [0, 1], as the buffers `at`.mean and `at`.std. Without a processor: none."""
    channels = config.get("num_channels", 3)
    mean, std = torch.zeros(channels), torch.ones(channels)
    if processor.get("do_normalize", "image_mean" in processor):
        mean, std = (_each(processor[f"image_{what}"], channels) for what in ("mean", "std"))
    if processor.get("do_rescale", True):
        factor = 255 * processor.get("rescale_factor", 1 / 255)
        if abs(factor - 1) > 1e-6:
            mean, std = mean / factor, std / factor
    return {f"{at}.mean": mean, f"{at}.std": std}


def processor(preprocessing: Mapping[str, Any], mean: Tensor, std: Tensor) -> dict[str, Any]:
    """The inverse of the two above. Empty where a card names no size."""
    if "size" not in preprocessing:
        return {}
    (h, w), share = preprocessing["size"], preprocessing.get("crop", 1.0)
    stretch = preprocessing.get("fit") == "stretch"
    numbers = {name: number for number, name in FILTERS.items()}
    out: dict[str, Any] = {
        "do_resize": True,
        "resample": numbers[preprocessing.get("interpolation", "bilinear")],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean.tolist(),
        "image_std": std.tolist(),
    }
    if stretch and share == 1:
        return {**out, "image_processor_type": "ViTImageProcessor", "size": {"height": h, "width": w}}
    cut = {"do_center_crop": True, "crop_size": {"height": h, "width": w}}
    if stretch:
        size = {"height": round(h / share), "width": round(w / share)}
        return {**out, **cut, "image_processor_type": "DeiTImageProcessor", "size": size}
    size = {"shortest_edge": round(min(h, w) / share)}
    return {**out, **cut, "image_processor_type": "CLIPImageProcessor", "size": size}


def _type(processor: Mapping[str, Any]) -> str:
    return str(processor.get("image_processor_type", processor.get("feature_extractor_type", "")))


def _each(value: Any, channels: int) -> Tensor:
    return torch.tensor(value, dtype=torch.float32).expand(channels).clone()
