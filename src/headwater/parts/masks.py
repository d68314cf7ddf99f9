"""Which positions to hide: `(b, grid, rng, valid) -> Mask`. Stateless, so each is its own configuration.

Counts are exact and equal within a batch, so that what remains is a dense tensor. Where some positions of a sample are
not valid (padding, missing cells), each sampler hides the asked share of the valid ones and counts the rest as seen;
attention, pooling and losses pass over them.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Mask

TRIES = 100  # how often MultiBlock draws again for a sample whose context is too small

Grid = tuple[int, ...]
Valid = Bool[Tensor, "b n"] | None


@runtime_checkable
class MaskSampler(Protocol):
    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask: ...


def hide(score: Float[Tensor, "b n"], n_drop: int, valid: Valid = None) -> Mask:
    """Hide the `n_drop` positions of highest score; both halves come in the order of their scores.

    A sample with few valid positions hides the same share of those, and its other positions fill the seen half.
    """
    n = score.shape[1]
    if valid is not None:
        rank = score.masked_fill(~valid, -torch.inf).argsort(1, descending=True).argsort(1)
        wanted = valid.sum(1, keepdim=True) * n_drop // n
        hidden = rank < wanted  # which are all valid: those that are not rank last
        # seen and valid first, then what is not valid, then what is hidden; scores keep their order within each
        group = torch.where(hidden, 2.0, torch.where(valid, 0.0, 1.0))
        order = (group * 4 + score.clamp(-1, 1)).argsort(1)
    else:
        order = score.argsort(1)
    return Mask(keep=order[:, : n - n_drop], drop=order[:, n - n_drop :])


def where_hidden(mask: Mask) -> Bool[Tensor, "b n"]:
    """The mask as a table of truth values."""
    n = mask.keep.shape[1] + mask.drop.shape[1]
    flags = torch.zeros(len(mask.keep), n, dtype=torch.bool, device=mask.keep.device)
    return flags.scatter(1, mask.drop, True)


def n_hidden(who: str, ratio: float, n: int) -> int:
    count = int(n * ratio)
    if not 0 < count < n:
        raise RequestError(
            f"{who}: a ratio of {ratio} hides {count} of {n} positions; at least one must be hidden and one seen."
        )
    return count


def _check_ratio(who: str, ratio: float) -> None:
    if not 0 < ratio < 1:
        raise RequestError(f"{who}.ratio must lie strictly between 0 and 1; got {ratio}.")


@dataclass(frozen=True)
class RandomMask:
    """Hide a uniformly random `ratio` of the positions, in units of `unit` neighbours along each axis.

    SimMIM's 32-pixel units over 4-pixel tokens are `unit=8`.
    """

    ratio: float
    unit: int = 1

    def __post_init__(self) -> None:
        _check_ratio("RandomMask", self.ratio)

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        coarse = tuple(-(-g // self.unit) for g in grid)
        score = rng.rand(b, math.prod(coarse))
        if self.unit == 1:
            return hide(score, n_hidden("RandomMask", self.ratio, math.prod(grid)), valid)
        if any(g % self.unit for g in grid):
            raise RequestError(f"RandomMask: units of {self.unit} do not divide a grid of {grid}.")
        score = score.view(b, *coarse)
        for axis in range(1, len(grid) + 1):
            score = score.repeat_interleave(self.unit, axis)
        whole = n_hidden("RandomMask", self.ratio, math.prod(coarse)) * self.unit ** len(grid)
        return hide(score.flatten(1), whole, valid)


@dataclass(frozen=True)
class BlockMask:
    """Hide one box covering about `ratio` of the grid, of random aspect (one size per batch), anywhere it fits."""

    ratio: float
    aspect: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        _check_ratio("BlockMask", self.ratio)

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        side = block_side(grid, self.ratio, self.aspect, rng)
        inside = boxes(b, grid, side, rng)
        return hide(inside.float() + 0.5 * rng.rand(b, math.prod(grid)), math.prod(side), valid)


@dataclass(frozen=True)
class TubeMask:
    """Hide the same random `ratio` of places at every point of the first axis: time (VideoMAE), or groups of bands
    (SatMAE's consistent masks)."""

    ratio: float

    def __post_init__(self) -> None:
        _check_ratio("TubeMask", self.ratio)

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        time, space = grid[0], math.prod(grid[1:])
        score = rng.rand(b, space).repeat(1, time)
        return hide(score, n_hidden("TubeMask", self.ratio, space) * time, valid)


@dataclass(frozen=True)
class SpanMask:
    """Hide spans of `length` neighbours along the last axis until exactly `ratio` of the grid is hidden."""

    ratio: float
    length: int

    def __post_init__(self) -> None:
        _check_ratio("SpanMask", self.ratio)

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        n, rows = grid[-1], math.prod(grid[:-1])
        # a random phase per row, then whole spans ranked at random: exact counts without a loop over samples
        phase = (rng.rand(b, rows, 1) * self.length).long()
        span = (torch.arange(n, device=phase.device) + phase) // self.length
        rank = rng.rand(b, rows, int(-(-n // self.length)) + 1)
        score = rank.gather(2, span) + 1e-4 * (torch.arange(n, device=phase.device) / n)
        return hide(score.flatten(1) / 2, n_hidden("SpanMask", self.ratio, n * rows), valid)


@dataclass(frozen=True)
class ScoreMask:
    """Hide by a score given from outside (attention, difficulty, a saliency map), higher first.

    `greed` 1 takes the highest scores; 0 is a random mask; between, that share of the hidden is taken by score.
    """

    ratio: float
    greed: float = 1.0

    def __post_init__(self) -> None:
        _check_ratio("ScoreMask", self.ratio)

    def pick(self, score: Float[Tensor, "b n"], rng: Rng, valid: Valid = None) -> Mask:
        b, n = score.shape
        count = n_hidden("ScoreMask", self.ratio, n)
        wanted = torch.full((b, 1), count, device=score.device)
        if valid is not None:
            score, wanted = score.masked_fill(~valid, -torch.inf), valid.sum(1, keepdim=True) * count // n
        top = score.argsort(1, descending=True).argsort(1) < (self.greed * wanted.double()).long()
        return hide(top.float() / 2 + rng.rand(b, n) / 2, count, valid)


@dataclass(frozen=True)
class WeightedMask:
    """Keep positions drawn one after the other, each with a chance in proportion to its weight (MaskAlign).

    Of n positions int(n (1 - ratio)) are kept.
    """

    ratio: float

    def __post_init__(self) -> None:
        _check_ratio("WeightedMask", self.ratio)

    def pick(self, weight: Float[Tensor, "b n"], rng: Rng, valid: Valid = None) -> Mask:
        b, n = weight.shape
        count = n - int(n * (1 - self.ratio) + 1e-9)
        n_hidden("WeightedMask", count / n, n)
        # whoever's exponential clock rings first is drawn first: one pass, and the same chances
        clock = -(1 - rng.rand(b, n)).log() / weight.clamp(min=1e-12)
        return hide(clock.argsort(1).argsort(1) / n, count, valid)


@dataclass(frozen=True)
class VaryingRatio:
    """`mask` with a ratio drawn uniformly from `ratio` for every batch (iBOT); its own is not used."""

    mask: RandomMask | BlockMask | TubeMask | SpanMask
    ratio: tuple[float, float]

    def __post_init__(self) -> None:
        if not 0 < self.ratio[0] <= self.ratio[1] < 1:
            raise RequestError(f"VaryingRatio.ratio is a (low, high) pair strictly between 0 and 1; got {self.ratio}.")

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        return replace(self.mask, ratio=rng.host.uniform(*self.ratio))(b, grid, rng, valid)


@dataclass(frozen=True)
class GivenMask:
    """A mask decided elsewhere, the same for every sample: True hides."""

    hidden: tuple[bool, ...]

    def __call__(self, b: int, grid: Grid, rng: Rng, valid: Valid = None) -> Mask:
        if len(self.hidden) != math.prod(grid):
            raise RequestError(f"GivenMask names {len(self.hidden)} positions; the grid {grid} has {math.prod(grid)}.")
        score = torch.tensor(self.hidden, dtype=torch.float32, device=rng.device).expand(b, -1)
        return hide(score, sum(self.hidden), valid)


@dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's choice: `n_targets` boxes to predict, and a large context box with all of those cut out.

    Sizes are drawn once per batch and places per sample. Targets that leave a context of less than `min_context` of the
    grid are drawn again, so even small grids keep one. Contexts still differ in size: they are cut to the smallest of
    the batch, at random, as the paper's code does.
    """

    n_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_context: float = 0.05

    def __call__(self, b: int, grid: Grid, rng: Rng) -> tuple[Int[Tensor, "b k"], Int[Tensor, "b t m"]]:
        """The positions of the context, and those of each target. Raises RequestError when no context remains."""
        draw, whole = rng.everyone(), b * rng.shards
        least = max(1, math.ceil(self.min_context * math.prod(grid)))
        side = block_side(grid, draw.host.uniform(*self.target_scale), self.target_aspect, draw)
        large = block_side(grid, draw.host.uniform(*self.context_scale), (1.0, 1.0), draw)
        target, context = self._places(whole, grid, side, large, draw)
        for _ in range(TRIES):
            short = (context.sum(1) < least).nonzero()[:, 0]
            if not len(short):
                break
            target[short], context[short] = self._places(len(short), grid, side, large, draw)
        count = int(context.sum(1).min())
        if count < least:
            raise RequestError(
                f"MultiBlock: {self.n_targets} targets of {side} in a grid of {grid} leave a context of {count}; "
                f"at least {least} must remain. Take fewer or smaller targets, or smaller patches."
            )
        order = (context.float() + 0.5 * draw.rand(whole, math.prod(grid))).argsort(1, descending=True)[:, :count]
        places = target.flatten(0, 1).int().argsort(dim=1, descending=True, stable=True)[:, : math.prod(side)]
        places = places.view(whole, self.n_targets, -1)
        return rng.rows(order, b).to(rng.device), rng.rows(places, b).to(rng.device)

    def _places(self, b: int, grid: Grid, side: Grid, large: Grid, draw: Rng) -> tuple[Tensor, Tensor]:
        target = torch.stack([boxes(b, grid, side, draw) for _ in range(self.n_targets)], 1)
        return target, boxes(b, grid, large, draw) & ~target.any(1)


def block_side(grid: Grid, ratio: float, aspect: tuple[float, float], rng: Rng) -> tuple[int, ...]:
    """The sides of a box that covers about `ratio` of the grid, with a log-uniform aspect; never the whole grid."""
    stretch = math.exp(rng.host.uniform(math.log(aspect[0]), math.log(aspect[1]))) if len(grid) > 1 else 1.0
    scale = [ratio ** (1 / len(grid)) * g for g in grid]
    scale[0], scale[-1] = scale[0] * math.sqrt(stretch), scale[-1] / math.sqrt(stretch)
    side = [min(max(1, round(s)), g) for s, g in zip(scale, grid, strict=True)]
    if side == list(grid):
        side[-1] = max(1, side[-1] - 1)
    return tuple(side)


def boxes(b: int, grid: Grid, side: tuple[int, ...], rng: Rng) -> Bool[Tensor, "b n"]:
    """One box of the given size per sample, anywhere it fits."""
    inside = torch.ones(b, *grid, dtype=torch.bool, device=rng.device)
    for axis, (g, s) in enumerate(zip(grid, side, strict=True)):
        low = rng.randint(g - s + 1, b, 1)
        at = torch.arange(g, device=rng.device)
        hit = (at >= low) & (at < low + s)
        inside &= hit.view(b, *[g if a == axis else 1 for a in range(len(grid))])
    return inside.flatten(1)
