"""The slow copy of a network that so many methods take as their teacher."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from headwater.core.verbs import Encoder
from headwater.parts.transformer import DropPath


class Ema(nn.Module):
    """A copy of `module` that follows it slowly, receives no gradient and skips no branch (drop path is off)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(module).requires_grad_(False)
        for part in self.copy.modules():
            if isinstance(part, DropPath):
                part.rate = 0.0

    @torch.no_grad()
    def forward(self, *args: Any, **named: Any) -> Any:
        return self.copy(*args, **named)

    @torch.no_grad()
    def follow(self, module: nn.Module, momentum: float) -> None:
        """copy <- momentum * copy + (1 - momentum) * module, in one fused call; buffers are taken over as they are."""
        slow: list[Tensor] = list(self.copy.parameters())
        fast: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(slow, fast, 1 - momentum)
        for mine, theirs in zip(self.copy.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)

    def encoder(self) -> Encoder:
        """The copy, where it is an encoder: what methods that evaluate their teacher hand on."""
        assert isinstance(self.copy, Encoder)
        return self.copy
