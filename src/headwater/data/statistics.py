"""Mean and deviation of the data, per channel or column, and the reading of a sample of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Graph, Sample
from headwater.data.source import Source

SLICE = 16  # items decoded ahead: a few, since one may be a hundred megabytes


def drawn(source: Source, sample: int, seed: int) -> np.ndarray:
    n = len(source)
    if sample >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))


def decoded(source: Source, at: np.ndarray, workers: int) -> Iterator[tuple[int, dict[str, Sample] | Unreadable]]:
    def one(i: int) -> dict[str, Sample] | Unreadable:
        try:
            sample = source.read(i)
            source.annotations(i, sample)  # an item is readable where what is marked on it is
            return sample
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(at), SLICE):
            part = [int(i) for i in at[start : start + SLICE]]
            yield from zip(part, list(pool.map(one, part)), strict=True)  # all of them, so that waiting can be timed


class Moments:
    """Running count, mean and sum of squares per channel, NaN passed over (Chan et al.'s pairwise update)."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.square = (torch.zeros(channels, dtype=torch.float64) for _ in range(3))

    def add(self, x: Tensor) -> Tensor:
        """Takes one sample [c ...]; returns its own standard deviation over all values."""
        flat = x.reshape(x.shape[0], -1)
        if x.dtype == torch.uint8:  # a histogram is exact, and much faster than sums in float64
            scale = torch.arange(256, dtype=torch.float64) / 255
            counts = torch.stack([torch.bincount(row, minlength=256) for row in flat]).double()
            count = counts.sum(1)
            mean = counts @ scale / count.clamp(min=1)
            square = (counts * (scale - mean[:, None]).square()).sum(1)
        else:
            wide, valid = flat.double(), ~flat.isnan()
            count = valid.sum(1)
            mean = torch.where(valid, wide, 0).sum(1) / count.clamp(min=1)
            square = torch.where(valid, wide - mean[:, None], 0).square().sum(1)
        total = self.count + count
        shift = mean - self.mean
        share = count / total.clamp(min=1)
        self.square += square + shift.square() * self.count * share
        self.mean += shift * share
        self.count = total
        return (square.sum() / count.sum().clamp(min=1)).sqrt()

    def std(self) -> Tensor:
        return (self.square / self.count.clamp(min=1)).sqrt()


def plain(sample: Sample) -> Tensor:
    return sample.values[0] if isinstance(sample, Graph) else sample


def statistics(source: Source, sample: int = 1024, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """(mean, std), float32 [c], by modality: per channel of images and series, per column of tables (missing cells
    passed over), on the float scale (uint8 divided by 255). A channel that never changes gets the std 1, so that it can
    be divided by. Text has none. Raises RequestError where channels are mixed or nothing is readable."""
    found: dict[str, Moments] = {}
    for i, item in decoded(source, drawn(source, sample, seed), 2):
        if isinstance(item, Unreadable):
            continue
        for modality, x in item.items():
            if modality == "text":
                continue
            x = plain(x)
            moments = found.setdefault(modality, Moments(x.shape[0]))
            if len(moments.mean) != x.shape[0]:
                raise RequestError(
                    f"Item {source.id(i)} of {source.name} has {x.shape[0]} channels where others have "
                    f"{len(moments.mean)}; normalisation needs one number of channels."
                )
            moments.add(x)
    if not found and "text" not in source.modalities:
        raise RequestError(f"No readable item was found in {source.name}; the doctor lists what is wrong with each.")
    return {m: (f.mean.float(), torch.where(f.std() > 0, f.std(), 1.0).float()) for m, f in found.items()}
