"""All that knows of processes: who we are, gathering rows, and batch norm over everyone's batch."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from headwater.core.verbs import Method


@dataclass(frozen=True)
class World:
    """This process among `size`; the main one writes files and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def gather(self, x: Tensor) -> Tensor:
        """Everyone's rows in the order of ranks, gradient included; the identity for one process."""
        if self.size == 1:
            return x
        return _Gather.apply(x)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over processes of numbers that each has its own of, without gradient."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """True when any process says so."""
        if self.size == 1:
            return flag
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def join() -> World:
    """The world torchrun made, or this process alone."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if not dist.is_initialized():
        # gloo carries what lives on the CPU (flags, counts) even where NCCL carries the gradients
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def spread(method: Method, world: World) -> nn.Module:
    """The method as each process calls it: gradients averaged, batch norms sharing their statistics."""
    if world.size == 1:
        return method
    share_batch_norms(method)
    return DistributedDataParallel(method, forward_sync_buffers=False)


def share_batch_norms(module: nn.Module) -> None:
    """Turn every batch norm, in place, into one whose statistics cover everyone's batch.

    torch's own SyncBatchNorm refuses CPU tensors; this one is the same arithmetic by two all-reduces, anywhere.
    """
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            child.__class__ = _SHARED[type(child)]


class _Gather(torch.autograd.Function):
    """Everyone's rows; the gradient of mine is the sum of what everyone's losses say of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    """The sum over processes, and of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _shared_forward(self: Any, x: Tensor) -> Tensor:
    if not self.training:
        out: Tensor = super(type(self), self).forward(x)
        return out
    axes = [0, *range(2, x.ndim)]
    n = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    dist.all_reduce(n)  # processes may hold different numbers of samples, where some lack a modality
    mean = _Sum.apply(x.sum(axes)) / n
    shape = (1, -1, *[1] * (x.ndim - 2))
    centred = x - mean.view(shape)
    var = _Sum.apply(centred.square().sum(axes)) / n
    with torch.no_grad():
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(var.detach() * n / (n - 1), self.momentum)
    y = centred * (var + self.eps).rsqrt().view(shape)
    return y if self.weight is None else y * self.weight.view(shape) + self.bias.view(shape)


_SHARED: dict[type[nn.Module], Any] = {
    norm: type(f"Shared{norm.__name__}", (norm,), {"forward": _shared_forward})
    for norm in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}
