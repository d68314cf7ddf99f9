"""Groups of neighbouring points: farthest-point sampling, nearest neighbours, and an order along a curve."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def farthest(points: Float[Tensor, "b n 3"], k: int, valid: Bool[Tensor, "b n"] | None = None) -> Int[Tensor, "b k"]:
    """k points, each the farthest from those before it (Eldar et al., 1997), the first the farthest from the mean.

    Which point comes first does not depend on the order in which points are stored. Points that are not valid are never
    chosen; a cloud with fewer than k valid ones repeats some.
    """
    b, n, _ = points.shape
    real = torch.ones(b, n, dtype=torch.bool, device=points.device) if valid is None else valid
    weight = real[..., None].to(points.dtype)
    centre = (points * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    nearest = (points - centre).square().sum(-1).masked_fill(~real, -1.0)
    chosen = []
    for i in range(k):
        at = nearest.argmax(1)
        chosen.append(at)
        distance = (points - points[torch.arange(b, device=points.device), at][:, None]).square().sum(-1)
        nearest = torch.minimum(nearest, distance) if i else distance.masked_fill(~real, -1.0)
    return torch.stack(chosen, 1)


def nearest(
    centres: Float[Tensor, "b m 3"],
    points: Float[Tensor, "b n 3"],
    k: int,
    valid: Bool[Tensor, "b n"] | None = None,
) -> Int[Tensor, "b m k"]:
    """The k points nearest to each centre, nearest first."""
    distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    if valid is not None:
        distance = distance.masked_fill(~valid[:, None], torch.inf)
    return distance.topk(k, dim=2, largest=False).indices


def along_a_curve(points: Float[Tensor, "b n 3"], bits: int = 10) -> Int[Tensor, "b n"]:
    """The order of points along Morton's curve through their bounding box: neighbours in it are neighbours in space."""
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    cell = ((points - low) / (high - low).clamp(min=1e-9) * (2**bits - 1)).round().long()
    code = torch.zeros_like(cell[..., 0])
    for bit in range(bits):
        for axis in range(3):
            code |= ((cell[..., axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(1)
