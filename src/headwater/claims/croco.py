"""CroCo: what cannot be known from a picture alone is found in a second view of the same scene."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from headwater.api.recipe import Recipe
from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import parts, recipe, trained
from headwater.core.rng import Rng
from headwater.core.types import Step
from headwater.core.verbs import Method
from headwater.data.array import Memory
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.engine.optimise import AdamW
from headwater.methods.reconstruct.croco import CroCo
from headwater.parts.crossdecoder import CrossAttention
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import RandomMask
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import CentreCrop

PAIRS, SIDE, PATCH = 4000, 16, 4
STEPS = 600
TRUNK = TransformerConfig(dim=64, depth=2, heads=4)


def noise(seed: int) -> Memory:
    """Squares of two pixels of independent grey, so that no patch tells anything of another; to the right the same picture
    rolled by a patch up or down, left or right, or not."""
    draw = np.random.default_rng((23, seed))
    first = draw.normal(size=(PAIRS, 1, SIDE // 2, SIDE // 2)).repeat(2, 2).repeat(2, 3)
    moves = draw.integers(-1, 2, (PAIRS, 2)) * PATCH
    second = np.stack([np.roll(x, move, (1, 2)) for x, move in zip(first, moves, strict=True)])
    pairs = torch.from_numpy(np.concatenate([first, second], 3).astype(np.float32))
    return Memory("noise and where it moved", {"image": pairs})


class Silent(CrossAttention):
    """Says the same whatever stands in the other view."""

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.out(torch.zeros_like(x))
        return out


def silenced(method: Method) -> Method:
    for part in method.modules():
        if isinstance(part, CrossAttention):
            part.__class__ = Silent
    return method


def small(pool: Source) -> Recipe:
    made = recipe(
        "croco",
        pool,
        steps=STEPS,
        batch_size=32,
        side_by_side=True,
        view=CentreCrop(SIDE, 1.0),
        mask=RandomMask(0.75),
        decoder=TRUNK,
    )
    tokenizer = GridTokenizerConfig(modality="image", channels=1, patch=(PATCH, PATCH))
    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK)
    return replace(made, encoder={"image": encoder}, fit=replace(made.fit, optimiser=AdamW(rate=2e-3)))


def measure(seed: int, looks: bool = True) -> Pair:
    """The error on pairs never seen, and that of knowing each patch's mean and nothing else."""
    pool, test = parts(noise(seed), seed)
    method = trained("croco", pool, seed, small(pool), (lambda method: method) if looks else silenced)
    assert isinstance(method, CroCo)
    whole = next(iter(Loader(test, len(test)).ordered(range(len(test)))))[1]
    n = PATCH**2
    with torch.inference_mode():
        return Pair(float(method(whole, Step(Rng(seed))).value), (n - 1) / n)


CLAIM = Claim(
    paper="Completing a picture with the help of a second view of the same scene teaches more of its depth and shape than "
    "completing it alone: as a beginning it beats MAE and MultiMAE on depth and several other tasks of geometry.",
    claim="Of pictures of independent grey squares, whose hidden patches nothing seen tells of, what is hidden is restored "
    "better than can be known without the second view, the same picture rolled by a patch or not. Weaker than the paper:"
    " these are no scenes, the views are moved and nothing else, and no task of geometry is learned.",
    data="noise of 16 x 16 pixels and where it moved",
    metric="squared error on hidden patches of held-out pairs, each standardised",
    direction="lower",
    baseline="all that can be known without the second view: each patch's mean",
    least=0.03,  # the mean of the nine places it may have moved to would leave 0.104 less: which one it is takes longer to learn
    measure=measure,
    without="looking at the second view: cross-attention says the same whatever stands there",
    ablated=lambda seed: measure(seed, looks=False),
)
