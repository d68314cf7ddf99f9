"""Linear maps of a finished encoder get something new beside them, which alone is trained, saved and, at last, merged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder


class Adapted(nn.Module, ABC):
    """A linear map, `base`, and new parameters that are the module's own."""

    base: nn.Linear

    @abstractmethod
    def merged(self) -> nn.Linear:
        """`base`, changed in place to what the two do together."""


def adapt(encoder: Encoder, where: tuple[str, ...], wrap: Callable[[nn.Linear], Adapted], who: str) -> Encoder:
    """Freezes the encoder and wraps, in place, its linear maps whose names end in one of `where`, such as qkv. Raises
    RequestError where it has none."""
    linear = {n: m for n, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    hits = [n for n in linear if n.rpartition(".")[2] in where]
    if not hits:
        known = ", ".join(sorted({n.rpartition(".")[2] for n in linear})) or "none"
        raise RequestError(
            f"{who} found no linear map named {' or '.join(where)} in this {type(encoder).__name__}; "
            f"the linear maps it has are named: {known} (--set adapter.where=...)."
        )
    encoder.requires_grad_(False)
    for name in hits:
        _replace(encoder, name, wrap(linear[name]))
    return encoder


def weights(encoder: Encoder) -> dict[str, Tensor]:
    """The new weights alone, by name: all there is to keep of an adapted encoder beside the one it came from."""
    return {
        f"{name}.{leaf}": weight.detach()
        for name, module in _adapted(encoder)
        for leaf, weight in module.named_parameters(recurse=False)
    }


@torch.no_grad()
def restore(encoder: Encoder, saved: Mapping[str, Tensor]) -> None:
    """Put saved new weights into an encoder adapted alike. Raises RequestError when names or shapes differ."""
    here = weights(encoder)
    wrong = sorted(here.keys() ^ saved.keys()) or [n for n in here if here[n].shape != saved[n].shape]
    if wrong:
        raise RequestError(
            f"These weights belong to an encoder adapted otherwise: {wrong[0]} "
            f"{'differs in shape' if here.keys() == saved.keys() else 'is not in both'} ({len(wrong)} such)."
        )
    for name, weight in here.items():
        weight.copy_(saved[name])


@torch.no_grad()
def merge(encoder: Encoder) -> Encoder:
    """Fold what is new into every map, in place: the same function with the architecture it had before."""
    for name, module in list(_adapted(encoder)):
        _replace(encoder, name, module.merged())
    return encoder


def _adapted(encoder: Encoder) -> Iterator[tuple[str, Adapted]]:
    return ((n, m) for n, m in encoder.named_modules() if isinstance(m, Adapted))


def _replace(encoder: Encoder, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, module)
