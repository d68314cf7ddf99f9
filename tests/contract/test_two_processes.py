"""Two processes with half a batch each must find the loss that one finds with the whole of it.

In double precision: in single, a ReLU whose input is zero but for rounding falls to one side or the other.
"""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from headwater.core.rng import Rng
from headwater.core.types import Annotations, Batch, Step
from headwater.engine.distributed import World, share_batch_norms
from tests import small
from tests.contract.methods import METHODS, build


def half(batch: Batch, rank: int) -> Batch:
    rows = list(range(4 * rank, 4 * rank + 4))
    marks = batch.annotations
    assert marks is not None
    cut = Annotations(marks.boxes[rows], marks.classes[rows])
    y, targets = (None if v is None else v[rows] for v in (batch.y, batch.targets))
    return Batch({m: small.some(x, rows) for m, x in batch.x.items()}, y, cut, targets=targets)


def one_rank(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    world = World(rank, 2)
    found = {}
    for name in METHODS:
        method = build(name).double()
        share_batch_norms(method)
        step = Step(Rng(2, shard=rank, shards=2), 0.5, world.gather)
        loss = method(half(small.batch(), rank), step)
        loss.value.backward()
        method.after_step(step, loss.carry)
        values = [loss.value.detach()[None], *(p.grad.flatten()[:5] for p in method.parameters() if p.grad is not None)]
        buffers = [b.flatten().double() for n, b in method.named_buffers() if "running" not in n and "tracked" not in n]
        mean = torch.cat(values)
        dist.all_reduce(mean)
        found[name] = torch.cat([mean / 2, *buffers])
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = Path(tmp_path_factory.mktemp("ranks")) / "found.pt"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(one_rank, args=(port, str(out)), nprocs=2)  # type: ignore[no-untyped-call]
    found: dict[str, torch.Tensor] = torch.load(out, weights_only=True)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_find_the_loss_and_gradient_of_one(name: str, by_two: dict[str, torch.Tensor]) -> None:
    method, step = build(name).double(), small.step()
    loss = method(small.batch(), step)
    loss.value.backward()
    method.after_step(step, loss.carry)
    values = [loss.value.detach()[None], *(p.grad.flatten()[:5] for p in method.parameters() if p.grad is not None)]
    buffers = [b.flatten().double() for n, b in method.named_buffers() if "running" not in n and "tracked" not in n]
    torch.testing.assert_close(by_two[name], torch.cat([*values, *buffers]), rtol=1e-5, atol=1e-6)
