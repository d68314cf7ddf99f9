"""Numbers of the steps since the last log line, and the wish to stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from headwater.core.types import Loss
from headwater.engine.distributed import World
from headwater.engine.log import Line


class Meter:
    """Sums of the window since the last log line, kept on the device until they are read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.n = self.items = 0
        self.wait, self.started = 0.0, time.monotonic()

    def add(self, loss: Loss, norm: Tensor) -> None:
        self.n += 1
        for name, value in {"loss": loss.value, "gradient_norm": norm, **loss.metrics}.items():
            value = value.detach().float()
            self.sums[name] = value if name not in self.sums else self.sums[name] + value

    def finite(self) -> bool:
        mine = bool((self.sums["loss"] + self.sums["gradient_norm"]).isfinite())
        return not self.world.any(not mine)

    def read(self) -> Line:
        """Means of the window over everyone's batches, then start another."""
        seconds = max(1e-9, time.monotonic() - self.started)
        device = self.sums["loss"].device
        sums = self.world.mean(torch.stack([total.to(device) for total in self.sums.values()])).tolist()
        line: Line = {name: total / self.n for name, total in zip(self.sums, sums, strict=True)}
        line |= {"items_per_second": self.items / seconds, "data_wait": self.wait / seconds}
        self.clear()
        return line

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.wait += time.monotonic() - start


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever owns it handles signals
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
