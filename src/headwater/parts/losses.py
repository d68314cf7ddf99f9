"""Pure functions of tensors, each returning a scalar unless it says otherwise; none knows of a model or a rank.

What compares samples with each other takes both this process's rows and everyone's (`Step.gather` makes the second from
the first), so the value does not depend on how a batch is spread over processes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.types import Step

Gather = Callable[[Tensor], Tensor]


def standardise_patches(patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b n p"]:
    """Each patch by its own mean and deviation (MAE's target; the variance is the unbiased one, as in its code). NaN is
    passed over and stays."""
    n = (~patches.isnan()).sum(-1, keepdim=True)
    away = patches - patches.nansum(-1, keepdim=True) / n.clamp(min=1)
    return away / (away.square().nansum(-1, keepdim=True) / (n - 1).clamp(min=1) + 1e-6).sqrt()


def standardise_tokens(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Layer norm without weights: the target of JEPAs and of data2vec."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def masked_mean(
    error: Float[Tensor, "*s"], counted: Bool[Tensor, "*s"] | None, gather: Gather | None = None
) -> Float[Tensor, ""]:
    """The mean of the counted entries; of all when nothing is said.

    The number counted may differ between processes: `gather` makes the denominator everyone's.
    """
    if counted is None:
        return error.mean()
    total = (error * counted).sum()
    n = counted.sum(dtype=error.dtype)
    if gather is None:
        return total / n.clamp(min=1)
    share = gather(n[None])
    return total * len(share) / share.sum().clamp(min=1)


def nt_xent(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], temperature: float, gather: Gather) -> Float[Tensor, ""]:
    """Each row must pick its other view among the 2B - 1 other rows of everyone's batch (Chen et al., 2020)."""
    a, b = gather(F.normalize(a, dim=1)), gather(F.normalize(b, dim=1))
    z = torch.cat([a, b])
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    return F.cross_entropy(logits, partner)


def info_nce(
    a: Float[Tensor, "b d"],
    b: Float[Tensor, "b d"],
    scale: Float[Tensor, ""] | float,
    gather: Gather,
    group: Int[Tensor, " b"] | None = None,
    counted: Bool[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric: every row of a picks its row of b, and the reverse (CLIP).

    With `group`, all rows of one's own group are right answers and share the target equally (multi-positive). Rows that
    are not `counted` neither pick nor are picked; where none is, the loss is zero.
    """
    a, b = gather(F.normalize(a, dim=1)), gather(F.normalize(b, dim=1))
    if counted is not None:
        kept = gather(counted)
        if not kept.any():
            return (a.sum() + b.sum()) * 0
        a, b = a[kept], b[kept]
    logits = scale * a @ b.T
    if group is None:
        target = torch.arange(len(a), device=a.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    everyone = gather(group) if counted is None else gather(group)[kept]
    alike = (everyone[:, None] == everyone).to(logits.dtype)
    alike = alike / alike.sum(1, keepdim=True)
    return (F.cross_entropy(logits, alike) + F.cross_entropy(logits.T, alike)) / 2


def ranking(
    score: Float[Tensor, "b m"],
    truth: Float[Tensor, "b m"],
    counted: Bool[Tensor, "b m"] | None = None,
    gather: Gather | None = None,
) -> Float[Tensor, ""]:
    """Scores must stand in the order of the truth: cross-entropy of the sign of every difference within a row, pairs of
    equal truth left out (RankNet; Burges et al., 2005)."""
    apart, above = (x[:, None] - x[:, :, None] for x in (score, truth))
    differ = above != 0
    if counted is not None:
        differ = differ & counted[:, None] & counted[:, :, None]
    error = F.binary_cross_entropy_with_logits(apart, (above > 0).to(apart.dtype), reduction="none")
    return masked_mean(error, differ, gather)


def soft_cross_entropy(target: Float[Tensor, "*b k"], logits: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """-sum target log softmax(logits), one value per row."""
    return -(target * logits.log_softmax(-1)).sum(-1)


def cosine_distance(a: Float[Tensor, "*b d"], b: Float[Tensor, "*b d"]) -> Float[Tensor, ""]:
    """2 - 2 cos, averaged: BYOL's squared distance of unit vectors."""
    return (2 - 2 * F.cosine_similarity(a, b, dim=-1)).mean()


def chamfer(a: Float[Tensor, "*b n c"], b: Float[Tensor, "*b m c"], power: int = 2) -> Float[Tensor, "*b"]:
    """The mean way from each point to the nearest of the other set, both ways added (Fan et al., 2016); with power 2 ways
    are squared."""
    square = (a[..., :, None, :] - b[..., None, :, :]).square().sum(-1)
    there, back = square.amin(-1), square.amin(-2)
    if power == 1:
        there, back = (there + 1e-12).sqrt(), (back + 1e-12).sqrt()  # the root of zero has no slope
    return there.mean(-1) + back.mean(-1)


def entropy(p: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """The mean entropy of rows of probabilities, in nats."""
    return torch.special.entr(p).sum(-1).mean()


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "b k"], temperature: float, step: Step, rounds: int = 3) -> Float[Tensor, "b k"]:
    """Soft assignments with every prototype equally used over everyone's batch (Caron et al., 2020).

    Rows sum to 1. In the log domain, so that no score overflows.
    """
    log_q = step.gather(scores.float()) / temperature
    for _ in range(rounds):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return step.rng.rows(log_q.exp(), len(scores))


def koleo(x: Float[Tensor, "b d"], gather: Gather) -> Float[Tensor, ""]:
    """Spread unit vectors out: minus the mean log distance to the nearest neighbour (Sablayrolles et al., 2018).

    Distances are offset by 1e-8, so that duplicates give a large loss and not an infinite one.
    """
    x = gather(F.normalize(x, dim=-1))
    with torch.no_grad():
        nearest = (x @ x.T).fill_diagonal_(-1).argmax(1)
    distance = F.pairwise_distance(x, x[nearest], eps=1e-8)
    return -(distance + 1e-8).log().mean()


def variance_invariance_covariance(
    a: Float[Tensor, "b d"],
    b: Float[Tensor, "b d"],
    gather: Gather,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """VICReg (Bardes et al., 2021): views agree, every dimension varies, no two dimensions say the same."""
    agree = F.mse_loss(a, b)
    spread, cross = a.new_zeros(()), a.new_zeros(())
    for z in (gather(a), gather(b)):
        z = z - z.mean(0)
        spread = spread + F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
        cov = z.T @ z / (len(z) - 1)
        cross = cross + (cov.square().sum() - cov.diagonal().square().sum()) / z.shape[1]
    return invariance * agree + variance * spread + covariance * cross


def hardest(error: Float[Tensor, "b ..."], quantile: float) -> Float[Tensor, " b"]:
    """The mean of those errors of each sample that reach the quantile; 0 takes all."""
    flat = error.flatten(1)
    n = flat.shape[1]
    return flat.topk(n - math.ceil(quantile * (n - 1)), 1).values.mean(1)
