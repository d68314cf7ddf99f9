"""Masked generation: hide a random share of the tokens to learn; to make some, fill in all, keep the surest, and go on
(Chang et al., 2022, MaskGIT; Borsos et al., 2023, SoundStorm). Time runs from 1, where all is hidden, to 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng

Say = Callable[[Int[Tensor, "b n"], Bool[Tensor, "b n"], Float[Tensor, " b"]], Float[Tensor, "b n k"]]


def share(t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """How much is hidden at time t."""
    return (t * (math.pi / 2)).sin()


def prefix(valid: Bool[Tensor, "b n"], most: float, none: float, rng: Rng) -> Bool[Tensor, "b n"]:
    """The beginning of each sample, which is never hidden: of a random length up to the share `most`; with probability
    `none` there is no such."""
    draw = rng.rand(len(valid), 2)
    length = (draw[:, 0] * most * valid.sum(1)).long() * (draw[:, 1] >= none)
    return (torch.arange(valid.shape[1], device=valid.device) < length[:, None]) & valid


def hide(open_: Bool[Tensor, "b n"], rate: Float[Tensor, " b"], rng: Rng) -> Bool[Tensor, "b n"]:
    """Each of the open places with this probability, and at least one of each sample that has any."""
    draw = rng.rand(*open_.shape).masked_fill(~open_, 2.0)
    first = torch.arange(open_.shape[1], device=open_.device) == draw.argmin(1, keepdim=True)
    return ((draw < rate[:, None]) | first) & open_


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Fills in what is hidden, in so many steps, each time all of it; the least sure stay hidden for the next step.

    temperature  of the choice among the likeliest `keep` of all ids; falls to 0 with time, and the last step takes the
                 likeliest
    sureness     the temperature of the noise on the probability by which places are ranked, which falls too
    """

    steps: int = 25
    temperature: float = 0.9
    keep: float = 0.02
    sureness: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.keep <= 1:
            raise RequestError(f"Sampler: at least one step and a share in (0, 1]; got {self.steps} and {self.keep}.")

    @torch.no_grad()
    def __call__(self, say: Say, ids: Int[Tensor, "b n"], hidden: Bool[Tensor, "b n"], rng: Rng) -> Int[Tensor, "b n"]:
        """`say` gives logits for the ids that are there and the places that are hidden, at a time. What was filled in and
        kept never changes again."""
        total = hidden.sum(1)
        for i in range(self.steps):
            now, then = (torch.full((len(ids),), 1 - k / self.steps, device=ids.device) for k in (i, i + 1))
            logits = say(ids, hidden, now).float()
            likeliest = logits.topk(max(1, math.ceil(self.keep * logits.shape[-1])), -1).values[..., -1:]
            kept = logits.masked_fill(logits < likeliest, -torch.inf)
            heat = self.temperature * now[0] * (i + 1 < self.steps)
            said = (kept + heat * gumbel(rng, logits)).argmax(-1)
            sure = logits.softmax(-1).gather(2, said[..., None])[..., 0]
            sure = sure + self.sureness * now[0] * gumbel(rng, sure)
            ids = torch.where(hidden, said, ids)
            left = (share(then) * total).floor()
            rank = sure.masked_fill(~hidden, torch.inf).argsort(1).argsort(1)
            hidden = rank < left[:, None]
        return ids


def gumbel(rng: Rng, like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    return -(-rng.rand(*like.shape).clamp(1e-9, 1 - 1e-7).log()).log()


@dataclass(frozen=True)
class Guidance:
    """Away from what a model says without being told, by `weight` (Ho and Salimans, 2022); the share `rescale` of that with
    the deviation that each sample had before (Lin et al., 2023)."""

    weight: float = 2.5
    rescale: float = 0.75

    def __call__(
        self, told: Float[Tensor, "b n d"], free: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        away = told + self.weight * (told - free)
        again = away * (deviation(told, valid) / deviation(away, valid))
        return self.rescale * again + (1 - self.rescale) * away


def deviation(x: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1 1"]:
    """Of all numbers of a sample that are not padding."""
    counted = valid[..., None].to(x.dtype)
    n = (counted.sum((1, 2), keepdim=True) * x.shape[2]).clamp(min=1)
    away = (x - (x * counted).sum((1, 2), keepdim=True) / n) * counted
    return (away.square().sum((1, 2), keepdim=True) / n).sqrt()
