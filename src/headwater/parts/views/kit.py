"""The views that suit a kind of data, by the part they play in a method."""

from dataclasses import dataclass

from headwater.parts.views.audio import BandStop, Loudness, Playback
from headwater.parts.views.block import BoxCrop, EveryFrame
from headwater.parts.views.colour import Blur, Colour, Grey
from headwater.parts.views.compose import Chain, View
from headwater.parts.views.graph import Thin
from headwater.parts.views.image import Affine, Crop, Resize
from headwater.parts.views.joint import JointCrop, JointScale
from headwater.parts.views.points import Move, Part
from headwater.parts.views.recipes import dino_views, grey_view, simclr_view
from headwater.parts.views.series import Corrupt, Jitter, Scale, Shift, Warp
from headwater.parts.views.text import Excerpt


@dataclass(frozen=True, kw_only=True)
class ViewKit:
    """weak     keeps nearly everything: for methods whose own mask is the corruption
    strong   two of these should still be recognised as the same sample
    large    as `strong` with most of the sample, and `small` with a part of it: for multi-crop
    joint    of pictures: carries along the boxes and masks that are marked on them
    """

    weak: View
    strong: View
    large: View
    small: View
    joint: JointCrop | JointScale | None = None


def pictures(size: int, channels: int, own_unit: bool = False) -> ViewKit:
    """Pictures of any size: small or multispectral ones gently, large photographs as SimCLR and DINO do."""
    if own_unit:
        return rasters(size)
    if size <= 64 or channels != 3:
        return small_pictures(size, channels)
    crops = dino_views(size, max(32, size * 3 // 7 // 16 * 16))
    assert isinstance(crops.large, tuple)
    return ViewKit(
        weak=Crop(size, (0.2, 1.0)),
        strong=simclr_view(size),
        large=crops.large[0],
        small=crops.small,
        joint=JointScale(size),
    )


def small_pictures(size: int, channels: int) -> ViewKit:
    """Pictures up to 64 pixels. Grey ones (writing, scans) have an up and a left: they are tilted, never mirrored."""
    if channels == 1:
        strong = grey_view(size)
        return ViewKit(
            weak=Chain(Resize(size), Affine(degrees=5.0, translate=0.05)),
            strong=strong,
            large=strong,
            small=strong,
            joint=JointCrop(size, (0.6, 1.0), flip=0.0),
        )
    colour: tuple[View, ...] = (
        (Colour(0.4, 0.4, 0.4, 0.1, p=0.8), Grey(0.2)) if channels == 3 else (Colour(0.4, 0.4, p=0.8),)
    )
    return ViewKit(
        weak=Crop(size, (0.6, 1.0)),
        strong=Chain(Crop(size, (0.2, 1.0)), *colour, Blur(p=0.2, kernel=3)),
        large=Chain(Crop(size, (0.4, 1.0)), *colour, Blur(p=0.2, kernel=3)),
        small=Chain(Crop(size, (0.1, 0.4)), *colour),
        joint=JointCrop(size, (0.6, 1.0)),
    )


def rasters(size: int) -> ViewKit:
    """Pictures whose values leave [0, 1], as those of scanners and of signed or real rasters: the level of each band
    varies in units of its own deviation, and nothing is clamped."""

    def view(low: float, high: float) -> Chain:
        return Chain(Crop(size, (low, high)), Shift(0.2, relative=True), Jitter(0.1, relative=True))

    return ViewKit(
        weak=Crop(size, (0.6, 1.0)),
        strong=view(0.2, 1.0),
        large=view(0.4, 1.0),
        small=view(0.1, 0.4),
        joint=JointCrop(size, (0.6, 1.0)),
    )


def series(length: int) -> ViewKit:
    if not length:  # of unequal lengths: what comes out may differ in length too
        parts = [
            Chain(Playback(s, (0.8, 1.25)), Scale(0.3), Jitter(0.1, relative=True)) for s in ((0.6, 1.0), (0.3, 0.6))
        ]
        return ViewKit(weak=Jitter(0.02, relative=True), strong=parts[0], large=parts[0], small=parts[1])
    strong = Chain(Scale(0.3), Warp(0.2), Shift(0.2, relative=True), Jitter(0.1, relative=True))
    return ViewKit(weak=Jitter(0.02, relative=True), strong=strong, large=strong, small=strong)


def video(channels: int, size: tuple[int, int, int]) -> ViewKit:
    """Clips: the same box and colours in every frame, and a stretch of time; never played backwards."""
    colour: tuple[View, ...] = (
        (EveryFrame(Colour(0.4, 0.4, 0.4, 0.1, p=0.8)), EveryFrame(Grey(0.2)))
        if channels == 3
        else (EveryFrame(Colour(0.4, 0.4, p=0.8)),)
    )

    def box(time: float, side: float) -> BoxCrop:
        return BoxCrop(size, ((time, 1.0), (side, 1.0), (side, 1.0)))

    return ViewKit(
        weak=box(1.0, 0.8),
        strong=Chain(box(0.6, 0.5), *colour),
        large=Chain(box(0.7, 0.7), *colour),
        small=Chain(BoxCrop(size, ((0.4, 0.7), (0.4, 0.7), (0.4, 0.7))), *colour),
    )


def volume(size: tuple[int, int, int]) -> ViewKit:
    """Volumes: boxes, mirror images, and intensities scaled, shifted and noisy in units of their own deviation."""

    def view(low: float, high: float) -> Chain:
        boxes = BoxCrop(size, ((low, high),) * 3, flip=(0.5, 0.5, 0.5))
        return Chain(boxes, Scale(0.2), Shift(0.2, relative=True), Jitter(0.1, relative=True))

    return ViewKit(
        weak=BoxCrop(size, ((0.8, 1.0),) * 3), strong=view(0.6, 1.0), large=view(0.7, 1.0), small=view(0.4, 0.7)
    )


def table() -> ViewKit:
    """A table has no geometry: a share of its cells is swapped with those of other rows (SCARF)."""
    strong = Corrupt(0.4)
    return ViewKit(weak=Corrupt(0.1), strong=strong, large=strong, small=strong)


def text() -> ViewKit:
    strong = Excerpt((0.5, 1.0), drop=0.1)
    return ViewKit(weak=Excerpt((0.9, 1.0)), strong=strong, large=strong, small=Excerpt((0.2, 0.5), drop=0.1))


def points() -> ViewKit:
    """Clouds: turned, scaled, noisy, and a part of them."""
    turned = Move("any", (0.8, 1.25), (0.9, 1.1), 0.01)
    return ViewKit(
        weak=Move("z", (0.9, 1.1)),
        strong=Chain(Part((0.6, 1.0)), turned),
        large=Chain(Part((0.7, 1.0)), turned),
        small=Chain(Part((0.4, 0.7)), turned),
    )


def graph() -> ViewKit:
    strong = Thin(0.15, 0.1, 0.1)
    return ViewKit(weak=Thin(0.0, 0.02, 0.0), strong=strong, large=strong, small=Thin(0.4, 0.1, 0.1))


def audio(rate: int) -> ViewKit:
    """Sounds: stretches of them, somewhat faster or slower, louder or softer, with noise, silence and a band left out."""

    def view(low: float, high: float) -> Chain:
        return Chain(Playback((low, high), (0.8, 1.25)), BandStop(rate), Loudness(silence=0.15))

    return ViewKit(
        weak=Loudness(gain=3.0, noise=0.02), strong=view(0.6, 1.0), large=view(0.7, 1.0), small=view(0.3, 0.6)
    )
