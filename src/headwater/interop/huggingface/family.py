"""One family of models in the format of `transformers`, and its counterpart here: settings and weights, both ways."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from headwater.core.errors import RequestError

State = Mapping[str, Tensor]
BESIDE = "^"  # what a name begins with, in rules, that stands beside the bare model and not within


@dataclass(frozen=True)
class Same:
    """A tensor that differs in name alone."""

    ours: str
    theirs: str


@dataclass(frozen=True)
class Stacked:
    """Several of theirs, one above the other, are one of ours: queries, keys and values."""

    ours: str
    theirs: tuple[str, ...]


@dataclass(frozen=True)
class Changed:
    """A tensor that also changes its shape or order; the two functions are each other's inverse."""

    ours: str
    theirs: str
    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parted:
    """Several of theirs together are several of ours, divided otherwise: a table of positions that begins with those of
    the class token. The two functions are each other's inverse."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    to_theirs: Callable[[Sequence[Tensor]], Sequence[Tensor]]


Rule = Same | Stacked | Changed | Parted


class Family(ABC):
    """`kinds` are the values of `model_type` in config.json that it covers.

    `config` is theirs (config.json), `processor` their preprocessor_config.json (empty if there is none).
    """

    kinds: ClassVar[tuple[str, ...]]
    # beginnings of names, within the bare model, of weights that our encoder knowingly leaves out: a pooler, a mask token
    left: ClassVar[tuple[str, ...]] = ()
    # ends of names as older checkpoints have them -> as they are now
    renamed: ClassVar[Mapping[str, str]] = {}
    modality: ClassVar[str] = "image"
    # what stands in front of the bare model's names where there is something beside it
    front: ClassVar[str] = ""

    @abstractmethod
    def architecture(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Any:
        """The configuration of our encoder, one of `parts.architectures.KINDS`. Raises RequestError for a setting that
        our encoder does not have, by its name and value."""

    @abstractmethod
    def preprocessing(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
        """What an artefact's card keeps: {"size": [h, w], "interpolation": ...} for images, {"read": {"rate": ...}}."""

    @abstractmethod
    def rules(self, config: Mapping[str, Any]) -> Sequence[Rule]:
        """Every weight of the encoder. Theirs are named as in the bare model (no "vit." or "model." in front),
        or begin with BESIDE."""

    @abstractmethod
    def config(self, architecture: Any, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `architecture`: their config.json with "model_type" and "architectures" set. Raises RequestError
        for an encoder that the family cannot express."""

    def constants(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors of ours that stand in no weights of theirs, such as the mean and deviation to normalise by."""
        return {}

    def processor(self, architecture: Any, preprocessing: Mapping[str, Any], ours: State) -> dict[str, Any]:
        """Their preprocessor_config.json, the inverse of `preprocessing` and `constants`; empty: none is written."""
        return {}


def to_ours(rules: Sequence[Rule], theirs: State) -> dict[str, Tensor]:
    """Raises RequestError, naming it, where a weight is missing."""

    def get(name: str) -> Tensor:
        if name not in theirs:
            raise RequestError(f"The checkpoint lacks the weight {name!r}; it holds {len(theirs)} others.")
        return theirs[name]

    out: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, Same):
            out[rule.ours] = get(rule.theirs)
        elif isinstance(rule, Stacked):
            out[rule.ours] = torch.cat([get(name) for name in rule.theirs])
        elif isinstance(rule, Parted):
            out.update(zip(rule.ours, rule.to_ours([get(name) for name in rule.theirs]), strict=True))
        else:
            out[rule.ours] = rule.to_ours(get(rule.theirs))
    return out


def to_theirs(rules: Sequence[Rule], ours: State) -> dict[str, Tensor]:
    """The inverse of `to_ours`, bit for bit."""
    out: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, Same):
            out[rule.theirs] = ours[rule.ours]
        elif isinstance(rule, Parted):
            out.update(zip(rule.theirs, rule.to_theirs([ours[name] for name in rule.ours]), strict=True))
        elif isinstance(rule, Stacked):
            out.update(zip(rule.theirs, ours[rule.ours].chunk(len(rule.theirs)), strict=True))
        else:
            out[rule.theirs] = rule.to_theirs(ours[rule.ours])
    return out
