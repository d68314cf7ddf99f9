"""Graph encoders: messages along edges. Nodes may be hidden or left out, as methods that mask ask of any tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.parts.encoders import TokenwiseEncoder, mean_of
from headwater.parts.graphs import among, flat_edges, gathered, real_nodes
from headwater.parts.tokens.base import take
from headwater.parts.tokens.graph import GraphTokenizer, GraphTokenizerConfig


@dataclass(frozen=True, kw_only=True)
class GraphNetConfig:
    """`layer`: GIN sums what neighbours say (Xu et al., 2018); GAT weighs it by attention (Velickovic et al., 2017).

    Layer norm in place of GIN's batch norm, so that an embedding does not depend on the batch. `pool`: the mean of the
    nodes, or the first node, which in the surroundings of a node is the node itself.
    """

    tokenizer: GraphTokenizerConfig
    dim: int = 96
    depth: int = 4
    heads: int = 4
    layer: Literal["gin", "gat"] = "gin"
    pool: Literal["mean", "first"] = "mean"

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise RequestError(f"GraphNetConfig: dim {self.dim} does not divide into {self.heads} heads.")

    def build(self) -> "GraphNet":
        return GraphNet(self)


class GIN(nn.Module):
    """(1 + eps) x + the sum over neighbours, through two linear maps, the second to `out` (as wide as x unless said)."""

    def __init__(self, dim: int, out: int = 0) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, out or dim))

    def forward(self, x: Float[Tensor, "b n d"], edges: Int[Tensor, "b e 2"]) -> Float[Tensor, "b n o"]:
        said: Tensor = self.mlp((1 + self.eps) * x + gathered(x, edges))
        return said


class GAT(nn.Module):
    """Each node listens to itself and its neighbours, by heads that decide how much to whom. Together they say `out`
    values (as many as x has unless said)."""

    def __init__(self, dim: int, heads: int, out: int = 0) -> None:
        super().__init__()
        self.heads, out = heads, out or dim
        self.value = nn.Linear(dim, out, bias=False)
        self.source = nn.Parameter(torch.empty(heads, out // heads))
        self.target = nn.Parameter(torch.empty(heads, out // heads))
        self.bias = nn.Parameter(torch.zeros(out))
        for weight in (self.source, self.target):
            nn.init.normal_(weight, std=(out // heads) ** -0.5)

    def forward(self, x: Float[Tensor, "b n d"], edges: Int[Tensor, "b e 2"]) -> Float[Tensor, "b n o"]:
        b, n, _ = x.shape
        value = self.value(x).view(b * n, self.heads, -1)
        value = torch.cat([value, value.new_zeros(1, *value.shape[1:])])
        source, target = flat_edges(edges, n)
        itself = torch.arange(b * n, device=x.device)
        source, target = torch.cat([source, itself]), torch.cat([target, itself])
        score = F.leaky_relu(((value * self.source).sum(-1))[source] + ((value * self.target).sum(-1))[target], 0.2)
        most = score.new_full((b * n + 1, self.heads), -torch.inf)
        most = most.scatter_reduce(0, target[:, None].expand_as(score), score, "amax")
        weight = (score - most[target]).exp()
        total = torch.zeros_like(most).index_add(0, target, weight)
        told = torch.zeros_like(value).index_add(0, target, weight[..., None] * value[source])
        return (told / total[..., None].clamp(min=1e-16))[:-1].reshape(b, n, -1) + self.bias


class GraphNet(TokenwiseEncoder):
    def __init__(self, config: GraphNetConfig) -> None:
        super().__init__()
        self.config, self.modality, self.dim = config, config.tokenizer.modality, config.dim
        self.tokenizer = config.tokenizer.build(config.dim)
        make = {"gin": lambda: GIN(config.dim), "gat": lambda: GAT(config.dim, config.heads)}[config.layer]
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(config.depth))
        self.layers = nn.ModuleList(make() for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        x: Input,
        keep: Int[Tensor, "b k"] | None = None,
        hidden: Bool[Tensor, "b n"] | None = None,
        stand_in: Float[Tensor, " d"] | None = None,
    ) -> Features:
        """Encode all nodes, or only the graph of those that `keep` names; `hidden` ones say `stand_in` instead."""
        assert isinstance(self.tokenizer, GraphTokenizer)
        graph = self.tokenizer.graph(x)
        tokens = self.tokenizer(graph)
        vectors, valid, edges = tokens.x, real_nodes(graph), graph.edges
        if hidden is not None and stand_in is not None:
            vectors = torch.where(hidden[..., None], stand_in.to(vectors.dtype), vectors)
        if keep is not None:
            vectors, valid = take(vectors, keep), valid.gather(1, keep)
            edges = among(graph.edges, keep, valid, graph.values.shape[2])
        vectors = vectors * valid[..., None]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            vectors = (vectors + layer(norm(vectors) * valid[..., None], edges)) * valid[..., None]
        out = self.norm(vectors)
        pooled = out[:, 0] if self.config.pool == "first" else mean_of(out, valid)
        return Features(out, pooled, None, valid)
