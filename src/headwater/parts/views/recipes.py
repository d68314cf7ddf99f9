"""The views of well-known methods, as published."""

from headwater.parts.views.colour import Blur, Colour, Grey, Noise, Solarise
from headwater.parts.views.compose import Chain, MultiCrop, Retouch
from headwater.parts.views.image import Affine, Crop, Elastic, Resize


def simclr_view(size: int, strength: float = 1.0) -> Chain:
    """SimCLR (2020), appendix A: crop, colour jitter of the given strength, grey, blur of a tenth of the side."""
    jitter = Colour(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8)
    return Chain(Crop(size), jitter, Grey(0.2), Blur(p=0.5, kernel=_tenth(size)))


def byol_views(size: int) -> tuple[Chain, Chain]:
    """BYOL (2020), appendix B: weaker colours; one view always blurred, the other seldom and sometimes solarised."""

    def one(blur: float, solarise: float) -> Chain:
        return Chain(
            Crop(size, kind="bicubic"), *_weak_colours(), Blur(p=blur, kernel=_tenth(size)), Solarise(p=solarise)
        )

    return one(1.0, 0.0), one(0.1, 0.2)


def dino_views(size: int = 224, small: int = 96, n_small: int = 8, split: float = 0.4) -> MultiCrop:
    """DINO (2021): two large crops, treated as BYOL's two views, and `n_small` of less than `split` of the picture."""

    def one(side: int, scale: tuple[float, float], *last: Retouch) -> Chain:
        return Chain(Crop(side, scale, kind="bicubic"), *_weak_colours(), *last)

    first = one(size, (split, 1.0), Blur(p=1.0))
    second = one(size, (split, 1.0), Blur(p=0.1), Solarise(p=0.2))
    return MultiCrop((first, second), one(small, (0.05, split), Blur(p=0.5)), n_large=2, n_small=n_small)


def grey_view(size: int) -> Chain:
    """For single-channel pictures with an up and a left, such as writing: tilted, moved and bent, never mirrored.

    Chosen by trial on scikit-learn's digits, where the bending is worth two points at one label per class.
    """
    return Chain(
        Resize(size),
        Affine(degrees=20.0, translate=0.12, scale=(0.8, 1.25), shear=15.0),
        Elastic(strength=0.05 * size, smoothness=size / 4),
        Colour(brightness=0.2, contrast=0.3),
        Noise(0.03),
    )


def _weak_colours() -> tuple[Retouch, Retouch]:
    return Colour(0.4, 0.4, 0.2, 0.1, p=0.8), Grey(0.2)


def _tenth(size: int) -> int:
    return 2 * (size // 20) + 1
