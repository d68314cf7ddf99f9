"""Reading and writing folders in the format of `transformers`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Encoder
from headwater.interop.huggingface.bert import Bert
from headwater.interop.huggingface.convnext import ConvNeXt
from headwater.interop.huggingface.family import Family, to_ours, to_theirs
from headwater.interop.huggingface.resnet import ResNet
from headwater.interop.huggingface.vision import Vision

FAMILIES: Mapping[str, Family] = {
    kind: family for family in (Vision(), Bert(), ResNet(), ConvNeXt()) for kind in family.kinds
}
# models of several towers: where the settings of the one we read stand, what it is alone, and how its weights begin
TOWERS = {
    "clip": ("vision_config", "clip_vision_model", "vision_model."),
    "siglip": ("vision_config", "siglip_vision_model", "vision_model."),
}


@dataclass(frozen=True)
class Loaded:
    """An encoder of ours with its configuration and what happens to samples before it."""

    encoder: Encoder
    architecture: Any
    preprocessing: Mapping[str, Any]
    model_type: str


def find(name: str) -> Path:
    """The folder of a checkpoint: a path, or the id of one that the local cache of Hugging Face already holds."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise RequestError(f"hf:{name} is no folder; ids need huggingface_hub: pip install 'headwater[hf]'") from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise RequestError(
            f"hf:{name}: there is no such folder, and the local cache holds no checkpoint of that name. "
            f"Download it first (hf download {name}), then give its name or folder."
        ) from error


def load(name: str | Path) -> Loaded | None:
    """The checkpoint as an encoder of ours; None where no family of ours is like it.

    Raises RequestError for a folder that is no checkpoint, for weights in pickles, and where a weight is missing, is left
    over, or a setting is not among what our encoder does.
    """
    at = find(str(name))
    config = _json(at / "config.json", required=True)
    theirs = read_weights(at)
    kind = config.get("model_type", "")
    if kind in TOWERS:
        inner, kind, start = TOWERS[kind]
        config = {**config[inner], "model_type": kind}
        theirs = {k.removeprefix(start): v for k, v in theirs.items() if k.startswith(start)}
    family = FAMILIES.get(kind)
    if family is None:
        return None
    processor = _json(at / "preprocessor_config.json")
    if (at / "tokenizer.json").is_file():
        processor["tokenizer"] = (at / "tokenizer.json").read_text()
    architecture = family.architecture(config, processor)
    rules = family.rules(config)
    theirs = _bare(theirs, {n for r in rules for n in ([r.theirs] if isinstance(r.theirs, str) else r.theirs)})
    ours = to_ours(rules, theirs) | family.constants(config, processor)
    encoder = architecture.build()
    missing, unknown = encoder.load_state_dict(ours, strict=False)
    missing = [m for m in missing if not m.endswith(("normalise.mean", "normalise.std"))]
    used = {n for r in rules for n in ([r.theirs] if isinstance(r.theirs, str) else r.theirs)}
    over = [n for n in theirs if n not in used and not n.startswith(family.left)]
    if missing or unknown or over:
        named = (missing + list(unknown) + over)[0]
        raise RequestError(f"hf:{name}: the weight {named!r} has no counterpart; this is no plain {kind} checkpoint.")
    return Loaded(encoder.eval(), architecture, family.preprocessing(config, processor), kind)


def save(
    encoder: Encoder, architecture: Any, preprocessing: Mapping[str, Any], out: Path, model_type: str | None = None
) -> str:
    """Write a folder that `transformers` loads, by `model_type` or the first family that can express the encoder.

    Returns the model_type written. Raises RequestError where none can, with the reason of one that reads the modality.
    """
    family, config = _written_by(architecture, preprocessing, model_type, encoder.modality)
    state = encoder.state_dict()
    weights = {k: v.contiguous().clone() for k, v in to_theirs(family.rules(config), state).items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1))
    processor = family.processor(architecture, preprocessing, state)
    if processor:
        (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
    tokenizer = preprocessing.get("read", {}).get("tokenizer")
    if tokenizer:
        (out / "tokenizer.json").write_text(tokenizer)
    return str(config["model_type"])


def _written_by(
    architecture: Any, preprocessing: Mapping[str, Any], model_type: str | None, modality: str
) -> tuple[Family, dict[str, Any]]:
    if model_type is not None and model_type not in FAMILIES:
        raise unknown("model_type", model_type, FAMILIES)
    tried = dict.fromkeys(FAMILIES.values()) if model_type is None else {FAMILIES[model_type]: None}
    reasons: list[str] = []
    for family in tried:
        try:
            return family, family.config(architecture, preprocessing)
        except RequestError as error:
            reasons.append(str(error))
    raise RequestError(reasons[0] if modality == "image" or len(reasons) == 1 else reasons[1])


def read_weights(at: Path) -> dict[str, Tensor]:
    index = at / "model.safetensors.index.json"
    files = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    if not (at / files[0]).is_file():
        if any(at.glob("*.bin")) or any(at.glob("*.pt")) or any(at.glob("*.pth")):
            raise RequestError(
                f"{at} holds weights as pickles only, which can run any code when they are opened. Convert them where you "
                "trust them: transformers' AutoModel.from_pretrained(...).save_pretrained(...) writes safetensors."
            )
        raise RequestError(f"{at} holds no model.safetensors; it is no checkpoint of transformers.")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= load_file(at / Path(file).name)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{at / file} cannot be read ({error}).") from error
    return {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in found.items()}


def _bare(theirs: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The weights by their names in the bare model: what stands in front of all of them ("vit.", "bert.") is cut off, and
    what belongs to a head is left out."""
    if wanted <= set(theirs):
        return theirs
    some = next(iter(sorted(wanted)))
    for name in theirs:
        if name.endswith(f".{some}"):
            start = name.removesuffix(some)
            return {k.removeprefix(start): v for k, v in theirs.items() if k.startswith(start)}
    return theirs


def _json(at: Path, required: bool = False) -> dict[str, Any]:
    if not at.is_file():
        if required:
            raise RequestError(f"{at.parent} holds no {at.name}; it is no checkpoint of transformers.")
        return {}
    try:
        found: dict[str, Any] = json.loads(at.read_text())
    except ValueError as error:
        raise RequestError(f"{at} is no JSON ({error}).") from error
    return found
