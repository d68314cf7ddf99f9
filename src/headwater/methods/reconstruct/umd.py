"""UMD: one auto-encoder for hidden patches and for noise, so that it learns features as MAE does and can generate.

corrupt   some samples stay clean and lose most patches; the others are noised and lose fewer
encode    the seen patches, told at which time of the noise they are; a clean sample is at time 0
predict   a decoder over seen tokens, mask tokens and the sample's vector says values and noise of every patch
target    the data where a patch is hidden, the noise where a noised one is seen
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper, values
from headwater.parts.diffusion import DDIM, NoiseSchedule
from headwater.parts.dit import DiT, DiTConfig, ModulatedDecoder
from headwater.parts.encoders import TokenEncoder, only_tokens
from headwater.parts.masks import hide
from headwater.parts.positions import sincos
from headwater.parts.tokens import take
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Unified Auto-Encoding with Masked Diffusion",
    year=2024,
    arxiv="2406.17688",
    differs="pixels by each channel's mean and deviation, not in [-1, 1]; large pictures at 224 pixels in patches of 16, not at "
    "64 in patches of 4; places by sines, not learned; clean samples stand between noised ones, not behind them; "
    "AdamW as elsewhere here; fine-tuning with labels for guided generation, the moving average for it, and latents are left "
    "out; samples are drawn with values limited to four deviations.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`clean`: the share of samples without noise; 0 with noised_ratio=0 is DiT, with noised_ratio=0.5 MaskDiT, and 1 is an
    MAE. `clean_ratio`, `noised_ratio`: the share of patches hidden of either kind. `depth`: of the decoder."""

    view: View = Crop(224, (0.8, 1.0))
    schedule: NoiseSchedule = NoiseSchedule()
    clean: float = 0.5
    clean_ratio: float = 0.75
    noised_ratio: float = 0.375
    depth: int = 4

    def __post_init__(self) -> None:
        if not (0 <= self.clean <= 1 and 0 < self.clean_ratio < 1 and 0 <= self.noised_ratio < 1):
            raise RequestError("UMD: clean is a share, clean_ratio lies between 0 and 1, noised_ratio may be 0 too.")

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "UMD":
        encoder = only_tokens(encoders, "UMD")
        if not isinstance(encoder, TokenEncoder) or not isinstance(encoder.trunk, DiT):
            raise RequestError(
                "UMD tells its encoder the time, and needs one that can be told, such as --encoder dit-micro."
            )
        return UMD(self, encoder, encoder.trunk)


SMALL = Config(depth=2)
TINY = Config(view=Crop(16), depth=1)


class UMD(Method):
    tokens = True
    modalities = ("image",)
    begins: ClassVar[Mapping[str, str]] = {"image": "dit-micro"}

    def __init__(self, config: Config, encoder: TokenEncoder, trunk: DiT) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        shape: DiTConfig = replace(trunk.config, depth=config.depth)
        self.decoder = ModulatedDecoder(shape, 2 * encoder.tokenizer.patch_dim)  # values, then noise

    def loss(self, batch: Batch, step: Step) -> Loss:
        c, rng = self.config, step.rng
        x = values(c.view(batch.x[self.encoder.modality], rng))
        clear, grid = self.encoder.tokenizer.patches(x), self.encoder.tokenizer.grid(x)
        b, n, p = clear.shape
        t, noise = rng.randint(c.schedule.steps, b), rng.randn(b, n, p).to(clear.dtype)
        hidden, veiled = self.draw(b, n, c.clean_ratio, rng), self.draw(b, n, c.noised_ratio, rng)
        first, total, metrics = rng.shard * b, clear.new_zeros(()), {}
        clean = [int((first + i + 1) * c.clean) > int((first + i) * c.clean) for i in range(b)]  # int(b * share) of b
        if rows := [i for i in range(b) if clean[i]]:
            mask = Mask(hidden.keep[rows], hidden.drop[rows])
            said, _ = self.rebuild(clear[rows], grid, mask, t.new_zeros(len(rows)))
            metrics["restored"] = wrong(said, clear[rows], mask.drop)
            total = total + metrics["restored"] * len(rows) / b
        if rows := [i for i in range(b) if not clean[i]]:
            mask = Mask(veiled.keep[rows], veiled.drop[rows])
            noised = c.schedule.noised(clear[rows], t[rows], noise[rows])
            said, heard = self.rebuild(noised, grid, mask, t[rows] + 1)
            unseen = mask.drop if mask.drop.shape[1] else mask.keep
            metrics["denoised"] = (wrong(heard, noise[rows], mask.keep) + wrong(said, clear[rows], unseen)) / 2
            total = total + metrics["denoised"] * len(rows) / b
        return Loss(total, {name: value.detach() for name, value in metrics.items()})

    def draw(self, b: int, n: int, ratio: float, rng: Rng) -> Mask:
        return hide(rng.rand(b, n), n - int(n * (1 - ratio) + 1e-9))

    def rebuild(
        self, patches: Float[Tensor, "b n p"], grid: tuple[int, ...], mask: Mask, time: Tensor
    ) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b n p"]]:
        """Values and noise of every patch, from the seen ones of those given. `time` is 0 for clean ones, else t + 1."""
        picture, trunk, time = self.encoder.tokenizer.unpatch(patches, grid), self.encoder.trunk, time.float()
        assert isinstance(trunk, DiT)
        seen, told = self.encoder(picture, keep=mask.keep, time=time), trunk.clock(time)
        place = sincos(self.encoder.tokenizer.places(picture), self.encoder.dim)
        said, heard = self.decoder(seen, mask.keep, place, told).chunk(2, -1)
        return said, heard

    def sample(
        self, b: int, size: tuple[int, int], rng: Rng, sampler: DDIM = DDIM(limit=4.0)
    ) -> Float[Tensor, "b c ..."]:
        """Pictures [h, w] of `size` made from noise alone, as the data have them."""
        tokenizer = self.encoder.tokenizer
        grid = tokenizer.grid(torch.empty(1, 1, *size))
        n = math.prod(grid)
        every = torch.arange(n, device=rng.device).expand(b, -1)
        whole = Mask(every, every[:, :0])

        def noise(x: Tensor, t: Tensor) -> Tensor:
            return self.rebuild(x, grid, whole, t + 1)[1]

        return tokenizer.unpatch(sampler(noise, rng.randn(b, n, tokenizer.patch_dim), self.config.schedule, rng), grid)


def wrong(guess: Float[Tensor, "b n p"], target: Float[Tensor, "b n p"], at: Tensor) -> Float[Tensor, ""]:
    return (take(guess, at) - take(target, at)).square().mean()
