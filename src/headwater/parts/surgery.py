"""A finished network gets something new beside what it has, which alone is trained, saved and, at last, merged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import Adapter, Encoder, Method

N = TypeVar("N", bound=nn.Module)


class Adapted(nn.Module, ABC):
    """New parameters, the module's own, that change what stands in its place or beside it."""

    @abstractmethod
    def merged(self) -> nn.Module | None:
        """What takes its place when the new is folded into the old, in place; None where nothing has to."""

    def kept(self) -> dict[str, Tensor]:
        """What is saved of it."""
        return {name: weight.detach() for name, weight in self.named_parameters(recurse=False)}

    def take(self, saved: Mapping[str, Tensor]) -> None:
        """The inverse of `kept`: the same names and shapes."""
        for name, weight in self.named_parameters(recurse=False):
            weight.copy_(saved[name])


class Tuning(Adapter, ABC):
    """An adapter, and how a task is learned with it: with a linear head alone, unless it says otherwise."""

    decay: ClassVar[float] = 0.05  # of weights, as AdamW has it
    layer_decay: ClassVar[float] = 1.0  # of rates, from layer to layer

    def beforehand(self, base: Encoder, adapted: Encoder, view: Callable[[Input, Rng], Input]) -> Method | None:
        """What the adapted encoder learns from the data without their labels before it is trained for the task, if anything;
        `base` is the encoder as it was."""
        return None

    def objective(self, method: Method, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Method:
        """What trains, given a classifier with an `encoder` that is adapted and a linear `head`: the classifier itself,
        changed in place, or something around it. `features` are what the encoder said of the data as it came."""
        return method

    def architecture(self, base: Any) -> Any:
        """That of the adapted and merged encoder, given that of `base`."""
        return base


def adapt(encoder: Encoder, where: tuple[str, ...], wrap: Callable[[nn.Linear], Adapted], who: str) -> Encoder:
    """Freezes the encoder and wraps, in place, its linear maps whose names end in one of `where`, such as qkv. Raises
    RequestError where it has none."""
    linear = linear_maps(encoder)
    hits = [n for n in linear if n.rpartition(".")[2] in where]
    if not hits:
        known = ", ".join(sorted({n.rpartition(".")[2] for n in linear})) or "none"
        raise RequestError(
            f"{who} found no linear map named {' or '.join(where)} in this {type(encoder).__name__}; "
            f"the linear maps it has are named: {known} (--set adapter.where=...)."
        )
    encoder.requires_grad_(False)
    for name in hits:
        parent, _, leaf = name.rpartition(".")
        setattr(encoder.get_submodule(parent), leaf, wrap(linear[name]))
    return encoder


def linear_maps(encoder: Encoder) -> dict[str, nn.Linear]:
    """Those that something else can take the place of, by name."""
    whole = {n for n, m in encoder.named_modules() if isinstance(m, nn.MultiheadAttention)}  # it never calls its maps
    found = ((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Linear))
    return {n: m for n, m in found if n.rpartition(".")[0] not in whole}


def weights(network: nn.Module) -> dict[str, Tensor]:
    """The new weights alone, by name: all there is to keep of an adapted network beside the one it came from."""
    return {f"{name}.{leaf}": value for name, module in adapted(network) for leaf, value in module.kept().items()}


@torch.no_grad()
def restore(network: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Put saved new weights into a network adapted alike. Raises RequestError when names or shapes differ."""
    here = weights(network)
    wrong = sorted(here.keys() ^ saved.keys()) or [n for n in here if here[n].shape != saved[n].shape]
    if wrong:
        raise RequestError(
            f"These weights belong to an encoder adapted otherwise: {wrong[0]} "
            f"{'differs in shape' if here.keys() == saved.keys() else 'is not in both'} ({len(wrong)} such)."
        )
    for name, module in adapted(network):
        module.take({leaf: saved[f"{name}.{leaf}"] for leaf in module.kept()})


@torch.no_grad()
def merge(network: N) -> N:
    """Fold what is new into every weight, in place: the same function with the architecture it had before."""
    for name, module in list(adapted(network)):
        parent, _, leaf = name.rpartition(".")
        where, instead = network.get_submodule(parent), module.merged()
        if instead is None:
            delattr(where, leaf)
        else:
            setattr(where, leaf, instead)
    return network


def adapted(network: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """What is new in a network, by the names of its places."""
    return ((n, m) for n, m in network.named_modules() if isinstance(m, Adapted))
