"""Any other model of `transformers` as an encoder: its code and its weights, behind our interface."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input, Ragged
from headwater.core.verbs import Encoder
from headwater.parts.encoders import mean_of
from headwater.parts.tokens.base import Normalise, inside

INPUTS = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "pixel_values_videos": "video"}


@dataclass(frozen=True, kw_only=True)
class WrappedConfig:
    """`settings` is their config.json, which names a model of the library itself and never code of a checkpoint."""

    settings: str
    modality: str
    channels: int = 3

    def build(self) -> "Wrapped":
        return Wrapped(self)


class Wrapped(Encoder):
    def __init__(self, config: WrappedConfig) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        settings = json.loads(config.settings)
        made = AutoConfig.for_model(**settings)
        self.config, self.modality = config, config.modality
        self.model = AutoModel.from_config(made, attn_implementation="sdpa" if settings.get("sdpa") else "eager")
        self.dim = int(getattr(made, "hidden_size", None) or made.hidden_sizes[-1])
        self.normalise = Normalise(config.channels) if config.modality == "image" else None

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        if keep is not None:
            raise RequestError("A wrapped model sees every token and cannot leave some out.")
        values = x if isinstance(x, Tensor) else x.values
        if self.modality == "text":
            valid = inside(values.shape[1:], x.extent) if isinstance(x, Ragged) else None
            out = self.model(values, attention_mask=None if valid is None else valid.long()).last_hidden_state
            return Features(out, mean_of(out, valid), None, valid)
        if self.modality == "audio":
            values = values.mean(1)
        out = self.model(values if self.normalise is None else self.normalise(values)).last_hidden_state
        tokens = out.flatten(2).transpose(1, 2) if out.ndim == 4 else out
        return Features(tokens, tokens.mean(1))


def wrap(settings: Mapping[str, Any]) -> WrappedConfig:
    """How to wrap the model that a config.json names. Raises RequestError for what is no encoder of one modality."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise RequestError(
            "Models without a counterpart here need transformers: pip install 'headwater[hf]'"
        ) from error
    kind = settings.get("model_type", "")
    try:
        made = AutoConfig.for_model(**settings)
        main = str(AutoModel._model_mapping[type(made)].main_input_name)  # type: ignore[attr-defined]
    except (ValueError, KeyError, AttributeError) as error:
        raise RequestError(f"The checkpoint's model_type={kind!r} is no model that transformers knows.") from error
    if main not in INPUTS:
        raise RequestError(f"The checkpoint's model_type={kind!r} reads {main}, which is no modality of ours.")
    return WrappedConfig(
        settings=json.dumps(dict(settings)), modality=INPUTS[main], channels=int(getattr(made, "num_channels", 3))
    )
