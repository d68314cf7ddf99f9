"""Fixed random projections of a short vector onto the entries of a weight: Fastfood, in little memory, and dense."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.rng import mix

FACTOR = 64  # Hadamard matrices are multiplied out of ones of at most this side


def sylvester(side: int, like: Tensor) -> Float[Tensor, "n n"]:
    """The Hadamard matrix of side 2^k in Sylvester's order; its entries are 1 and -1."""
    matrix = like.new_ones(1, 1)
    while len(matrix) < side:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def hadamard(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The Hadamard matrix times `x`, not normalised, for n a power of two, in n log n steps."""
    done = 1
    while done < len(x):
        side = min(FACTOR, len(x) // done)
        x = (sylvester(side, x) @ x.reshape(-1, side, done)).reshape(-1)
        done *= side
    return x


class Fastfood(nn.Module):
    """`into` entries out of `short` (Le et al., 2013): signs, Hadamard, permutation, Gaussian diagonal, Hadamard.

    The length of what comes out is about that of what goes in. Drawn from `seed` on the CPU; nothing is learned or saved.
    """

    sign: Tensor
    order: Tensor
    gauss: Tensor

    def __init__(self, short: int, into: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(mix(seed, "fastfood"))
        self.into, wide = into, 2 ** math.ceil(math.log2(max(short, into)))
        gauss = torch.randn(wide, generator=rng)
        self.scale = 1 / math.sqrt(into * float(gauss.square().sum()))
        self.register_buffer("gauss", gauss, persistent=False)
        self.register_buffer("sign", torch.randint(2, (wide,), generator=rng) * 2.0 - 1, persistent=False)
        self.register_buffer("order", torch.randperm(wide, generator=rng), persistent=False)

    def forward(self, x: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        wide = torch.cat([x, x.new_zeros(len(self.gauss) - len(x))])
        mixed = hadamard(self.sign.to(x) * wide)[self.order]
        return hadamard(self.gauss.to(x) * mixed)[: self.into] * self.scale


class Dense(nn.Module):
    """The same from a matrix of normal numbers, which costs short × into of memory."""

    matrix: Tensor

    def __init__(self, short: int, into: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(mix(seed, "dense"))
        self.register_buffer("matrix", torch.randn(into, short, generator=rng) / math.sqrt(into), persistent=False)

    def forward(self, x: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        return self.matrix.to(x) @ x


PROJECTIONS = {"fastfood": Fastfood, "dense": Dense}
