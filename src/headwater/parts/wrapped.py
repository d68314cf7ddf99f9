"""A model of another library behind our interface: its code, its weights, our input and output."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input, Ragged
from headwater.core.verbs import Encoder, values
from headwater.parts.encoders import mean_of
from headwater.parts.tokens import Normalise
from headwater.parts.tokens.base import inside

# what a model of `transformers` calls its input, by modality
INPUTS = {
    "image": "pixel_values",
    "video": "pixel_values",
    "text": "input_ids",
    "audio": "input_values",
    "series": "past_values",
}


@dataclass(frozen=True, kw_only=True)
class WrappedConfig:
    """`settings` is JSON: the library's own description of the model, which names code of the library and no other.

    dim   width of what is pooled
    pool  what the model itself pools, or the mean of its tokens
    """

    library: Literal["transformers", "timm"]
    settings: str
    modality: str
    channels: int
    dim: int
    pool: Literal["own", "mean"] = "mean"

    def build(self) -> "Wrapped":
        return Wrapped(self)


class Wrapped(Encoder):
    def __init__(self, config: WrappedConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.modality, config.dim
        self.normalise = Normalise(config.channels) if config.modality in ("image", "video") else nn.Identity()
        self.model = (_transformers if config.library == "transformers" else _timm)(json.loads(config.settings))

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        """Padding is hidden from models of texts; other models take samples of one size."""
        if keep is not None:
            raise RequestError(
                "A model of another library sees every token and cannot leave some out; this method needs an encoder of ours, "
                "such as --encoder vit-tiny."
            )
        valid = None
        if self.modality == "text" and isinstance(x, Ragged):
            valid = inside(x.values.shape[1:], x.extent)
        dense = x.values if valid is not None and not isinstance(x, Tensor) else values(x)
        tokens, pooled = said(self.model, self.config, self.normalise(dense), valid)
        return Features(tokens, mean_of(tokens, valid) if pooled is None else pooled, None, valid)


def said(model: Any, config: WrappedConfig, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The tokens [b n d], and what the model itself pools, if that is wanted."""
    if config.library == "timm":
        out = model.forward_features(x)
        pooled = model.forward_head(out, pre_logits=True) if config.pool == "own" else None
        last = out.ndim == 4 and out.shape[3] == model.num_features  # some of its models keep the width last
        return out.flatten(1, 2) if last else _in_a_row(out), pooled
    if config.modality == "video":
        x = x.transpose(1, 2)
    elif config.modality == "series":
        x = x.mT
    elif config.modality == "audio":
        x = x.mean(1)
    more = {} if valid is None else {"attention_mask": valid.long()}
    made = model(**{INPUTS[config.modality]: x, **more})
    out = made.last_hidden_state
    tokens = out.flatten(1, 2) if config.modality == "series" and out.ndim == 4 else _in_a_row(out)
    return tokens, made.pooler_output.flatten(1) if config.pool == "own" else None


def _in_a_row(x: Tensor) -> Tensor:
    """Maps of features [b d h w] as tokens."""
    return x.flatten(2).mT if x.ndim == 4 else x


def _transformers(settings: dict[str, Any]) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise RequestError(
            "This encoder is a model of transformers, which is not installed: pip install 'headwater[hf]'"
        ) from error
    with quiet():
        model: nn.Module = AutoModel.from_config(AutoConfig.for_model(**settings))
    return encoding_part(model)


def encoding_part(model: Any) -> nn.Module:
    """Of a model that also decodes, the part that encodes."""
    part: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return part


def _timm(settings: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except Exception as error:  # it imports torchvision, which fails in many ways beside a torch it was not built for
        raise RequestError(
            f"This encoder is a model of timm, which cannot be imported here ({error}). It needs torchvision of the same build "
            "as torch."
        ) from error
    model: nn.Module = timm.create_model(
        settings["architecture"], pretrained=False, num_classes=0, **settings.get("model_args", {})
    )
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the other library's progress bars and notices; what matters of them is raised as an error here."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
