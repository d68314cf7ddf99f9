"""Classes as single vectors: sums of features per class, how they grow and spread, and how few-shot ones are calibrated.

Shapes: n samples, d features, c classes, k base classes, m new classes.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from headwater.core.errors import RequestError

ROWS = 1 << 10  # at a time: doubles of all features need not be held at once, and these stay in the cache


def class_sums(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """The sum of the rows of each class, and their number, in double precision; zeros for a class without rows."""
    sums = torch.zeros(classes, x.shape[1], dtype=torch.float64)
    for rows, of in zip(x.split(ROWS), y.split(ROWS), strict=True):
        sums.index_add_(0, of, rows.double())
    return sums, y.bincount(minlength=classes).double()


def within(x: Float[Tensor, "n d"], y: Int[Tensor, " n"], means: Float[Tensor, "c d"]) -> Float[Tensor, " d"]:
    """The squared deviations of the rows from the means of their own classes, summed: per feature, in double precision."""
    out = means.new_zeros(x.shape[1], dtype=torch.float64)
    for rows, of in zip(x.split(ROWS), y.split(ROWS), strict=True):
        out += (rows.double() - means[of]).square_().sum(0)
    return out


def whitened(x: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means of the classes [c d], and a map [d r] after which the covariance that they share is the identity; directions
    along which nothing varies are left out of it."""
    names, codes = np.unique(y, return_inverse=True)
    sums, counts = class_sums(torch.from_numpy(x), torch.from_numpy(codes), len(names))
    means = (sums / counts[:, None]).numpy()
    away = x - means[codes]
    value, axes = np.linalg.eigh(away.T @ away / len(x))
    kept = value > 1e-10 * value[-1]
    return means, axes[:, kept] / np.sqrt(value[kept])


def merged(seen: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """The sorted union of two sets of labels. Raises RequestError where one holds text and the other numbers."""
    if (seen.dtype.kind in "biuf") != (new.dtype.kind in "biuf"):
        raise RequestError(f"Labels so far are {seen.dtype}; the new ones are {new.dtype}. Keep to one kind.")
    return np.union1d(seen, new)


def calibrated(new: Float[Tensor, "m d"], base: Float[Tensor, "k d"], alpha: float, tau: float) -> Float[Tensor, "m d"]:
    """Few-shot prototypes pulled towards the base prototypes that resemble them (TEEN, arXiv 2312.05229).

    All prototypes are set to length 1; each new one is mixed, with share `alpha`, with the average of the base ones
    weighted by softmax(tau * cosine), itself set to length 1.
    """
    new, base = normalize(new, dim=1), normalize(base, dim=1)
    kin = (tau * new @ base.T).softmax(1) @ base
    return (1 - alpha) * new + alpha * normalize(kin, dim=1)
