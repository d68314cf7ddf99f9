"""What graph encoders and views share: sums over edges, parts of graphs, and where a node stands by its structure."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Graph


def real_nodes(graph: Graph) -> Bool[Tensor, "b n"]:
    return torch.arange(graph.values.shape[2], device=graph.values.device) < graph.extent


def flat_edges(edges: Int[Tensor, "b e 2"], n: int) -> tuple[Int[Tensor, " be"], Int[Tensor, " be"]]:
    """(from, to) as numbers of nodes counted over the whole batch; what is no edge points at a node b * n beyond."""
    b = len(edges)
    first = torch.arange(b, device=edges.device)[:, None, None] * n
    numbers = torch.where(edges < 0, b * n, edges + first).flatten(0, 1)
    return numbers[:, 0], numbers[:, 1]


def gathered(x: Float[Tensor, "b n d"], edges: Int[Tensor, "b e 2"]) -> Float[Tensor, "b n d"]:
    """For each node the sum over the nodes that have an edge to it."""
    b, n, d = x.shape
    source, target = flat_edges(edges, n)
    rows = torch.cat([x.flatten(0, 1), x.new_zeros(1, d)])
    return torch.zeros_like(rows).index_add(0, target, rows[source])[:-1].view(b, n, d)


def among(
    edges: Int[Tensor, "b e 2"], keep: Int[Tensor, "b k"], valid: Bool[Tensor, "b k"], n: int
) -> Int[Tensor, "b e 2"]:
    """The edges between those kept nodes that are valid, by their new numbers; the others are none."""
    number = torch.full((len(keep), n + 1), -1, dtype=torch.int64, device=keep.device)
    at = torch.arange(keep.shape[1], device=keep.device)
    number.scatter_(1, keep, torch.where(valid, at, -1))
    ends = number.gather(1, torch.where(edges < 0, n, edges).flatten(1)).view_as(edges)
    return torch.where((ends < 0).any(-1, keepdim=True), -1, ends)


def fewer(edges: Int[Tensor, "b e 2"], share: float, rng: Rng) -> Int[Tensor, "b e 2"]:
    """Without a random share of the edges. Both directions of an edge have the same chance: it is drawn for the pair."""
    low, high = edges.amin(-1), edges.amax(-1)
    salt = rng.rand(len(edges), 2) * 1000
    chance = ((low * 12.9898 + high * 78.233 + salt[:, :1]).sin() * 43758.5453 + salt[:, 1:]).frac().abs()
    return torch.where((chance < share)[..., None], -1, edges)


def walks(graph: Graph, steps: int) -> Float[Tensor, "b n k"]:
    """The chance that a random walk from each node is back after 1 to `steps` steps (Dwivedi et al., 2021).

    What a node is within its graph, whatever the order in which nodes are stored. The walk also stays where it is half of
    the time, so that graphs without odd cycles say something at every step.
    """
    b, _, n = graph.values.shape
    source, target = flat_edges(graph.edges, n)
    flat = torch.zeros(b * n * n + 1, device=graph.values.device)
    inside = source < b * n
    flat = flat.index_fill(0, torch.where(inside, source * n + target % n, b * n * n), 1.0)
    link = flat[:-1].view(b, n, n)
    step = (link / link.sum(2, keepdim=True).clamp(min=1) + torch.eye(n, device=link.device)) / 2
    back, power = [], step
    for _ in range(steps):
        back.append(power.diagonal(dim1=1, dim2=2))
        power = power @ step
    return torch.stack(back, -1)
