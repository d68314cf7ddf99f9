"""Views of graphs (GraphCL, 2020)."""

from dataclasses import dataclass

import torch

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Graph, Input
from headwater.parts.graphs import among, fewer
from headwater.parts.views.compose import check_within


@dataclass(frozen=True)
class Thin:
    """Each graph without a share of its nodes and of its edges, and with a share of its features set to the mean.

    An undirected edge leaves in both directions. At least one node stays; the first one always does, since it may be the
    one that the rest surrounds.
    """

    nodes: float = 0.1
    edges: float = 0.1
    features: float = 0.1

    def __post_init__(self) -> None:
        for name in ("nodes", "edges", "features"):
            check_within(self, name, getattr(self, name))

    def __call__(self, x: Input, rng: Rng) -> Graph:
        if not isinstance(x, Graph):
            raise RequestError(f"Thin changes graphs; got a {type(x).__name__}.")
        b, f, n = x.values.shape
        at = torch.arange(n, device=x.values.device)
        score = rng.rand(b, n).masked_fill(at == 0, -1.0).masked_fill(at >= x.extent, 2.0)
        count = (x.extent - (self.nodes * x.extent).round().long()).clamp(min=1)
        keep = score.argsort(1)
        kept = at < count
        real = (at < x.extent)[:, None]
        mean = (x.values * real).sum(2, keepdim=True) / x.extent[:, :, None]
        values = torch.where((rng.rand(b, 1, n) < self.features) & real, mean, x.values)
        values = values.gather(2, keep[:, None].expand(-1, f, -1)) * kept[:, None]
        return Graph(values, count, fewer(among(x.edges, keep, kept, n), self.edges, rng))
