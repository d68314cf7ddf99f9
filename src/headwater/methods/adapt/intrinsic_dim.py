"""Intrinsic dimension: all weights move, but only within a random subspace of d directions; the smallest d that does is
the dimension of the task.

    before    W_i                          every weight, head included, i = 1 … m
    after     W_i + s_i P_i t              with P_i fixed and random, t of d - m numbers, 0 at the start, s_i = 1 at the start

Only t and the factors s_i train, d numbers together, which with the seed are all that is saved. Merged, they are weights.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from headwater.core.errors import RequestError, unknown
from headwater.core.rng import mix
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts import surgery
from headwater.parts.projections import PROJECTIONS
from headwater.parts.surgery import Adapted, Tuning

N = TypeVar("N", bound=nn.Module)

PAPER = Paper(
    title="Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning",
    year=2020,
    arxiv="2012.13255",
    differs="One factor a parameter tensor, as in the authors' code, where the paper speaks of layers; so many factors count "
    "towards d. Where a tensor has fewer than d entries its projection still sees all of t, which the authors' code cuts off. "
    "The gradient is the true one, where theirs is divided by the size of each projection, so learning rates do not carry "
    "over; ours is one rate that is not searched for each d. No weight decay.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`dimensions` is d; with `structure` every tensor has a factor of its own (SAID), without there are none (DID)."""

    dimensions: int = 1000
    structure: bool = True
    projection: str = "fastfood"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise RequestError(f"IntrinsicDim: dimensions must be at least 1; got {self.dimensions}.")
        if self.projection not in PROJECTIONS:
            raise unknown("projection", self.projection, PROJECTIONS)

    def build(self) -> "IntrinsicDim":
        return IntrinsicDim(self)


SMALL = Config(dimensions=300)
TINY = Config(dimensions=60)


class Subspace(Adapted):
    """Where `network` may go. It stands in the network as `subspace`, and every tensor of it asks here for its change."""

    def __init__(self, config: Config, network: nn.Module) -> None:
        super().__init__()
        moved = {p: n for n, p in network.named_parameters() if p.requires_grad}
        short = config.dimensions - len(moved) * config.structure
        if not moved or short < 1:
            raise RequestError(
                f"IntrinsicDim: the network has {len(moved)} tensors to move, each with a factor of its own, and dimensions="
                f"{config.dimensions} leaves no room for more (--set adapter.dimensions=... or adapter.structure=False)."
            )
        like = next(iter(moved))
        self.direction = nn.Parameter(torch.zeros(short, device=like.device))
        self.factors = nn.Parameter(torch.ones(len(moved), device=like.device)) if config.structure else None
        changes = {
            weight: Shifted(self, i, PROJECTIONS[config.projection](short, weight.numel(), mix(config.seed, name)))
            for i, (weight, name) in enumerate(moved.items())
        }
        everywhere = network.named_parameters(remove_duplicate=False)  # a weight may stand in several places
        places = {_place(network, name): weight for name, weight in everywhere if weight in changes}
        self.at = [*places]
        network.requires_grad_(False)
        for (module, leaf), weight in places.items():
            parametrize.register_parametrization(module, leaf, changes[weight].to(like.device))

    def merged(self) -> None:
        for module, leaf in self.at:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)


class Shifted(nn.Module):
    """One tensor and its change."""

    def __init__(self, subspace: Subspace, index: int, thrown: nn.Module) -> None:
        super().__init__()
        self.index, self.thrown = index, thrown
        self.subspace = (subspace,)  # in a tuple, so that its weights belong to one module alone

    def forward(self, weight: Tensor) -> Tensor:
        (space,) = self.subspace
        change = self.thrown(space.direction).view(weight.shape)
        out: Tensor = weight + (change if space.factors is None else space.factors[self.index] * change)
        return out


class IntrinsicDim(Tuning):
    rate = 3e-2  # of the few numbers, each of which moves every weight a little

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder, changed in place. Raises RequestError when it has more tensors than d has room for."""
        return within(self.config, encoder)

    def objective(self, method: Method, features: Tensor, labels: Tensor) -> Method:
        """The head moves in the same subspace: what stands in the encoder, still at its start, gives way to one of all."""
        return within(self.config, surgery.merge(method).requires_grad_(True))


def within(config: Config, network: N) -> N:
    network.subspace = Subspace(config, network)
    return network


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, leaf = name.rpartition(".")
    return network.get_submodule(parent), leaf
