"""What happens to data on their way from the world: noise, blur, loss. A few ways per modality, of one strength each."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Input, Ragged
from headwater.parts.views.audio import Loudness
from headwater.parts.views.colour import Blur, Noise
from headwater.parts.views.compose import floats
from headwater.parts.views.graph import Thin
from headwater.parts.views.points import Move, Part
from headwater.parts.views.series import Corrupt, Jitter, Shift
from headwater.parts.views.text import Excerpt

Corruption = Callable[[Input, Rng], Input]


def _alone(view: Corruption) -> Corruption:
    """Pictures of unequal sizes one by one, so that what fills the batch up does not bleed into them."""

    def each(x: Input, rng: Rng) -> Input:
        if not isinstance(x, Ragged):
            assert isinstance(x, Tensor)
            return view(floats(x), rng)
        out = floats(x.values).clone()
        for i, (h, w) in enumerate(x.extent.tolist()):
            made = view(out[i : i + 1, :, :h, :w], rng)
            assert isinstance(made, Tensor)
            out[i, :, :h, :w] = made[0]
        return Ragged(out, x.extent)

    return each


def _floats(view: Corruption) -> Corruption:
    def each(x: Input, rng: Rng) -> Input:
        if isinstance(x, Ragged):
            return view(Ragged(floats(x.values), x.extent), rng)
        assert isinstance(x, Tensor)
        return view(floats(x), rng)

    return each


def _frames(view: Corruption) -> Corruption:
    """A clip [b c t h w] frame by frame."""

    def each(x: Input, rng: Rng) -> Input:
        assert isinstance(x, Tensor)
        made = view(floats(x).transpose(1, 2).flatten(0, 1), rng)
        assert isinstance(made, Tensor)
        return made.unflatten(0, (len(x), -1)).transpose(1, 2)

    return each


def coarse(x: Input, rng: Rng) -> Input:
    """Half of the pixels of each side, brought back to the size that they had."""
    assert isinstance(x, Tensor)
    half = F.avg_pool2d(x, 2, ceil_mode=True)
    return F.interpolate(half, size=x.shape[2:], mode="bilinear", align_corners=False)


def faded(x: Input, rng: Rng) -> Input:
    """Two fifths of the contrast about the mean of each picture."""
    assert isinstance(x, Tensor)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + 0.4 * (x - mean)


def wrong(x: Input, rng: Rng) -> Input:
    """A fifth of the cells of each row taken from another row; of a single row nothing."""
    return x if len(x) < 2 else Corrupt(0.2)(x, rng)


PICTURES: Mapping[str, Corruption] = {
    "noise": _alone(Noise(0.15)),
    "blur": _alone(Blur((1.0, 1.0), p=1.0)),
    "coarse": _alone(coarse),
    "faded": _alone(faded),
}
CORRUPTIONS: Mapping[str, Mapping[str, Corruption]] = {
    "image": PICTURES,
    "video": {"noise": _frames(Noise(0.15)), "blur": _frames(Blur((1.0, 1.0), p=1.0)), "faded": _frames(faded)},
    "volume": {"noise": _floats(Jitter(0.5, relative=True)), "shift": _floats(Shift(0.5, relative=True))},
    "series": {"noise": Jitter(0.5, relative=True), "shift": Shift(0.5, relative=True)},
    "audio": {"noise": Loudness(gain=0.0, noise=1.0), "silence": Loudness(gain=0.0, noise=0.0, silence=0.5)},
    "table": {"wrong cells": wrong},
    "text": {"lost words": Excerpt((1.0, 1.0), drop=0.2), "cut": Excerpt((0.5, 0.5))},
    "points": {"noise": Move("none", (1.0, 1.0), jitter=0.03), "cut": Part((0.6, 0.6))},
    "graph": {"lost edges": Thin(0.0, 0.2, 0.0), "lost nodes": Thin(0.2, 0.0, 0.0)},
}  # by modality


def corruptions(modality: str, own_unit: bool = False) -> Mapping[str, Corruption]:
    """Those that suit the data; with `own_unit`, pictures whose values leave [0, 1], so that nothing may clamp them."""
    if modality == "image" and own_unit:
        return {"noise": _floats(Jitter(0.5, relative=True)), "coarse": PICTURES["coarse"], "faded": PICTURES["faded"]}
    return CORRUPTIONS[modality]
