"""Exact nearest neighbours, in memory that grows with neither the product nor the size of what is compared.

Shapes: q queries, n rows of the bank, d features, k neighbours.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

METRICS = ("cosine", "euclidean")

BANK_ROWS = 1 << 15
QUERIES = 1 << 9  # with BANK_ROWS: 64 MiB of scores at a time
SPARE = 8  # candidates beyond k: float32 finds them, float64 ranks them, so rounding does not decide who is in


def nearest(
    queries: Float[Tensor, "q d"], bank: Float[Tensor, "n d"], k: int, metric: str
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The k most similar rows of the bank, best first, and their similarity in float64; ties go to the lower index.

    The similarity is the cosine, or minus half the squared Euclidean distance (on vectors of length 1 that is the
    cosine minus 1). Zero vectors have cosine 0 with everything.
    """
    found = torch.empty(len(queries), min(k + SPARE, len(bank)), dtype=torch.long)
    centre = bank.mean(0) if metric == "euclidean" else torch.zeros((), dtype=bank.dtype)
    scores = torch.full(found.shape, -torch.inf)
    for first in range(0, len(bank), BANK_ROWS):
        part = comparable(bank[first : first + BANK_ROWS] - centre, metric)
        offset = part.square().sum(1) / 2 if metric == "euclidean" else torch.zeros(())
        for row in range(0, len(queries), QUERIES):
            some = slice(row, row + QUERIES)
            similarity = comparable(queries[some] - centre, metric) @ part.T - offset
            top, at = similarity.topk(min(found.shape[1], len(part)))
            best, kept = torch.cat([scores[some], top], 1).topk(found.shape[1])
            scores[some] = best
            found[some] = torch.cat([found[some], at + first], 1).gather(1, kept)
    lots = zip(torch.split(queries, QUERIES), torch.split(found, QUERIES), strict=True)
    ranked = [rank(q, bank, f, k, metric) for q, f in lots]
    return torch.cat([i for i, _ in ranked]), torch.cat([s for _, s in ranked])


def comparable(x: Float[Tensor, "n d"], metric: str) -> Float[Tensor, "n d"]:
    return (normalize(x, dim=1) if metric == "cosine" else x).float()


def rank(
    queries: Float[Tensor, "q d"], bank: Float[Tensor, "n d"], found: Int[Tensor, "q f"], k: int, metric: str
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The best k of the candidates `found`, by their similarity in float64."""
    found = found.sort(1).values  # so that the stable sort below leaves equals in the order of the bank
    q, rows = queries.double()[:, None], bank[found].double()
    if metric == "cosine":
        similarity = (normalize(q, dim=2) * normalize(rows, dim=2)).sum(2)
    else:
        similarity = -(q - rows).square().sum(2) / 2
    best, order = similarity.sort(dim=1, descending=True, stable=True)
    return found.gather(1, order[:, :k]), best[:, :k]
