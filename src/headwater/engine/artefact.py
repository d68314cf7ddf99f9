"""The encoder as a folder: `weights.safetensors`, `encoder.json` and their manifest. The one thing every verb accepts."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder
from headwater.engine.checkpoint import verify, write_folder
from headwater.parts.architectures import EncoderConfig, from_json, to_json

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What an encoder folder says of itself.

    preprocessing  what must happen to a sample before the encoder sees it, e.g. {"size": [8, 8]} for images;
                   normalisation is not among it: it lies inside the encoder, with its weights
    provenance     method, steps, seed, fingerprint and statistics of the data, versions
    evaluation     the measured results, if there are any
    """

    architecture: EncoderConfig
    preprocessing: Mapping[str, Any]
    provenance: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None


def save_encoder(at: Path, encoder: Encoder, card: Card) -> Path:
    """Write the folder whole or not at all."""
    text = {
        "format": FORMAT,
        "modality": encoder.modality,
        "dim": encoder.dim,
        "architecture": to_json(card.architecture),
        "preprocessing": dict(card.preprocessing),
        "provenance": dict(card.provenance),
        "evaluation": card.evaluation,
    }
    return write_folder(at, {"weights.safetensors": encoder.state_dict()}, {"encoder.json": text})


def load_encoder(at: Path) -> tuple[Encoder, Card]:
    """The encoder in evaluation mode, with bits equal to those saved. Raises RequestError if the folder is not whole."""
    verify(at)
    text = read_card(at)
    if text.get("format") != FORMAT:
        raise RequestError(f"{at} has format {text.get('format')}; this version reads format {FORMAT}.")
    architecture = from_json(text["architecture"])
    encoder = architecture.build()
    try:
        encoder.load_state_dict(load_file(at / "weights.safetensors"))
    except RuntimeError as error:
        raise RequestError(f"{at}: the weights do not fit the architecture that encoder.json names.") from error
    card = Card(architecture, text["preprocessing"], text["provenance"], text["evaluation"])
    return encoder.eval(), card


def read_card(at: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((at / "encoder.json").read_text())
    return found


def versions() -> dict[str, str]:
    """What made a run, for its record."""
    named = {name: version(name) for name in ("headwater", "torch", "numpy", "pillow", "pyarrow", "safetensors")}
    return {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine(), **named}
