"""What a view is, and how views are put together."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import values

CACHE = 1 << 20  # bytes of a batch worked on at a time on a CPU, so that a chain of passes stays in its second cache


@runtime_checkable
class View(Protocol):
    """One random (or fixed) change of a whole batch: `(x, rng) -> x`, on the device of x.

    Pictures come as bytes or as floats in [0, 1], `[b c h w]`, or `Ragged` with extents (h, w); floats in [0, 1] go
    out. A view never writes to its input. Equal `rng`, equal result; a shard's rows are those of the whole batch.
    """

    def __call__(self, x: Input, rng: Rng) -> Input: ...


@runtime_checkable
class Views(Protocol):
    """Several views of the same batch, which may differ in size."""

    def __call__(self, x: Input, rng: Rng) -> list[Input]: ...


class Retouch(ABC):
    """A view that leaves the shape alone. In a `Chain` it works in place on what the view before it has made."""

    def __call__(self, x: Input, rng: Rng) -> Tensor:
        made = floats(values(x)).clone(memory_format=torch.contiguous_format)
        self.retouch_(made, rng)
        return made

    @abstractmethod
    def retouch_(self, x: Tensor, rng: Rng) -> None:
        """Overwrite the floats of x."""


@dataclass(frozen=True, init=False)
class Chain:
    """One view after the other: `Chain(Crop(224), Grey(0.2))`."""

    views: tuple[View, ...]

    def __init__(self, *given: View, views: tuple[View, ...] = ()) -> None:
        object.__setattr__(self, "views", given or views)  # by name too, for dataclasses.replace

    def __call__(self, x: Input, rng: Rng) -> Input:
        given = _memory(x)
        for view in self.views:
            if isinstance(view, Retouch) and isinstance(x, Tensor) and _memory(x) != given:
                view.retouch_(x, rng)
            else:
                x = view(x, rng)
        return floats(x) if isinstance(x, Tensor) else x


@dataclass(frozen=True)
class MultiCrop:
    """`n_large` views by `large` (if several are given, by each in turn), then `n_small` by `small` (SwAV, 2020)."""

    large: View | tuple[View, ...]
    small: View
    n_large: int = 2
    n_small: int = 6

    def __call__(self, x: Input, rng: Rng) -> list[Input]:
        large = self.large if isinstance(self.large, tuple) else (self.large,)
        views = [large[i % len(large)] for i in range(self.n_large)] + [self.small] * self.n_small
        return [view(x, rng) for view in views]


def _memory(x: Input) -> int:
    return (x if isinstance(x, Tensor) else x.values).untyped_storage().data_ptr()


def floats(x: Tensor) -> Tensor:
    """Bytes become floats in [0, 1]; floats of 32 bits, and the ids of texts, pass as they are."""
    if x.dtype == torch.uint8:
        return x.float().div_(255)
    return x if x.dtype == torch.int64 else x.float()


def spread(work: Callable[[Tensor], None], parts: Sequence[Tensor]) -> None:
    """`work(part)` for every part, on as many threads as torch has, each of them working alone inside.

    Many small operations in a row must not be split inside: the cores would wait for each other after every one,
    and for long where something else, such as decoding, wants a core too.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        for part in parts:
            work(part)
        return
    inference = torch.is_inference_mode_enabled()  # a mode of a thread, as is the number of threads

    def alone(part: Tensor) -> None:
        with torch.inference_mode(inference):
            work(part)

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)  # for threads that start later


def exact(x: Tensor) -> torch.autocast:
    """Keep 32 bits where training runs in 16: positions in a picture need them."""
    return torch.autocast(x.device.type, enabled=False)


def chosen_only_(
    x: Float[Tensor, "b ..."], chosen: Bool[Tensor, " b"], change: Callable[..., Tensor], *params: Tensor
) -> None:
    """Overwrite the chosen samples by `change(samples, *their params)`, which may use its first argument up.

    A CPU spends time on the chosen only, a few samples at a time; a GPU computes all and picks, since asking how many
    were chosen would make it wait.
    """
    if x.device.type != "cpu":
        x.copy_(torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), change(x.clone(), *params), x))
        return
    few = max(1, CACHE // max(1, x[:1].numel() * x.element_size()))

    def work(rows: Tensor) -> None:
        x.index_copy_(0, rows, change(x.index_select(0, rows), *(p.index_select(0, rows) for p in params)))

    spread(work, torch.split(chosen.nonzero().flatten(), few))


def check_within(view: object, name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    if not low <= value <= high:
        raise RequestError(f"{type(view).__name__}: {name} lies in [{low:g}, {high:g}]; got {value}.")


def check_range(view: object, name: str, pair: tuple[float, float], low: float = 0.0, high: float = math.inf) -> None:
    if not low <= pair[0] <= pair[1] <= high:
        raise RequestError(
            f"{type(view).__name__}: {name} is a pair, the smaller first, within [{low:g}, {high:g}]; got {pair}."
        )
