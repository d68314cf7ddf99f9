"""Randomness that is a function of (seed, step) and does not depend on how many machines share a batch."""

import random
from hashlib import blake2b

import torch
from torch import Tensor


def mix(*parts: int | str) -> int:
    """One well-spread 63-bit seed from several numbers or words; the same on every machine."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


class Rng:
    """Draws tensors whose first axis is the batch.

    Shard `shard` of `shards` receives its rows of what one process would have drawn for the whole batch, so masks and
    views are the same whether one machine holds the batch or eight do. `host` yields Python numbers, equal on every
    shard, for what must be decided before a kernel starts (the side of a block, say) without waiting for the device.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", shard: int = 0, shards: int = 1) -> None:
        self.device = torch.device(device)
        self.host = random.Random(seed)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(seed)
        self.shard, self.shards = shard, shards
        self._seed = seed

    def rand(self, b: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), of shape (b, *shape)."""
        whole = torch.rand(b * self.shards, *shape, generator=self._generator, device=self.device)
        return self.rows(whole, b)

    def randn(self, b: int, *shape: int) -> Tensor:
        """Standard normal, of shape (b, *shape)."""
        whole = torch.randn(b * self.shards, *shape, generator=self._generator, device=self.device)
        return self.rows(whole, b)

    def randint(self, high: int, b: int, *shape: int) -> Tensor:
        """Whole numbers in [0, high), of shape (b, *shape)."""
        whole = torch.randint(high, (b * self.shards, *shape), generator=self._generator, device=self.device)
        return self.rows(whole, b)

    def uniform(self, low: float, high: float, b: int, *shape: int) -> Tensor:
        return low + (high - low) * self.rand(b, *shape)

    def rows(self, whole: Tensor, b: int) -> Tensor:
        """The b rows of this shard out of what was drawn for the whole batch."""
        return whole if self.shards == 1 else whole[self.shard * b : (self.shard + 1) * b]

    def everyone(self) -> "Rng":
        """A generator on the CPU that draws for the whole batch, the same on every shard.

        For choices whose *counts* shape the computation: the CPU knows them without waiting for the device.
        """
        return Rng(mix(self._seed, "everyone"))
