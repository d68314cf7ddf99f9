"""GraphMAE: hide the features of some nodes, and rebuild them from what their neighbours' codes say.

corrupt   a learned token in place of the features of random nodes; of a few of them, another node's features
encode    the whole graph, hidden nodes too
predict   one graph layer, in which what was said of the hidden nodes themselves is set to zero
target    the data: the direction of each hidden node's features, by a cosine error that lets easy nodes count less
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Graph, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.graphnet import GAT, GIN, GraphNet
from headwater.parts.graphs import fewer, real_nodes
from headwater.parts.losses import masked_mean
from headwater.parts.masks import MaskSampler, RandomMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.tokens.graph import GraphTokenizer
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="GraphMAE: Self-Supervised Masked Graph Autoencoders",
    year=2022,
    arxiv="2205.10803",
    differs="the encoder is Headwater's graph network (residual layers with layer norm before them, a last layer norm, "
    "and random walks that tell where a node stands) with no dropout; the decoder's layer is of the encoder's kind, with "
    "GELU and no batch norm inside; GIN adds no loops from a node to itself; features are standardised unless asked "
    "otherwise; what is put in place of features comes from a node of the same graph; nodes that rounding leaves with "
    "neither token nor noise in the authors' code have the token; within a batch each graph hides the share that the "
    "largest one hides, rounded down; a guess or target of zeros costs 1 and has no gradient.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    noise        the share of the hidden nodes that hold another node's features instead of the token
    drop_edges   the share of edges that the encoder does not see; the decoder sees all
    power        of the error: above 1, nodes that are guessed well count less
    standardise  aim at features in units of their own deviation; False: as they are, such as counts of words
    """

    mask: MaskSampler = RandomMask(ratio=0.5)
    noise: float = 0.05
    drop_edges: float = 0.0
    power: float = 3.0
    standardise: bool = True

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # hiding is all that is done to a graph

    def build(self, encoders: Mapping[str, Encoder]) -> "GraphMAE":
        encoder = only(encoders, "GraphMAE")
        if not isinstance(encoder, GraphNet):
            raise RequestError(
                f"GraphMAE decodes along edges and needs an encoder that does so too, such as --encoder gin-micro; "
                f"got a {type(encoder).__name__}."
            )
        return GraphMAE(self, encoder)


SMALL = Config(power=2.0)
TINY = Config(power=2.0, noise=0.25)


class GraphMAE(Method):
    tokens = True
    modalities = ("graph",)

    def __init__(self, config: Config, encoder: GraphNet) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        wide = encoder.tokenizer.patch_dim
        self.token = nn.Parameter(torch.zeros(wide))
        self.bridge = nn.Linear(encoder.dim, encoder.dim, bias=False)
        self.decoder = GIN(encoder.dim, wide) if encoder.config.layer == "gin" else GAT(encoder.dim, 1, wide)

    def loss(self, batch: Batch, step: Step) -> Loss:
        assert isinstance(self.encoder.tokenizer, GraphTokenizer)
        x = self.encoder.tokenizer.graph(batch.x["graph"])
        valid = real_nodes(x)
        mask = self.config.mask(len(x), (valid.shape[1],), step.rng, valid)
        seen = self.corrupted(x, mask, step)
        guess = take(self.decode(self.encoder(seen).tokens, where_hidden(mask), x.edges), mask.drop)
        error = scaled_cosine_error(guess, take(self.target(x), mask.drop), self.config.power)
        return Loss(masked_mean(error, valid.gather(1, mask.drop), step.gather))

    def corrupted(self, x: Graph, mask: Mask, step: Step) -> Graph:
        """The token at hidden nodes, but for the last of `mask.drop`, which hold the features of any node."""
        tokenizer = self.encoder.tokenizer
        features = tokenizer.patches(x)
        (b, k), n = mask.drop.shape, features.shape[1]
        donor = (step.rng.rand(b, k) * x.extent).long()
        hidden = real_nodes(x).gather(1, mask.drop).sum(1, keepdim=True)
        noisy = torch.arange(k, device=donor.device) >= k - (hidden * self.config.noise).long()
        stand_in = torch.where(noisy[..., None], take(features, donor), self.token.to(features.dtype))
        features = features.scatter(1, mask.drop[..., None].expand_as(stand_in), stand_in)
        values = tokenizer.unpatch(features, (n,)) * real_nodes(x)[:, None]
        return replace(x, values=values, edges=fewer(x.edges, self.config.drop_edges, step.rng))

    def decode(
        self, code: Float[Tensor, "b n d"], hidden: Bool[Tensor, "b n"], edges: Int[Tensor, "b e 2"]
    ) -> Float[Tensor, "b n f"]:
        """What the neighbours of each node say about its features: hidden nodes say nothing, not even of themselves."""
        said: Tensor = self.decoder(self.bridge(code).masked_fill(hidden[..., None], 0.0), edges)
        return said

    def target(self, x: Graph) -> Float[Tensor, "b n f"]:
        return self.encoder.tokenizer.patches(x) if self.config.standardise else x.values.transpose(1, 2)


def scaled_cosine_error(
    guess: Float[Tensor, "*b f"], target: Float[Tensor, "*b f"], power: float
) -> Float[Tensor, "*b"]:
    """(1 - cos) to this power. Zeros have no direction: they cost 1 and pull nowhere."""
    known = guess.any(-1) & target.any(-1)
    apart = (1 - F.cosine_similarity(guess, target, dim=-1)).clamp(min=0)
    return torch.where(known, apart, 1.0).pow(power)
