"""LoRA in the format of `peft`: a folder with adapter_config.json and adapter_model.safetensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.parts.wrapped import quiet


@dataclass(frozen=True)
class Correction:
    """What is added, times alpha / rank, to the weight of one linear map: up [out rank] @ down [rank in]."""

    name: str
    down: Tensor
    up: Tensor


def counterparts(found: Sequence[Correction], weights: Mapping[str, Tensor], folder: Path) -> list[Correction]:
    """The corrections under the names of the modules of the model that `transformers` loads from `folder`, recognised by their
    weights; ours stand in `weights`. That of a fused map of queries, keys and values becomes three with the same `down`.
    Raises RequestError for a map that is none of the model's."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise RequestError(
            "Naming the maps of a model of transformers needs it: pip install 'headwater[hf]'"
        ) from error
    with quiet():
        model = AutoModel.from_pretrained(folder)
    theirs = {n: m.weight for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    out = list[Correction]()
    for c in found:
        for parts in (1, 3):
            names = [_only(theirs, w) for w in weights[f"{c.name}.weight"].chunk(parts)]
            if all(names):
                ups = c.up.chunk(parts)
                out += [Correction(str(n), c.down, up) for n, up in zip(names, ups, strict=True)]
                break
        else:
            raise RequestError(f"The model of transformers has no linear map of its own that is our {c.name}.")
    return out


def _only(theirs: Mapping[str, Tensor], weight: Tensor) -> str | None:
    """The name of the one weight that is the same."""
    same = [n for n, w in theirs.items() if w.shape == weight.shape and torch.equal(w.detach(), weight)]
    return same[0] if len(same) == 1 else None


def save(found: Sequence[Correction], rank: int, alpha: float, base: str | None, at: Path) -> None:
    """Write the folder. `base` is the model that it belongs to, where that has a name."""
    about: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": [c.name for c in found],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    weights = {
        f"base_model.model.{c.name}.lora_{side}.weight": value.contiguous().clone()
        for c in found
        for side, value in (("A", c.down), ("B", c.up))
    }
    at.mkdir(parents=True)
    (at / "adapter_config.json").write_text(json.dumps(about, indent=1))
    save_file(weights, at / "adapter_model.safetensors", {"format": "pt"})
