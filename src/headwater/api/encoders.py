"""Loading what pre-training left, and preparing samples for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import Encoder
from headwater.data.source import Source
from headwater.engine.artefact import Card, load_encoder
from headwater.parts.views import CentreCrop


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

    def prepare(self, x: Input) -> Input:
        return prepare(x, self.card.preprocessing)

    def __call__(self, x: Input) -> Any:
        """Features of a batch, without gradient."""
        with torch.inference_mode():
            return self.encoder(self.prepare(x))


def suited(source: Source, pretrained: Pretrained) -> Source:
    """The data as the encoder wants them read: at its sampling rate, with its columns. Raises RequestError for data of
    another modality, and for data that cannot be read so."""
    modality = pretrained.modality
    if modality not in source.modalities:
        raise RequestError(f"The encoder reads {modality} and {source.name} holds {', '.join(source.modalities)}.")
    return source.conform(modality, pretrained.card.preprocessing.get("read", {}))


def prepare(x: Input, preprocessing: Mapping[str, Any]) -> Input:
    """A batch as the encoder wants it: pictures of another size are scaled until they cover it and cut at the centre."""
    side = preprocessing.get("size")
    if side is None or (isinstance(x, Tensor) and tuple(x.shape[2:]) == tuple(side)):
        return x
    return CentreCrop(side[0], part=1.0)(x, Rng(0))


def load(path: str | Path, modality: str | None = None) -> Pretrained:
    """The encoder of a run folder or an encoder folder. Raises RequestError when there is none, or it is damaged.

    A run that made several encoders (pairs) needs `modality`.
    """
    at = find(Path(path), modality)
    encoder, card = load_encoder(at)
    return Pretrained(encoder, card, at)


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
        raise RequestError(f"{path} holds no encoder (no encoder.json).{hint}")
    return at
