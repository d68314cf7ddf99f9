"""Yes and no for many weights, in as many bits."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor


def packed(on: Bool[Tensor, "..."]) -> UInt8[Tensor, " n"]:
    """Eight to a byte, the first in the lowest bit."""
    bits = F.pad(on.flatten().to(torch.uint8), (0, -on.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=on.device)).sum(1, dtype=torch.uint8)


def unpacked(bits: UInt8[Tensor, " n"], count: int) -> Bool[Tensor, " m"]:
    on = bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    return on.flatten()[:count].bool()
