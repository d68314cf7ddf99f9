"""Reading and writing folders in the format of `transformers`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headwater.core.errors import RequestError, unknown
from headwater.core.verbs import Encoder
from headwater.interop.huggingface.ast import AST
from headwater.interop.huggingface.beit import Beit
from headwater.interop.huggingface.bert import Bert
from headwater.interop.huggingface.convnext import ConvNeXt
from headwater.interop.huggingface.defaults import DEFAULTS
from headwater.interop.huggingface.dinov3 import DINOv3
from headwater.interop.huggingface.family import BESIDE, Family, State, to_ours, to_theirs
from headwater.interop.huggingface.patchtsmixer import PatchTSMixer
from headwater.interop.huggingface.resnet import ResNet
from headwater.interop.huggingface.swin import Swin
from headwater.interop.huggingface.t5 import T5
from headwater.interop.huggingface.texttower import TextTowers
from headwater.interop.huggingface.videomae import VideoMAE
from headwater.interop.huggingface.vision import Vision
from headwater.interop.huggingface.wav2vec2 import Hubert, Wav2Vec2

ALL: tuple[Family, ...] = (
    *(Vision(), Bert(), ResNet(), ConvNeXt(), Swin(), PatchTSMixer(), AST()),
    *(Wav2Vec2(), Hubert(), T5(), TextTowers(), Beit(), DINOv3(), VideoMAE()),
)
FAMILIES: Mapping[str, Family] = {kind: family for family in ALL for kind in family.kinds}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# ends of names that no model learns and every one counts afresh when it is built
COUNTED = ("position_ids", "relative_position_index", "relative_coords_table", "inv_freq")
# models of several towers, the first unless another is asked for: where its settings stand, what it is alone, and how its
# weights begin
TOWERS = {
    name: {
        "image": ("vision_config", f"{name}_vision_model", "vision_model."),
        "text": ("text_config", f"{name}_text_model", "text_model."),
    }
    for name in ("clip", "siglip")
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


def load(at: Path, modality: str | None = None) -> Loaded | None:
    """The checkpoint in this folder as an encoder of ours; None where no family of ours is like it.

    `modality` chooses among several towers (by default the one of images). Raises RequestError for a folder that is no
    checkpoint, for weights in pickles, and where a weight is missing, is left over, has another shape, or a setting is not
    among what our encoder does.
    """
    config, processor = read_config(at), read_processor(at)
    kind, front = str(config.get("model_type")), ""
    if kind in TOWERS:
        towers = TOWERS[kind]
        if modality is not None and modality not in towers:
            raise RequestError(f"{at} holds encoders of {', '.join(towers)}; say which (got {modality!r}).")
        inner, kind, front = towers[modality or next(iter(towers))]
        config = {**(config.get(inner) or {}), "model_type": kind}
    config = {**DEFAULTS.get(kind, {}), **config}
    family = FAMILIES.get(kind)
    if family is None:
        return None
    try:
        return _loaded(family, kind, config, processor, read_weights(at), front)
    except KeyError as error:
        raise RequestError(f"{at}: {CONFIG} of a {kind} names no {error}.") from error
    except RequestError as error:
        raise RequestError(str(error) if str(at) in str(error) else f"{at}: {error}") from error


def _loaded(
    family: Family, kind: str, config: Mapping[str, Any], processor: Mapping[str, Any], state: State, front: str
) -> Loaded:
    architecture, rules = family.architecture(config, processor), family.rules(config)
    wanted = [name for r in rules for name in ([r.theirs] if isinstance(r.theirs, str) else r.theirs)]
    if front:
        state = {k: v for k, v in state.items() if k.startswith(front)}
    for old, new in family.renamed.items():
        state = {k.removesuffix(old) + new if k.endswith(old) else k: v for k, v in state.items()}
    bare = _bare(state, wanted)
    if not any(name in bare for name in wanted):
        found = next(iter(state), "nothing")
        raise RequestError(f"the weights are not those of a {kind}: expected such as {wanted[0]}, found {found}.")
    lacking = [name for name in wanted if name not in bare]
    if lacking:
        raise RequestError(f"the checkpoint lacks {len(lacking)} weights of a {kind}, such as {lacking[0]}.")
    over = [n for n in sorted({*bare} - {*wanted}) if not n.startswith(family.left) and not n.endswith(COUNTED)]
    if over:
        raise RequestError(
            f"{len(over)} weights of the checkpoint, such as {over[0]}, are not part of a {kind} as its {CONFIG} describes it."
        )
    encoder = architecture.build()
    own = encoder.state_dict()
    ours = to_ours(rules, bare) | family.constants(config, processor)
    for name, value in own.items():
        if name not in ours:
            raise RequestError(f"nothing in the checkpoint gives our {name}.")
        if ours[name].shape != value.shape:
            has, takes = tuple(ours[name].shape), tuple(value.shape)
            raise RequestError(f"the weights of our {name} have shape {has}, where {CONFIG} asks for {takes}.")
    encoder.load_state_dict(ours)
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
    if any(k.startswith(BESIDE) for k in weights):
        weights = {k.removeprefix(BESIDE) if k.startswith(BESIDE) else family.front + k: v for k, v in weights.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    (out / CONFIG).write_text(json.dumps(config, indent=1))
    processor = family.processor(architecture, preprocessing, state)
    if processor:
        (out / PROCESSORS[0]).write_text(json.dumps(processor, indent=1))
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
    reasons: dict[str, str] = {}  # the first of each modality
    for family in tried:
        try:
            return family, family.config(architecture, preprocessing)
        except RequestError as error:
            reasons.setdefault(family.modality, str(error))
    raise RequestError(reasons.get(modality) or next(iter(reasons.values())))


def read_config(at: Path) -> dict[str, Any]:
    if not (at / CONFIG).is_file():
        raise RequestError(f"{at} holds no {CONFIG}; it is no checkpoint of transformers.")
    return _json(at / CONFIG)


def read_processor(at: Path) -> dict[str, Any]:
    """How samples are prepared, the text of tokenizer.json under "tokenizer", and what pads under "pad_token"; empty where
    the folder does not say."""
    name = next((n for n in PROCESSORS if (at / n).is_file()), None)
    found = {} if name is None else _json(at / name)
    for part in ("image_processor", "video_processor", "feature_extractor"):
        if isinstance(found.get(part), dict):
            found = found[part]
    if (at / "tokenizer.json").is_file():
        found["tokenizer"] = (at / "tokenizer.json").read_text()
    if (at / "tokenizer_config.json").is_file():
        pad = _json(at / "tokenizer_config.json").get("pad_token")
        found["pad_token"] = pad.get("content") if isinstance(pad, dict) else pad
    return found


def weight_files(at: Path) -> list[Path]:
    """The safetensors of a checkpoint: one, or the parts that its index lists."""
    index = at / f"{WEIGHTS}.index.json"
    if (at / WEIGHTS).is_file() or not index.is_file():
        names = [WEIGHTS]
    else:
        names = sorted({*_json(index).get("weight_map", {}).values()})
        if bad := [n for n in names if Path(n).name != n]:
            raise RequestError(f"{index} names a file outside its folder: {bad[0]}.")
    gone = [n for n in names if not (at / n).is_file()]
    pickled = sorted(p.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in at.glob(kind))
    if gone and pickled and not index.is_file():
        raise RequestError(
            f"{at} holds its weights as a pickle ({pickled[0]}), which can run any code when it is opened, and is not read. "
            "Convert it where you trust it: transformers' AutoModel.from_pretrained(...).save_pretrained(...) writes safetensors."
        )
    if gone:
        raise RequestError(f"{at} lacks {gone[0]} ({len(gone)} of {len(names)} files of weights).")
    return [at / n for n in names]


def read_weights(at: Path) -> dict[str, Tensor]:
    """All weights, those of half precision as float32."""
    found: dict[str, Tensor] = {}
    for file in weight_files(at):
        try:
            found |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{file} cannot be read ({error}).") from error
    return {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in found.items()}


def _bare(state: State, wanted: Sequence[str]) -> dict[str, Tensor]:
    """The weights by their names in the bare model: what stands in front of them ("vit.", "bert.") is cut off, and what
    stands beside it, such as a classifier, is left behind."""
    fronts = {k.removesuffix(name) for name in (wanted[0], wanted[-1]) for k in state if k.endswith(name)} | {""}
    # the one under which most of the wanted names stand; of equals the shortest
    front = max(sorted(fronts, key=len), key=lambda f: sum(f + name in state for name in wanted))
    beside = {name: state[name[1:]] for name in wanted if name.startswith(BESIDE) and name[1:] in state}
    return {k.removeprefix(front): v for k, v in state.items() if k.startswith(front)} | beside


def _json(at: Path) -> dict[str, Any]:
    try:
        found = json.loads(at.read_text())
    except ValueError as error:
        raise RequestError(f"{at} is damaged: it is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise RequestError(f"{at} is damaged: it holds no JSON object.")
    return found
