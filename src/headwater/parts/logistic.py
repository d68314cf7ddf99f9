"""Multinomial logistic regression: many problems on the same features, solved by one batched L-BFGS.

Problem b minimises, over the weights W (one row per class) and the biases,

    mean over its rows of cross-entropy(x W^T + bias, y)  +  penalty[b] / 2 * ||W||^2

which is scikit-learn's objective divided by C and the number of rows: penalty = 1 / (C n). Three things make it fast.
All problems share the two matrix products of an iteration. A step changes the logits linearly, so the line search
needs no matrix product at all. And the search runs along the principal axes of the features, scaled so that the
Hessian at the start is close to the identity: some ten iterations do there what takes a hundred in the raw coordinates.

Shapes: n rows, d features, e = d + 1 with the bias, b problems, c classes, r axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

MEMORY = 10  # steps, and changes of the gradient along them, that L-BFGS remembers
ROWS_PER_AXIS = 8  # the axes only precondition, so this many rows per feature estimate them well enough
TOGETHER_BYTES = 1 << 24  # logits of the strengths solved at once: small problems gain by company, large ones wait


@dataclass(frozen=True)
class Fit:
    """What the solver found, per problem.

    weight      one row per class; the last column is the bias
    gradient    the largest absolute entry of the gradient where it stopped
    finished    False where `max_iter` ended the search
    """

    weight: Float[Tensor, "b c e"]
    objective: Float[Tensor, " b"]
    gradient: Float[Tensor, " b"]
    finished: Bool[Tensor, " b"]
    iterations: int


@dataclass(frozen=True)
class Axes:
    """The principal axes of the features, as columns, and the second moment along each; the bias is an axis too."""

    basis: Float[Tensor, "e r"]
    moment: Float[Tensor, " r"]


def principal_axes(x: Float[Tensor, "n d"]) -> Axes:
    """The axes of (evenly spaced rows of) `x` about the origin, where the mean should be.

    With fewer rows than features the axes span the rows only, and lose nothing: the best weights lie in that span.
    """
    n, d = x.shape
    if n < d:
        _, length, basis = torch.linalg.svd(x, full_matrices=False)
        basis, moment = basis.T, length.square() / n
    else:
        rows = x[:: max(1, n // (ROWS_PER_AXIS * d))]
        moment, basis = torch.linalg.eigh(rows.T @ rows / len(rows))
    with_bias = x.new_zeros(d + 1, len(moment) + 1)
    with_bias[:-1, :-1], with_bias[-1, -1] = basis, 1
    return Axes(with_bias, torch.cat([moment.clamp(min=0), x.new_ones(1)]))


def solve(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    classes: int,
    penalty: Float[Tensor, " b"],
    rows: Bool[Tensor, "b n"] | None = None,
    start: Float[Tensor, "b c e"] | None = None,
    axes: Axes | None = None,
    max_iter: int = 500,
    tol: float = 1e-4,
) -> Fit:
    """Solves all problems at once; `rows[b]` marks the rows that count in problem b (all of them when None).

    A problem stops when no entry of its gradient exceeds `tol` (the rule of scikit-learn's L-BFGS) and the next step
    promises to lower its objective by less than a share `tol` (without which nearly separable classes end too early),
    when rounding allows no further descent, or after `max_iter` iterations. `x` is best centred.
    A `start` must lie in the span of the axes, as what `solve` returned does.
    """
    n, b = len(x), len(penalty)
    axes = axes or principal_axes(x)
    x = torch.cat([x, x.new_ones(n, 1)], 1)
    counting = x.new_ones(n, b) if rows is None else rows.T.to(x.dtype)
    total = counting.sum(0)
    prior = x.new_zeros(classes, b).index_add_(0, y, counting).T / total[:, None]
    spread = (prior * (1 - prior)).clamp(min=1 / n)[..., None]
    # the Hessian where every row is predicted to be of class k with the frequency of k, but for what ties classes
    scale = (spread * axes.moment + penalised(penalty, len(axes.moment))).rsqrt()
    ridge = penalised(penalty, x.shape[1])
    labels = y[:, None, None].expand(n, b, 1)
    minus = x.new_full((), -1).expand(n, b, 1)

    def logits(weight: Tensor) -> Tensor:
        return (x @ weight.flatten(0, 1).T).view(n, b, classes)

    def data_term(log_p: Tensor) -> Tensor:
        return -(log_p.gather(-1, labels).squeeze(-1) * counting).sum(0, dtype=torch.float64) / total

    def gradient(log_p: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """In the coordinates of the search, flat, and its largest entry in those of the weights."""
        residual = log_p.exp_().scatter_add_(-1, labels, minus)
        if rows is not None:
            residual *= counting[..., None]
        g = (residual.flatten(1).T @ x).view(weight.shape) / total[:, None, None] + ridge * weight
        return ((g @ axes.basis) * scale).flatten(1), g.abs().amax((1, 2))

    if start is None:
        weight = torch.cat([x.new_zeros(b, classes, x.shape[1] - 1), prior.clamp(min=0.5 / n).log()[..., None]], 2)
    else:
        weight = start
    z = logits(weight)
    log_p = z.log_softmax(-1)
    objective = data_term(log_p) + dot(ridge * weight, weight) / 2
    g, largest = gradient(log_p, weight)
    span = g.new_zeros(b, 2 * MEMORY + 1, g.shape[1])
    live, iterations = torch.ones(b, dtype=torch.bool), 0
    while iterations < max_iter:
        span[:, -1] = g
        u = descent_direction(span, (iterations - 1) % MEMORY)
        live = live & ((largest > tol) | (-(g * u).sum(1) / 2 > tol * objective))
        if not bool(live.any()):
            break
        iterations += 1
        u = u * live[:, None]
        ahead = (u.view(scale.shape) * scale) @ axes.basis.T
        dz = logits(ahead)
        slope, across, own = (g * u).sum(1), dot(ridge * weight, ahead), dot(ridge * ahead, ahead)
        whole, t = dot(ridge * weight, weight), torch.ones_like(objective)
        for _ in range(20):
            moved = torch.addcmul(z, dz, t.to(x.dtype)[:, None])
            log_p = moved.log_softmax(-1)
            trial = data_term(log_p) + whole / 2 + t * across + t * t * own / 2
            lower = trial <= objective + 1e-4 * t * slope + 1e-7 * objective.abs()
            if bool(lower.all()):
                break
            # the lowest point of the parabola through what is known, between a tenth and a half of the failed step
            lowest = -slope * t * t / (2 * (trial - objective - t * slope))
            t = torch.where(lower, t, lowest.nan_to_num(0).clamp(0.1 * t, 0.5 * t))
        live = live & lower
        taken = torch.where(live, t, 0).to(x.dtype)[:, None]
        z, weight = moved, weight + taken[..., None] * ahead
        g_new, largest_new = gradient(log_p, weight)
        g_new = torch.where(live[:, None], g_new, g)
        slot = (iterations - 1) % MEMORY
        span[:, slot], span[:, MEMORY + slot] = taken * u, g_new - g
        g, objective = g_new, torch.where(live, trial, objective)
        largest = torch.where(live, largest_new, largest)
    return Fit(weight, objective, largest, ~live, iterations)


def penalised(penalty: Float[Tensor, " b"], length: int) -> Float[Tensor, "b 1 s"]:
    """The penalty of each entry of a row: 0 for the last, the bias."""
    ridge = penalty[:, None, None].repeat(1, 1, length)
    ridge[..., -1] = 0
    return ridge


def dot(a: Float[Tensor, "b c s"], b: Float[Tensor, "b c s"]) -> Float[Tensor, " b"]:
    return (a * b).sum((1, 2), dtype=torch.float64)


def descent_direction(span: Float[Tensor, "b v s"], newest: int) -> Float[Tensor, "b s"]:
    """The two-loop recursion of L-BFGS (Nocedal 1980), per problem.

    `span` holds m steps, the m changes of the gradient along them, and the gradient; `newest` is the latest step, and
    the older ones lie before it, round the end. The recursion runs on the coefficients of these vectors, for which
    their products are enough: two passes over the long vectors instead of four per step remembered.
    """
    m = span.shape[1] // 2
    order = [(newest - i) % m for i in range(m)]
    products = (span @ span.mT).double()
    curvature = products[:, range(m), range(m, 2 * m)]
    # where rounding hides the curvature, or nothing moved, a step says nothing
    inverse = torch.where(curvature > 0, 1 / curvature, 0)
    v = products.new_zeros(len(span), 2 * m + 1)
    v[:, -1] = -1
    used = products.new_zeros(len(span), m)
    for i in order:
        used[:, i] = inverse[:, i] * (products[:, i] * v).sum(1)
        v[:, m + i] -= used[:, i]
    length = products[:, m + newest, m + newest]
    v *= torch.where(inverse[:, newest] > 0, curvature[:, newest] / length, 1)[:, None]
    for i in reversed(order):
        v[:, i] += used[:, i] - inverse[:, i] * (products[:, m + i] * v).sum(1)
    return (v.to(span.dtype)[:, None] @ span)[:, 0]


def penalty_of(strengths: Float[Tensor, " b"], rows: Int[Tensor, " b"] | int, classes: int) -> Float[Tensor, " b"]:
    """The penalty for scikit-learn's C. In its two-class problems one row stands for two opposite ones of half the
    length, which at the same penalty would cost half as much."""
    return (2 if classes == 2 else 1) / (strengths * rows)


def stratified(y: Int[Tensor, " n"], folds: int, seed: int | None) -> Bool[Tensor, "f n"]:
    """Which rows each fold holds out; every class is spread evenly over the folds."""
    held_out = torch.zeros(folds, len(y), dtype=torch.bool)
    for fold, (_, rows) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)):
        held_out[fold, rows] = True
    return held_out


def cross_validate(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    classes: int,
    strengths: Sequence[float],
    held_out: Bool[Tensor, "f n"],
    max_iter: int = 500,
    tol: float = 1e-4,
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Held-out accuracy and log-loss of each C in `strengths`, which must ascend, over the folds `held_out`.

    All folds and as many strengths as TOGETHER_BYTES allows are solved at once; the next lot starts from the last
    solution of the one before. The axes come from all rows: they shape the search, not the solution.
    """
    folds, axes = len(held_out), principal_axes(x)
    start: Tensor | None = None
    together = max(1, TOGETHER_BYTES // (x.element_size() * len(x) * classes * folds))
    hits, losses = [], []
    for first in range(0, len(strengths), together):
        lot = torch.tensor(strengths[first : first + together], dtype=x.dtype)
        rows = (~held_out).repeat(len(lot), 1)
        penalty = penalty_of(lot.repeat_interleave(folds), rows.sum(1), classes)
        if start is not None:
            start = start.repeat(len(lot), 1, 1)
        fit = solve(x, y, classes, penalty, rows, start, axes, max_iter, tol)
        start = fit.weight[-folds:]
        for weights in torch.split(fit.weight, folds):
            log_p = [(x[o] @ w[:, :-1].T + w[:, -1]).log_softmax(1) for w, o in zip(weights, held_out, strict=True)]
            right = [(p.argmax(1) == y[o]).double() for p, o in zip(log_p, held_out, strict=True)]
            loss = [-p.gather(1, y[o, None]).double() for p, o in zip(log_p, held_out, strict=True)]
            hits.append(torch.cat(right).mean())
            losses.append(torch.cat(loss).mean())
    return torch.stack(hits), torch.stack(losses)
