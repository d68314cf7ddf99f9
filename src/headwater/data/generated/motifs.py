"""Graphs with a planted motif: motifs, 1,200 graphs of 14 to 26 nodes; the class is the motif.

The rest is a random tree with a few more edges. A node's features are the logarithm of its degree and noise.
"""

import numpy as np
import torch

from headwater.core.types import Graph, Sample
from headwater.data.source import Source, digest

GRAPHS = 1200
MOTIFS: dict[str, tuple[tuple[int, int], ...]] = {
    "clique": tuple((a, b) for a in range(5) for b in range(a)),
    "cycle": tuple((a, (a + 1) % 6) for a in range(6)),
    "star": tuple((0, a) for a in range(1, 7)),
    "grid": tuple((a, a + 1) for a in (0, 1, 3, 4)) + tuple((a, a + 3) for a in range(3)),
    "house": ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)),
    "two triangles": ((0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)),
}


def graph(motif: str, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features [2 n] and undirected edges [e 2], each in both directions."""
    edges = {frozenset(edge) for edge in MOTIFS[motif]}
    start = 1 + max(max(edge) for edge in MOTIFS[motif])
    n = int(draw.integers(14, 27))
    for node in range(start, n):
        edges.add(frozenset((node, int(draw.integers(node)))))
    for _ in range(int(draw.integers(0, 3))):
        edges.add(frozenset(map(int, draw.choice(n, 2, replace=False))))
    name = draw.permutation(n)
    pairs = np.array([[name[a], name[b]] for a, b in map(tuple, map(sorted, sorted(edges, key=sorted)))], np.int64)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    degree = np.bincount(pairs[:, 0], minlength=n)
    return np.stack([np.log1p(degree), draw.normal(size=n)]).astype(np.float32), pairs


class Motifs(Source):
    """Drawn when they are asked for."""

    modalities = ("graph",)

    def __init__(self, name: str) -> None:
        self.name = name
        kinds = np.array([np.random.default_rng((8, i)).integers(len(MOTIFS)) for i in range(GRAPHS)], np.int64)
        self.labels, self.classes = kinds, tuple(MOTIFS)

    def __len__(self) -> int:
        return GRAPHS

    def read(self, i: int) -> dict[str, Sample]:
        draw = np.random.default_rng((8, i))
        values, edges = graph(tuple(MOTIFS)[draw.integers(len(MOTIFS))], draw)
        size = torch.tensor([[values.shape[1]]])
        return {"graph": Graph(torch.from_numpy(values)[None], size, torch.from_numpy(edges)[None])}

    def id(self, i: int) -> str:
        return str(i)

    @property
    def fingerprint(self) -> str:
        return digest("motifs", str(GRAPHS))


SETS = {"motifs": Motifs}
