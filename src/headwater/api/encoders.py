"""Loading what pre-training left, here or in another library, and preparing samples for it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import Encoder
from headwater.data.source import Source
from headwater.engine.artefact import Card, load_encoder, versions
from headwater.engine.checkpoint import MANIFEST
from headwater.parts.views import CentreCrop
from headwater.parts.views.frame import Frame

HF = "hf:"  # what stands before a checkpoint in the format of `transformers`: its folder, or its id in the local cache
TIMM = "timm:"  # the same for the name of a model of timm


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its card. Call it on plain values (pixels as decoded, cells as written) to get Features."""

    encoder: Encoder
    card: Card
    path: Path

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def modality(self) -> str:
        return self.encoder.modality

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the weights: that of their file, or of the tensors of a checkpoint of another library."""
        if (self.path / MANIFEST).is_file():
            return str(json.loads((self.path / MANIFEST).read_text())["weights.safetensors"]["sha256"])
        found = hashlib.sha256()
        for name, value in sorted(self.encoder.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def prepare(self, x: Input) -> Input:
        return prepare(x, self.card.preprocessing)

    def __call__(self, x: Input) -> Any:
        """Features of a batch, without gradient."""
        with torch.inference_mode():
            return self.encoder(self.prepare(x))


def suited(source: Source, pretrained: Pretrained) -> Source:
    """The data as the encoder wants them read: at its sampling rate, with its columns. Raises RequestError for data of
    another modality, and for data that cannot be read so."""
    return conformed(source, pretrained).only(pretrained.modality)


def conformed(source: Source, pretrained: Pretrained) -> Source:
    """The data with the encoder's modality read as it wants; the others stay as they are."""
    modality = pretrained.modality
    if modality not in source.modalities:
        raise RequestError(f"The encoder reads {modality} and {source.name} holds {', '.join(source.modalities)}.")
    return source.conform(modality, pretrained.card.preprocessing.get("read", {}))


def prepare(x: Input, preprocessing: Mapping[str, Any]) -> Input:
    """A batch as the encoder wants it.

    Pictures of another size are scaled until they cover it and cut at the centre; those for an encoder that learned in
    another library are resized and cut as it did there ("fit", "crop", "interpolation"), clips frame by frame.
    """
    side, fit = preprocessing.get("size"), preprocessing.get("fit")
    if side is None:
        return x
    kind = preprocessing.get("interpolation", "bilinear")
    if fit in ("stretch", "cover"):
        height, width = side
        view = Frame((height, width), fit == "stretch", preprocessing.get("crop", 1.0), kind)
        if isinstance(x, Tensor) and x.ndim == 5:
            return view(x.transpose(1, 2).flatten(0, 1), Rng(0)).unflatten(0, (len(x), -1)).transpose(1, 2)
        return view(x, Rng(0))
    if isinstance(x, Tensor) and tuple(x.shape[2:]) == tuple(side):
        return x
    return CentreCrop(side[0], part=1.0, kind=kind)(x, Rng(0))


def load(path: str | Path, modality: str | None = None) -> Pretrained:
    """The encoder of a run folder, of an encoder folder, or of a checkpoint of another library.

    "hf:PATH" is a folder in the format of `transformers` or timm, and "hf:ID" one that the local cache of Hugging Face holds;
    "timm:NAME" is "hf:timm/NAME"; nothing is downloaded. Raises RequestError when there is none, or it is damaged. A run that
    made several encoders (pairs) needs `modality`; a checkpoint with several, such as CLIP, gives that of images without it.
    """
    if (name := elsewhere(str(path))) is not None:
        return foreign(name, modality)
    at = find(Path(path), modality)
    encoder, card = load_encoder(at)
    return Pretrained(encoder, card, at)


def elsewhere(path: str) -> str | None:
    """The folder or id of a checkpoint of another library, where `path` means one."""
    if path.startswith(HF):
        return path.removeprefix(HF)
    if not path.startswith(TIMM):
        return None
    name = path.removeprefix(TIMM)
    return name if "/" in name or Path(name).is_dir() else f"timm/{name}"


def foreign(name: str, modality: str | None = None) -> Pretrained:
    """A checkpoint in the format of `transformers` in our own encoder or, where none is like it, wrapped. Raises
    RequestError where it reads another modality than the one asked for."""
    from headwater.interop import huggingface, wrapped

    at = huggingface.find(name)
    loaded = huggingface.load(at, modality) or wrapped.load(at)
    if modality is not None and loaded.encoder.modality != modality:
        raise RequestError(f"{HF}{name} is an encoder of {loaded.encoder.modality}; {modality!r} was asked for.")
    provenance = {"method": f"{HF}{name}", "model_type": loaded.model_type, "versions": versions()}
    return Pretrained(loaded.encoder, Card(loaded.architecture, loaded.preprocessing, provenance), at)


def find(path: Path, modality: str | None = None) -> Path:
    """The encoder folder that a user means by the path of a run or of the folder itself."""
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        near = f" There is {path.parent / siblings[0]}." if len(siblings) == 1 else ""
        raise RequestError(
            f"There is no encoder at {path}: no such folder.{near} Expected a run folder or an encoder folder."
        )
    at = path / "encoder" if (path / "encoder").is_dir() else path
    inner = sorted(p.name for p in at.iterdir() if (p / "encoder.json").is_file()) if at.is_dir() else []
    if inner:
        if (modality is None and len(inner) > 1) or (modality is not None and modality not in inner):
            raise RequestError(f"{path} holds encoders of {', '.join(inner)}; say which (got {modality!r}).")
        return at / (modality or inner[0])
    if not (at / "encoder.json").is_file():
        hint = " The run has not finished; go on with --resume." if (path / "run.json").is_file() else ""
        if (at / "config.json").is_file():
            hint = f" It looks like a checkpoint of another library: give it as {HF}{at}."
        raise RequestError(f"{path} holds no encoder (no encoder.json).{hint}")
    return at
