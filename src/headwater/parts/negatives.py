"""Which others a sample is put beside, so that telling them apart is hard."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng

FLOOR = 1e-4  # of the chance of each, so that none is never drawn


@torch.no_grad()
def hard_negatives(logits: Float[Tensor, "b k"], rng: Rng) -> Int[Tensor, " b"]:
    """For each row one of everyone's k, never its own, with chances that grow with its logit: softmax + 1e-4 (ALBEF, 2021;
    TIP, 2024). Raises RequestError where there is no other."""
    b, k = logits.shape
    if k < 2:
        raise RequestError(
            "Pairs are matched against others of their batch; this batch holds one. Take larger batches."
        )
    own = rng.rows(torch.arange(k, device=logits.device), b)
    chance = (logits.softmax(1) + FLOOR).scatter(1, own[:, None], 0.0).double().cumsum(1)
    return (chance > rng.rand(b, 1) * (1 - 1e-6) * chance[:, -1:]).int().argmax(1)
