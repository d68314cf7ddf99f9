"""`hw.doctor`: look at data before spending time on it."""

from typing import Any

from headwater.data import open as open_data
from headwater.data.doctor import Diagnosis, examine


def doctor(data: Any, *, labels: str | None = None, workers: int = 2) -> Diagnosis:
    """What is in the data, what is broken, what its statistics are, from a sample of it. Print its `lines()`."""
    return examine(open_data(data, labels=labels), workers=workers)
