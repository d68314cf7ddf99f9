"""NumPy's arrays seen by torch."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def shared(x: NDArray[Any]) -> Tensor:
    """The array's own memory, never to be written to; a copy where the array is read-only, of which torch would warn."""
    return torch.from_numpy(x if x.flags.writeable else x.copy())
