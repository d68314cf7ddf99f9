"""Classes as single vectors: sums of features per class, how they grow, and how few-shot ones are calibrated.

Shapes: n samples, d features, c classes, k base classes, m new classes.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from headwater.core.errors import RequestError


def class_sums(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """The sum of the rows of each class, and their number; zeros for a class without rows."""
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, y, x)
    return sums, y.bincount(minlength=classes).to(x.dtype)


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
