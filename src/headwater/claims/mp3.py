"""MP3: where a patch of a digit stands follows from the others, more than from itself."""

import functools
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.api.recipe import Recipe
from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import parts, recipe, trained
from headwater.core.rng import Rng
from headwater.core.types import Input
from headwater.core.verbs import Method
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.methods.pretext.mp3 import MP3
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.views import Resize

STEPS = 250


class Alone(MP3):
    """Each patch sees itself alone."""

    def logits(self, x: Input, context: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n n"]:
        tokens = self.encoder.embed(x).x
        said: Tensor = self.place(self.norm(self.encoder.trunk(tokens.flatten(0, 1)[:, None])))
        return said.view(*tokens.shape[:2], -1)[..., : tokens.shape[1]]


def small(pool: Source) -> Recipe:
    made = recipe("mp3", pool, steps=STEPS, batch_size=96, ratio=0.0)
    encoder = made.encoder["image"]
    assert isinstance(encoder, TokenEncoderConfig)
    trunk = replace(encoder.transformer, dim=64, depth=2, heads=4)
    return replace(made, encoder={"image": replace(encoder, trunk=trunk)})


def accuracy(seed: int, alone: bool, start: int = 0) -> float:
    """Of the positions of all patches of held-out digits, in %, when all may be looked at."""
    pool, test = parts(open_data("digits"), seed)

    def change(method: Method) -> Method:
        assert isinstance(method, MP3)
        return Alone(method.config, method.encoder) if alone else method

    method = trained("mp3", pool, seed + start, small(pool), change)
    assert isinstance(method, MP3)
    _, batch = next(iter(Loader(test, len(test)).ordered(range(len(test)))))
    with torch.inference_mode():
        said = method.logits(Resize(8)(batch.x["image"], Rng(0))).argmax(2)
    return 100 * float((said == torch.arange(said.shape[1])).float().mean())


@functools.cache
def without(seed: int) -> float:
    return accuracy(seed, alone=True)


CLAIM = Claim(
    paper="Trained to tell positions of patches, a ViT-B gains over strong supervised baselines and compares with modern "
    "self-supervised methods; transformers without positions beat those with them.",
    claim="Of the patches of held-out digits, a transformer that sees them all tells more positions than one that sees each "
    "alone; many patches are like those of other places, so that 100 % cannot be had. All patches may be looked at while "
    "learning too. Weaker than the paper, whose gains need scale.",
    data="digits",
    metric="accuracy of positions of held-out patches, % (chance: 6.25)",
    direction="higher",
    baseline="the same network after the same training, each patch by itself",
    least=3.0,
    measure=lambda seed: Pair(accuracy(seed, alone=False), without(seed)),
    without="the context: each patch sees itself alone, in a network that begins with other weights",
    ablated=lambda seed: Pair(accuracy(seed, alone=True, start=100), without(seed)),
)
