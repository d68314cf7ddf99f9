"""Batches of samples that differ in size, put together."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from headwater.core.types import Graph, Input, Ragged


def cat(parts: Sequence[Input]) -> Input:
    """The samples of several batches in one; what differs in size is filled up to the largest."""
    if all(isinstance(x, Tensor) for x in parts) and len({x.shape[1:] for x in parts if isinstance(x, Tensor)}) == 1:
        return torch.cat([x for x in parts if isinstance(x, Tensor)])
    ragged = [ragged_of(x) for x in parts]
    if not all(isinstance(x, Graph) for x in parts):
        return Ragged(_filled([x.values for x in ragged], 0), torch.cat([x.extent for x in ragged]))
    edges = _filled([x.edges for x in parts if isinstance(x, Graph)], -1)
    return Graph(_filled([x.values for x in ragged], 0), torch.cat([x.extent for x in ragged]), edges)


def ragged_of(x: Input) -> Ragged | Graph:
    """A batch with the size of each sample said; channels (the second axis of all but texts and rows) have none."""
    if not isinstance(x, Tensor):
        return x
    size = x.shape[2:] if x.ndim > 2 else x.shape[1:]
    return Ragged(x, torch.tensor(size, device=x.device).expand(len(x), -1))


def rows(x: Input, chosen: Bool[Tensor, " b"]) -> Input:
    """The chosen samples of a batch."""
    if isinstance(x, Tensor):
        return x[chosen]
    if isinstance(x, Graph):
        return Graph(x.values[chosen], x.extent[chosen], x.edges[chosen])
    return Ragged(x.values[chosen], x.extent[chosen])


def blank(x: Input, kept: Bool[Tensor, " b"]) -> Input:
    """The batch with zeros for the values of all but the samples kept; sizes and edges stay."""
    values = x if isinstance(x, Tensor) else x.values
    values = torch.where(kept.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))
    return values if isinstance(x, Tensor) else replace(x, values=values)


def packed(values: Shaped[Tensor, "b n"], kept: Bool[Tensor, "b n"], most: int) -> Ragged:
    """The kept values of each row, in their order and side by side; no row keeps more than `most`. What is beyond is zero."""
    extent = kept.sum(1, keepdim=True)
    values = values.gather(1, (~kept).int().argsort(dim=1, stable=True))[:, :most]
    if values.device.type == "cpu":  # elsewhere asking for the longest would make the device wait
        values = values[:, : int(extent.max())]
    return Ragged(values * (torch.arange(values.shape[1], device=values.device) < extent), extent)


def _filled(parts: Sequence[Tensor], value: int) -> Tensor:
    most = [max(sizes) for sizes in zip(*(x.shape[1:] for x in parts), strict=True)]
    out = parts[0].new_full((sum(map(len, parts)), *most), value)
    at = 0
    for x in parts:
        out[(slice(at, at + len(x)), *(slice(n) for n in x.shape[1:]))] = x
        at += len(x)
    return out
