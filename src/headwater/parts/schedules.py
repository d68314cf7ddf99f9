"""Numbers that change over training: progress in [0, 1] -> float. No state, so a resumed run cannot disagree."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    def __call__(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave from start to end."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Ramp:
    """Linear from start to end over the first `until` of training, then flat."""

    start: float
    end: float
    until: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * min(progress / self.until, 1.0)


@dataclass(frozen=True)
class WarmupCosine:
    """From (almost) 0 up to `peak` over the first `warmup` of training, then half a cosine down to `final`."""

    peak: float
    warmup: float = 0.1
    final: float = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.peak * (0.01 + 0.99 * progress / self.warmup)
        return Cosine(self.peak, self.final)((progress - self.warmup) / max(1e-9, 1 - self.warmup))
