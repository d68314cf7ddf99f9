"""How much memory a training step takes, counted: the same on every device, whatever its allocator does."""

import copy

import torch
from torch import Tensor

from headwater.core.types import Batch, Step
from headwater.core.verbs import Method


def of_a_step(method: Method, batch: Batch, step: Step) -> int:
    """Bytes held at the end of the forward pass and by AdamW: weights and buffers, for each trained weight its gradient
    and two moments, and what the backward pass needs of this batch. The method itself stays as it is."""
    method = copy.deepcopy(method).train()
    weights = [*method.parameters()]
    own = {w.untyped_storage().data_ptr() for w in [*weights, *method.buffers()]}
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = method.loss(batch, step)
    state = sum(x.nbytes for x in [*weights, *method.buffers()])
    trained = sum(w.nbytes for w in weights if w.requires_grad)
    del loss  # until here it keeps alive what was counted
    return state + 3 * trained + sum(held.values())
