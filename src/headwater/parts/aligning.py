"""Gaussian samples of classes whose data are gone, and logits that heads of several sessions can be compared by.

Shapes: c classes, d features, n samples.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

JITTER = 1e-4  # on the diagonal of each covariance, so that it has a root where samples are fewer than features


def gaussians(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d d"]]:
    """The mean and the covariance of each class; of a single sample, the jitter alone."""
    each = [x[y == k] for k in range(classes)]
    eye = JITTER * torch.eye(x.shape[1], dtype=x.dtype)
    spread = [(e - e.mean(0)).T @ (e - e.mean(0)) / max(1, len(e) - 1) + eye for e in each]
    return torch.stack([e.mean(0) for e in each]), torch.stack(spread)


def shrunk(means: Float[Tensor, "c d"], sessions: Int[Tensor, " c"], now: int) -> Float[Tensor, "c d"]:
    """The means of classes of the session `now` as they are, older ones a little nearer to zero (SLCA, arXiv 2303.05118)."""
    return means * (0.9 + 0.1 * (sessions + 1) / (now + 1))[:, None].to(means)


def drawn(
    means: Float[Tensor, "c d"], covariances: Float[Tensor, "c d d"], count: int, rng: torch.Generator
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """So many normal samples of each class, class by class, and their classes."""
    c, d = means.shape
    noise = torch.randn(c, count, d, generator=rng, dtype=means.dtype)
    x = means[:, None] + noise @ torch.linalg.cholesky(covariances).mT
    return x.flatten(0, 1), torch.arange(c).repeat_interleave(count)


def block_normalised(logits: Float[Tensor, "n c"], sessions: Int[Tensor, " c"]) -> Float[Tensor, "n c"]:
    """Logits over the mean, per sample, of the lengths of the blocks that the sessions' classes are."""
    lengths = torch.stack([logits[:, sessions == s].norm(dim=1) for s in sessions.unique()], 1)
    return logits / (lengths.mean(1, keepdim=True) + 1e-7)
