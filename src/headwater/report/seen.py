"""Samples of any kind as something to look at: pictures [n c h w] in [0, 1], or series [n c t] to plot."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwater.core.types import Graph, Input, Ragged

SIDE = 96  # pixels of a drawn cloud, and frequencies of a drawn sound
FRAMES = 4  # frames of a clip, slices of a volume


def seen(modality: str, x: Input) -> Tensor | None:
    """Pictures as they are, clips as some frames, volumes as some slices, sounds as spectrograms (low notes at the
    bottom), clouds from the side with what is near brighter, graphs as who is linked to whom, rows as cells from low to
    high. None for what is read and not looked at: texts."""
    if modality in ("image", "series"):
        values = x if isinstance(x, Tensor) else x.values
        return values if values.is_floating_point() else values / 255
    draw = DRAWN.get(modality)
    return None if draw is None else draw(x)


def _clip(x: Input) -> Float[Tensor, "n c h w"]:
    """[n c t h w] -> frames from the first to the last, side by side."""
    values = _padded(x)
    values = values if values.is_floating_point() else values / 255
    at = torch.linspace(0, values.shape[2] - 1, min(FRAMES, values.shape[2])).long()
    return torch.cat([values[:, :, t] for t in at.tolist()], 3)


def _volume(x: Input) -> Float[Tensor, "n c h w"]:
    """[n c d h w] -> slices away from the two ends, side by side, from the lowest value of each volume to its highest."""
    values = _padded(x).float()
    at = torch.linspace(0, values.shape[2] - 1, FRAMES + 2).long()[1:-1]
    return _stretched(torch.cat([values[:, :, t] for t in at.tolist()], 3))


def _sound(x: Input) -> Float[Tensor, "n 1 h w"]:
    """[n c t] -> the power in decibels, from 60 below the loudest up, of SIDE bands of equal width."""
    wave = _padded(x).float().mean(1)
    window = 4 * SIDE
    wave = F.pad(wave, (0, max(0, window - wave.shape[1])))
    hop = max(window // 4, wave.shape[1] // (2 * SIDE))
    spectrum = torch.stft(wave, window, hop, window=torch.hann_window(window), center=False, return_complex=True)
    power = spectrum.abs().square()[:, : 2 * SIDE].unflatten(1, (SIDE, 2)).mean(2)
    decibels = 10 * power.clamp(min=1e-12).log10()
    top = decibels.amax((1, 2), keepdim=True)
    return ((decibels - top) / 60 + 1).clamp(0, 1).flip(1)[:, None]


def _cloud(x: Input) -> Float[Tensor, "n 1 h w"]:
    """[n c p], x y z first, seen along y."""
    places = _padded(x)[:, :3].float()
    real = torch.arange(places.shape[2]) < x.extent[:, -1:] if isinstance(x, Ragged) else None
    held = places if real is None else places.masked_fill(~real[:, None], torch.nan)
    low = held.nan_to_num(torch.inf).amin(2, keepdim=True)
    high = held.nan_to_num(-torch.inf).amax(2, keepdim=True)
    span = (high - low).amax(1, keepdim=True).clamp(min=1e-6)
    unit = (places - (low + high) / 2) / span + 0.5
    column, row = ((unit[:, axis] * (SIDE - 1)).round().long().clamp(0, SIDE - 1) for axis in (0, 2))
    light = 1 - 0.7 * unit[:, 1]
    light = light if real is None else light * real
    out = torch.zeros(len(places), SIDE * SIDE)
    out.scatter_reduce_(1, (SIDE - 1 - row) * SIDE + column, light, "amax")
    return out.view(-1, 1, SIDE, SIDE)


def _graph(x: Input) -> Float[Tensor, "n 1 h w"]:
    """A white square where two nodes are linked."""
    assert isinstance(x, Graph)
    n = x.values.shape[2]
    real = (x.edges >= 0).all(-1)
    at = (x.edges[..., 0] * n + x.edges[..., 1]).clamp(min=0)
    return torch.zeros(len(x), n * n).scatter_reduce_(1, at, real.float(), "amax").view(-1, 1, n, n)


def _row(x: Input) -> Float[Tensor, "n 1 h w"]:
    """[n columns] -> one cell per column, by its rank among the rows; a missing cell is black."""
    values = _padded(x).float()
    rank = (values[:, None] > values[None]).float().sum(1) / max(1, len(values) - 1)
    cells = (0.15 + 0.85 * rank).masked_fill(values.isnan(), 0)
    return cells[:, None, None].expand(-1, 1, max(1, values.shape[1] // 4), -1)


DRAWN = {"video": _clip, "volume": _volume, "audio": _sound, "points": _cloud, "graph": _graph, "table": _row}


def _padded(x: Input) -> Tensor:
    return x if isinstance(x, Tensor) else x.values


def _stretched(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    flat = x.nan_to_num(0).flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    shape = (-1, *[1] * (x.ndim - 1))
    return (x.nan_to_num(0) - low.view(shape)) / (high - low).clamp(min=1e-6).view(shape)
