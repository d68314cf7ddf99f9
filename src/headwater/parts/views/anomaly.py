"""Pictures that are nearly those of a task, and pictures that are none of it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.rng import Rng
from headwater.parts.views.colour import luma


def one_of_three(x: Float[Tensor, "b c h w"], rng: Rng, strength: float = 0.2) -> Float[Tensor, "b c h w"]:
    """Each picture with its brightness, its contrast or its saturation times U(1 - strength, 1 + strength)."""
    which = rng.randint(3, len(x))[:, None, None, None]
    factor = rng.uniform(1 - strength, 1 + strength, len(x), 1, 1, 1).to(x)
    grey = luma(x) if x.shape[1] == 3 else x.mean(1, keepdim=True)
    about = torch.where(
        which == 0, torch.zeros_like(grey), torch.where(which == 1, grey.mean((2, 3), keepdim=True), grey)
    )
    return torch.lerp(about, x, factor)


def pink(shape: Sequence[int], rng: Rng) -> Float[Tensor, "b c h w"]:
    """Noise whose amplitude falls with the inverse of the frequency, as that of natural images does, each picture with mean
    0 and deviation 1; its channels are correlated."""
    b, c, h, w = shape
    noise = 0.5 * rng.randn(b, c, h, w) + rng.randn(b, 1, h, w)
    fy, fx = torch.fft.fftfreq(h, device=noise.device)[:, None], torch.fft.rfftfreq(w, device=noise.device)[None]
    falls = 1 / (fy.square() + fx.square()).sqrt().clamp(min=1 / max(h, w))
    made = torch.fft.irfft2(torch.fft.rfft2(noise) * falls, s=(h, w))
    return (made - made.mean((1, 2, 3), keepdim=True)) / made.std((1, 2, 3), keepdim=True)
