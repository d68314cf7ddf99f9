"""The six verbs, one small interface each. A class is abstract or final: these are the only ones to subclass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Features, Graph, Input, Loss, Step

T = TypeVar("T")


class Encoder(nn.Module, ABC):
    """What pre-training makes and everything else uses.

    `keep` names, per sample, the tokens to encode; the others cost nothing. Only encoders made of tokens accept it.
    """

    modality: str
    dim: int

    @abstractmethod
    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features: ...


class Method(nn.Module, ABC):
    """Learns by gradient: turns a batch into a scalar. The engine owns the loop.

    tokens      the encoder must be made of tokens: the method hides some of them, or aims at single ones
    together    how many modalities it learns from at once
    modalities  the only ones that it makes sense for; empty: all
    missing     it minds `Batch.present`: samples may lack a modality
    boxes       it learns from boxes that are marked on pictures (`Batch.annotations`)
    regresses   it learns the vectors that samples come with (`Batch.targets`)
    begins      the architecture to begin with, by modality, where it is another than the modality's own, such as t5-micro;
                `/groups` is the modality's own with another way to make tokens

    A method of one modality keeps its encoder in `self.encoder`; others override `encoders`.
    """

    tokens: ClassVar[bool] = False
    together: ClassVar[int] = 1
    modalities: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[bool] = False
    boxes: ClassVar[bool] = False
    regresses: ClassVar[bool] = False
    begins: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def loss(self, batch: Batch, step: Step) -> Loss:
        """Pure: reads parameters and buffers, changes none (batch-norm statistics are the one exception)."""

    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        """The one place to change what has no gradient: teachers, centres, queues."""

    def encoders(self) -> dict[str, Encoder]:
        """What pre-training hands on, by modality."""
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        return {encoder.modality: encoder}

    def forward(self, batch: Batch, step: Step) -> Loss:  # so that DDP and compile see it
        return self.loss(batch, step)


@runtime_checkable
class Predictor(Protocol):
    """What a method may offer besides its loss: forecasts, boxes, masks, samples, class scores."""

    def predict(self, batch: Batch, step: Step) -> Tensor: ...


@runtime_checkable
class Estimator(Protocol):
    """Learns from frozen features, in scikit-learn's API: arrays in, arrays out, learned attributes end in `_`."""

    def fit(self, X: Any, y: Any) -> "Estimator": ...

    def predict(self, X: Any) -> Any: ...


@runtime_checkable
class Vectors(Protocol):
    """Features that need not fit in memory: passes over them in order, in pieces [rows, dim] of finite float32."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Choice:
    """What a selector chose of n items: ascending positions, what it found out of every item, such as its `group`, the share
    of each group in `draws` items that are learned from (empty: each item kept counts once), and what else to report."""

    kept: Int[Tensor, " m"]
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    mixture: Mapping[int, float] = field(default_factory=dict)
    draws: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What is known of the items: the class of each (-1: not known), the classes' names, numbers such as how good each is
    (NaN: not known), and `trial`, what a small model that learns from a choice loses where it counts."""

    classes: Int[Tensor, " n"]
    names: Sequence[str] = ()
    scores: Float[Tensor, " n"] | None = None
    trial: Callable[[Choice], float] | None = None


class Selector(ABC):
    """Chooses samples by their features: filtering, active learning, balancing. `tries`: it needs `Known.trial`."""

    tries: ClassVar[bool] = False

    @abstractmethod
    def select(self, features: Vectors, budget: int | None, rng: Rng, known: Known | None = None) -> Choice:
        """`budget` items; without one, as many as the method's own threshold keeps."""


class Adapter(ABC):
    """Surgery: an encoder in, the same encoder out with only the new weights trainable, at a learning rate of `rate`."""

    rate: ClassVar[float] = 2e-3

    @abstractmethod
    def adapt(self, encoder: Encoder) -> Encoder: ...


@runtime_checkable
class Lab(Protocol):
    """The engine as a procedure sees it; passed in, never imported."""

    def train(self, method: Method, data: Any) -> None: ...

    def features(self, encoder: Encoder, data: Any) -> Float[Tensor, "n d"]: ...


@dataclass(frozen=True)
class Report:
    """What a procedure found: rows of a table, and a verdict in words."""

    rows: Sequence[Mapping[str, Any]]
    verdict: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Procedure(ABC):
    """Owns its own loop over stages and calls the other verbs through a Lab."""

    @abstractmethod
    def run(self, lab: Lab, *data: Any) -> Report: ...


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where an idea comes from. `differs` names every known departure from the reference, in words."""

    title: str
    year: int
    arxiv: str
    differs: str = ""


def only(items: Mapping[str, T], who: str) -> T:
    """The one item of a mapping from modality, for methods that learn from one modality."""
    if len(items) != 1:
        raise RequestError(f"{who} learns from one modality; got {len(items)}: {', '.join(sorted(items)) or 'none'}.")
    return next(iter(items.values()))


def values(x: Input) -> Tensor:
    """The tensor of an input that cannot be ragged at this point."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Graph):
        raise RequestError(
            "A graph is not a grid of values; this needs an input such as an image, a series or a table."
        )
    sizes = [tuple(e) for e in torch.unique(x.extent, dim=0)[:3].tolist()]
    raise RequestError(
        f"The samples of this batch differ in size (such as {sizes}); a view with a fixed size comes first."
    )
