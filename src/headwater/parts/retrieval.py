"""How well like finds like: every sample asks for others of its class among all the others."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

QUERIES = 1 << 8  # at a time


def precision_at_ranks(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], queries: Int[Tensor, " q"] | None = None
) -> tuple[float, float]:
    """Mean average precision and recall at 1, by cosine, in double precision. A query never finds itself; one whose class
    has no other sample is left out. Ties go to the earlier sample. NaN where no query is left."""
    unit = normalize(x.double(), dim=1)
    rows = torch.arange(len(x)) if queries is None else queries
    rows = rows[y.bincount()[y[rows]] > 1]
    precision, first = list[Tensor](), list[Tensor]()
    for some in rows.split(QUERIES):
        similar = unit[some] @ unit.T
        similar[torch.arange(len(some)), some] = -torch.inf
        order = similar.argsort(dim=1, descending=True, stable=True)[:, :-1]
        hit = (y[order] == y[some, None]).double()
        rank = torch.arange(1, len(x), dtype=torch.float64)
        precision.append((hit * hit.cumsum(1) / rank).sum(1) / hit.sum(1))
        first.append(hit[:, 0])
    if not precision:
        return float("nan"), float("nan")
    return float(torch.cat(precision).mean()), float(torch.cat(first).mean())
