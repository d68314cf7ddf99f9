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


@dataclass(frozen=True)
class Touch:
    """What a `Retouch` has drawn for a batch: of which samples the pixels change, and into what.

    `change(samples, *their rows of params)` may use its first argument up, and return it.
    """

    chosen: Bool[Tensor, " b"]
    change: Callable[..., Tensor]
    params: tuple[Tensor, ...] = ()

    def some_(self, x: Tensor, start: int, chosen: Sequence[bool]) -> None:
        """Overwrite `x`, the rows of the batch from `start` on, on a CPU: time is spent on the chosen only."""
        if all(chosen):
            made = self.change(x, *(p.narrow(0, start, len(x)) for p in self.params))
            if made.data_ptr() != x.data_ptr():
                x.copy_(made)
        elif any(chosen):
            at = torch.tensor(chosen).nonzero().flatten()
            its = (p.narrow(0, start, len(x)).index_select(0, at) for p in self.params)
            x.index_copy_(0, at, self.change(x.index_select(0, at), *its))

    def all_(self, x: Tensor) -> None:
        """Overwrite x, on a GPU: all are computed, since asking how many are chosen would make it wait."""
        wide = self.chosen.view(-1, *[1] * (x.ndim - 1))
        x.copy_(torch.where(wide, self.change(x.clone(), *self.params), x))


def touch_(x: Float[Tensor, "b ..."], touches: Sequence[Touch], fill: Callable[[int], None] = lambda row: None) -> None:
    """Overwrite x by one touch after the other; on a CPU, by all of them while a few samples are in its cache.

    There, `fill(row)` comes first for each sample.
    """
    if x.device.type != "cpu":
        with exact(x):
            for touch in touches:
                touch.all_(x)
        return
    few = max(1, CACHE // max(1, x[:1].numel() * x.element_size()))
    chosen = [touch.chosen.tolist() for touch in touches]

    def work(start: int) -> None:
        part = x[start : start + few]
        for row in range(start, start + len(part)):
            fill(row)
        for touch, its in zip(touches, chosen, strict=True):
            touch.some_(part, start, its[start : start + few])

    spread(work, range(0, len(x), few))


class Retouch(ABC):
    """A view that leaves the shape alone. In a `Chain` it works in place on what the view before it has made."""

    def __call__(self, x: Input, rng: Rng) -> Tensor:
        made = floats(values(x)).clone(memory_format=torch.contiguous_format)
        touch_(made, [self.draw(made, rng)])
        return made

    @abstractmethod
    def draw(self, x: Tensor, rng: Rng) -> Touch:
        """All that is random for a batch of floats of x's shape."""


class Remake(ABC):
    """A view that makes each sample anew, in another shape. In a `Chain` it makes and retouches one after the other."""

    def __call__(self, x: Input, rng: Rng) -> Tensor:
        return self.retouched(x, rng, ())

    @abstractmethod
    def retouched(self, x: Input, rng: Rng, more: Sequence[Retouch]) -> Tensor:
        """This view and, of what it makes, those."""


@dataclass(frozen=True, init=False)
class Chain:
    """One view after the other: `Chain(Crop(224), Grey(0.2))`."""

    views: tuple[View, ...]

    def __init__(self, *given: View, views: tuple[View, ...] = ()) -> None:
        object.__setattr__(self, "views", given or views)  # by name too, for dataclasses.replace

    def __call__(self, x: Input, rng: Rng) -> Input:
        given, left = _memory(x), list(self.views)
        while left:
            view, more = left.pop(0), list[Retouch]()
            while left and isinstance(left[0], Retouch):
                more.append(left[0])
                del left[0]
            if isinstance(view, Remake):
                x = view.retouched(x, rng, more)
                continue
            x = view(x, rng)
            if more and (not isinstance(x, Tensor) or _memory(x) == given):
                x = more.pop(0)(x, rng)
            if more and isinstance(x, Tensor):
                touch_(x, [one.draw(x, rng) for one in more])
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


def spread(work: Callable[[int], None], starts: Sequence[int]) -> None:
    """`work(start)` for every start on a CPU, by as many threads as torch has, this one among them; no gradients.

    Each thread works alone inside. Were many small operations in a row split, the cores would wait for each other after
    every one, and for long where something else, such as decoding, wants a core too.
    """
    threads, left = torch.get_num_threads(), iter(starts)

    def share() -> None:
        torch.set_num_threads(1)  # like the modes that follow, of this thread
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for start in left:
                work(start)

    try:
        with ThreadPoolExecutor(threads) as pool:
            others = [pool.submit(share) for _ in range(min(threads, len(starts)) - 1)]
            share()
            for other in others:
                other.result()
    finally:
        torch.set_num_threads(threads)  # for threads that start later, too


def exact(x: Tensor) -> torch.autocast:
    """Keep 32 bits where training runs in 16: positions in a picture need them."""
    return torch.autocast(x.device.type, enabled=False)


def check_within(view: object, name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    if not low <= value <= high:
        raise RequestError(f"{type(view).__name__}: {name} lies in [{low:g}, {high:g}]; got {value}.")


def check_range(view: object, name: str, pair: tuple[float, float], low: float = 0.0, high: float = math.inf) -> None:
    if not low <= pair[0] <= pair[1] <= high:
        raise RequestError(
            f"{type(view).__name__}: {name} is a pair, the smaller first, within [{low:g}, {high:g}]; got {pair}."
        )
