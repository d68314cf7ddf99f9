"""Graphs: one token per node, from its features and from what it is within its graph."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Input, Tokens
from headwater.parts.graphs import real_nodes, walks
from headwater.parts.tokens.base import Normalise, Tokenizer


@dataclass(frozen=True, kw_only=True)
class GraphTokenizerConfig:
    """`channels` are the features of a node; it stands where `walks` random walks of 1, 2, ... steps say."""

    channels: int
    walks: int = 8
    modality: str = "graph"

    def build(self, dim: int) -> Tokenizer:
        return GraphTokenizer(self, dim)


class GraphTokenizer(Tokenizer):
    alike = False
    own_places = True

    def __init__(self, config: GraphTokenizerConfig, dim: int) -> None:
        super().__init__()
        self.config, self.rank, self.patch_dim = config, config.walks, config.channels
        self.normalise = Normalise(config.channels)
        self.embed = nn.Linear(config.channels, dim)
        self.structure = nn.Linear(config.walks, dim, bias=False)

    def graph(self, x: Input) -> Graph:
        if not isinstance(x, Graph):
            raise RequestError(
                f"{self.config.modality}: graphs are nodes and edges; got a {type(x).__name__} of values."
            )
        return x

    def grid(self, x: Input) -> tuple[int, ...]:
        return (self.graph(x).values.shape[2],)

    def places(self, x: Input) -> Float[Tensor, "b n r"]:
        """Chances of returning, as a grid of sixteen steps."""
        return 16 * walks(self.graph(x), self.config.walks)

    def patches(self, x: Input) -> Float[Tensor, "b n p"]:
        """The normalised features of each node."""
        graph = self.graph(x)
        found: Tensor = self.normalise(graph.values) * real_nodes(graph)[:, None]
        return found.transpose(1, 2)

    def unpatch(self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...]) -> Float[Tensor, "b f n"]:
        """The features as they were before normalisation."""
        return (patches * self.normalise.std + self.normalise.mean).transpose(1, 2)

    def valid(self, x: Input) -> Bool[Tensor, "b n"] | None:
        return real_nodes(self.graph(x))

    def forward(self, x: Input) -> Tokens:
        place = self.places(x)
        tokens = self.embed(self.patches(x)) + self.structure((place / 16).to(self.structure.weight.dtype))
        return Tokens(tokens, self.valid(x), place)
