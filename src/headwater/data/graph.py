"""Graphs: GraphML, GML, GEXF and node-link JSON files, tables of edges, and NetworkX or PyTorch Geometric objects.

Many graphs: each is an item. One large graph: each node is an item, read as the nodes within a few steps of it, itself
the first, so that what an encoder says of a node never depends on the batch.
"""

import io
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headwater.core.errors import RequestError, Unreadable, unknown
from headwater.core.types import Graph, Sample
from headwater.data.labels import LABEL_COLUMNS, Labels, encode
from headwater.data.reader import Reader
from headwater.data.source import Source, digest
from headwater.data.stores import Disk, Remote

STEPS, MOST = 2, 64  # how far the surroundings of a node reach, and how many nodes they hold at most


def sample(features: np.ndarray, edges: np.ndarray) -> Graph:
    """One graph from features [n f] and directed edges [e 2]."""
    values = torch.from_numpy(np.ascontiguousarray(features.T, np.float32))[None]
    return Graph(values, torch.tensor([[len(features)]]), torch.from_numpy(np.ascontiguousarray(edges, np.int64))[None])


@dataclass(frozen=True)
class Table:
    """A graph as arrays: features of nodes [n f], edges [e 2] in both directions if undirected, labels of nodes."""

    features: np.ndarray
    edges: np.ndarray
    names: tuple[str, ...]
    labels: Labels | None = None


def degrees(n: int, edges: np.ndarray) -> np.ndarray:
    """What stands in for features where nodes have none: the logarithm of the degree, and a one."""
    return np.stack([np.log1p(np.bincount(edges[:, 0], minlength=n)), np.ones(n)], 1).astype(np.float32)


def from_networkx(graph: Any, labels: str | None, item: str) -> Table:
    """Numbers among the attributes of nodes become features, words one column each per word; `labels` names the one that
    is the label of a node."""
    nodes = list(graph.nodes)
    at = {node: i for i, node in enumerate(nodes)}
    pairs = np.array([(at[a], at[b]) for a, b in graph.edges()], np.int64).reshape(-1, 2)
    edges = pairs if graph.is_directed() else np.concatenate([pairs, pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1]])
    keys = sorted({k for _, data in graph.nodes(data=True) for k in data})
    if labels is not None and labels not in keys:
        raise unknown(f"attribute of the nodes of {item}", labels, keys or ["none"])
    columns: list[np.ndarray] = []
    for key in keys:
        if key == labels:
            continue
        column = [graph.nodes[node].get(key) for node in nodes]
        if all(isinstance(v, int | float) or v is None for v in column):
            columns.append(np.array([np.nan if v is None else float(v) for v in column], np.float32)[:, None])
        elif all(isinstance(v, str) or v is None for v in column):
            words = sorted({v for v in column if v is not None})
            columns.append(np.array([[v == w for w in words] for v in column], np.float32))
        elif all(isinstance(v, list | tuple | np.ndarray) for v in column):
            columns.append(np.array(column, np.float32))
    features = np.nan_to_num(np.concatenate(columns, 1)) if columns else degrees(len(nodes), edges)
    made = None
    if labels is not None:
        made = encode(pa.array([graph.nodes[node].get(labels) for node in nodes]), f"The attribute {labels}")
    return Table(features, edges, tuple(map(str, nodes)), made)


class Graphs(Source):
    """Several graphs in memory."""

    modalities = ("graph",)

    def __init__(self, name: str, tables: Sequence[Table], labels: Labels | None = None) -> None:
        widths = {t.features.shape[1] for t in tables}
        if len(widths) > 1:
            raise RequestError(
                f"The nodes of the graphs in {name} have different numbers of features: {sorted(widths)}."
            )
        self.name, self.tables = name, tables
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, labels.notes

    def __len__(self) -> int:
        return len(self.tables)

    def read(self, i: int) -> dict[str, Sample]:
        return {"graph": sample(self.tables[i].features, self.tables[i].edges)}

    def id(self, i: int) -> str:
        return str(i)

    @property
    def fingerprint(self) -> str:
        return digest(*(p for t in self.tables for p in (t.features.tobytes(), t.edges.tobytes())))


class Surroundings(Source):
    """The nodes of one graph, each with those within `steps` steps of it, nearest first and at most `most` of them."""

    modalities = ("graph",)

    def __init__(self, name: str, table: Table, at: str = "", steps: int = STEPS, most: int = MOST) -> None:
        self.name, self.table, self._at, self.steps, self.most = name, table, at, steps, most
        self.notes = (f"One graph: each of its nodes is an item, with what lies within {steps} steps of it.",)
        if table.labels is not None:
            self.labels, self.classes = table.labels.values, table.labels.classes
            self.notes += table.labels.notes
        order = np.argsort(table.edges[:, 0], kind="stable")
        self._to = table.edges[order, 1]
        self._first = np.searchsorted(table.edges[order, 0], np.arange(len(table.features) + 1))

    def __len__(self) -> int:
        return len(self.table.features)

    def read(self, i: int) -> dict[str, Sample]:
        number, waiting = {i: 0}, deque([(i, 0)])
        while waiting and len(number) < self.most:
            node, far = waiting.popleft()
            if far == self.steps:
                continue
            for other in self._to[self._first[node] : self._first[node + 1]].tolist():
                if other not in number and len(number) < self.most:
                    number[other] = len(number)
                    waiting.append((other, far + 1))
        edges = [
            (number[a], number[b])
            for a in number
            for b in self._to[self._first[a] : self._first[a + 1]].tolist()
            if b in number
        ]
        return {"graph": sample(self.table.features[list(number)], np.array(edges, np.int64).reshape(-1, 2))}

    def id(self, i: int) -> str:
        return self.table.names[i]

    def path(self, i: int) -> str:
        return self._at

    @property
    def fingerprint(self) -> str:
        return digest(self.table.features.tobytes(), self.table.edges.tobytes(), f"{self.steps} {self.most}")


@dataclass(frozen=True)
class GraphReader(Reader):
    """One graph per file."""

    modality = "graph"
    endings = frozenset({"graphml", "gml", "gexf"})
    named = frozenset({"json"})

    def decode(self, data: bytes, item: str) -> Graph:
        table = from_networkx(parsed(data, item), None, item)
        return sample(table.features, table.edges)


def parsed(data: bytes, item: str) -> Any:
    """A NetworkX graph from the bytes of a file. Raises `Unreadable`."""
    networkx = _networkx()
    if not data:
        raise Unreadable(item, "the file is empty (zero bytes)")
    start = data.lstrip()[:200]
    try:
        if start.startswith(b"{"):
            found = json.loads(data)
            return networkx.node_link_graph(found, edges="edges" if "edges" in found else "links")
        if b"graphml" in data[:2000]:
            return networkx.read_graphml(io.BytesIO(data))
        if b"gexf" in data[:2000]:
            return networkx.read_gexf(io.BytesIO(data))
        return networkx.parse_gml(data.decode())
    except Exception as error:  # networkx raises many kinds on damaged files
        raise Unreadable(
            item, f"the graph is damaged or in no known format ({type(error).__name__}: {error})"
        ) from error


def open_graph(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """A file with one graph: its nodes are the items."""
    try:
        table = from_networkx(parsed(place.read(at), name), labels, name)
    except Unreadable as error:
        raise RequestError(f"The graph {at} cannot be read: {error.why}.") from error
    return Surroundings(name, table, place.url(at))


def open_edges(place: Disk | Remote, at: str, labels: str | None, name: str) -> Source:
    """A table of edges (its first two columns) with, beside it, a table of nodes: edges.csv and nodes.csv, whose first
    column names the node; the others are its features and, where `labels` names one, its label."""
    from headwater.data.table import arrow_table, from_table

    pairs = arrow_table(at, place, words=True)
    if pairs.num_columns < 2:
        raise RequestError(f"The table of edges {at} has {pairs.num_columns} column; two are expected, from and to.")
    ends = [[str(v) for v in pairs.column(k).to_pylist()] for k in (0, 1)]
    nodes_at = at.replace("edges", "nodes")
    features, made = None, None
    names = sorted({*ends[0], *ends[1]})
    if nodes_at != at and (isinstance(place, Remote) or _exists(nodes_at)):
        nodes = arrow_table(nodes_at, place)
        names = [str(v) for v in nodes.column(0).to_pylist()]
        rest = nodes.remove_column(0)
        labels = labels or next((c for c in rest.column_names if c.lower() in LABEL_COLUMNS), None)
        if labels is not None and labels not in rest.column_names:
            raise unknown(f"column of {nodes_at}", labels, rest.column_names)
        made = None if labels is None else encode(rest[labels], f"The column {labels}")
        rest = rest if labels is None else rest.drop_columns([labels])
        if rest.num_columns:
            features = np.nan_to_num(from_table(rest, None, name).numbers())
    number = {n: i for i, n in enumerate(names)}
    lost = sorted({n for n in (*ends[0], *ends[1]) if n not in number})
    if lost:
        raise RequestError(
            f"{at} has edges of nodes that {nodes_at} does not name, such as {lost[0]!r} ({len(lost)} in all)."
        )
    one = np.array([[number[a], number[b]] for a, b in zip(*ends, strict=True)], np.int64).reshape(-1, 2)
    edges = np.unique(np.concatenate([one, one[:, ::-1]]), axis=0)
    return Surroundings(
        name, Table(features if features is not None else degrees(len(names), edges), edges, tuple(names), made), at
    )


def from_objects(graphs: Sequence[Any], labels: str | None, name: str) -> Source:
    """NetworkX graphs or PyTorch Geometric's Data: one gives its nodes, several are the items. The label of a graph is
    its attribute `labels` (NetworkX: graph.graph[labels]) or `y`."""
    tables, found = [], []
    for i, graph in enumerate(graphs):
        if hasattr(graph, "edge_index"):
            edges = graph.edge_index.numpy().T
            features = degrees(graph.num_nodes, edges) if graph.x is None else graph.x.float().numpy()
            y = graph.y
            if len(graphs) == 1 and y is not None:
                made = encode(y.flatten().numpy(), "The labels y")
                tables.append(Table(features, edges, tuple(map(str, range(len(features)))), made))
            else:
                tables.append(Table(features, edges, ()))
                found.append(None if y is None else y.flatten()[0].item())
        else:
            tables.append(from_networkx(graph, labels if len(graphs) == 1 else None, f"graph {i}"))
            found.append(graph.graph.get(labels or "label"))
    if len(tables) == 1:
        return Surroundings(name, tables[0])
    known = None if all(v is None for v in found) else encode(pa.array(found), "The labels of the graphs")
    return Graphs(name, tables, known)


def is_graph(what: Any) -> bool:
    return type(what).__module__.partition(".")[0] == "networkx" or (
        hasattr(what, "edge_index") and hasattr(what, "num_nodes")
    )


def _exists(path: str) -> bool:
    from pathlib import Path

    return Path(path).is_file()


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise RequestError("Graphs in files need networkx: pip install 'headwater[graph]'") from error
    return networkx
