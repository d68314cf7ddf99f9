"""Mixtures of k groups: shares of 0 or more that sum to 1."""

import numpy as np
from numpy.typing import NDArray

from headwater.core.errors import RequestError

Array = NDArray[np.float64]
SPREAD = (0.3, 1.0, 3.0)  # concentrations per group: towards single groups, even, towards the mean


def drawn(
    share: Array, n: int, generator: np.random.Generator, cap: Array | None = None, widths: tuple[float, ...] = ()
) -> Array:
    """Mixtures from Dirichlet distributions about `share`, of several concentrations, that keep within `cap`."""
    found = np.zeros((0, len(share)))
    for _ in range(50):
        parts = [generator.dirichlet(c * share, n) for c in widths or [len(share) * c for c in SPREAD]]
        more = generator.permutation(np.concatenate(parts))
        found = np.concatenate([found, more if cap is None else more[(more <= cap + 1e-9).all(1)]])
        if len(found) >= n:
            return found[:n]
    raise RequestError("The groups are too small for so many draws; fewer (keep) or more repeats (most) are needed.")
