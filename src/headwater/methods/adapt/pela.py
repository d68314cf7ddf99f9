"""PELA: a smaller encoder from a large one, by low-rank factors that are mended on unlabelled data before any task.

    before    y = W x + b
    after     y = R L x + b      from the largest singular values of W, k of them: a c-th of the weights

First every block of the small encoder learns to say what that of the large one says, its products R L staying near W. Then
all of it is fine-tuned as any encoder is; the large one is needed no more, and what is saved is the small one.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.frozen import Frozen
from headwater.parts.layers import layers
from headwater.parts.lowrank import OMIT, Factored, FactoredConfig, factorise
from headwater.parts.surgery import Tuning

PAPER = Paper(
    title="PELA: Learning Parameter-Efficient Models with Low-Rank Approximation",
    year=2023,
    arxiv="2310.10700",
    differs="The stage in between learns from the features alone, without labels or another task, and from the data of the task. "
    "The weights of both its terms are 1, where the authors' image scripts leave the second out. A fused map of queries, keys "
    "and values is factorised as one. What is omitted is named by the words of our encoders.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`ratio` is c; `alpha` weighs the features, `gamma` how far products may stray, whose largest entry is drawn to `stray`;
    maps with a word of `omit` in their names stay whole."""

    ratio: float = 2.0
    alpha: float = 1.0
    gamma: float = 1.0
    stray: float = 1e-3
    omit: tuple[str, ...] = OMIT

    def __post_init__(self) -> None:
        if not self.ratio > 1:
            raise RequestError(f"PELA: ratio must be above 1, or nothing is saved; got {self.ratio}.")

    def build(self) -> "PELA":
        return PELA(self)


SMALL = Config()
TINY = Config()


class Mended(Method):
    """A factorised encoder learns to say in every block what the whole one says."""

    def __init__(self, config: Config, base: Encoder, small: Encoder, view: Callable[[Input, Rng], Input]) -> None:
        super().__init__()
        self.config, self.encoder, self.view, self.whole = config, small, view, Frozen(base)
        self.blocks = [*layers(base)]
        factors = {n: m for n, m in small.named_modules() if isinstance(m, Factored)}
        self.pairs = [(m, self.whole.encoder.get_parameter(f"{n}.weight")) for n, m in factors.items()]

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.view(batch.x[self.encoder.modality], step.rng)
        said, told = (spoken(e, x, self.blocks) for e in (self.encoder, self.whole.encoder))
        alike = torch.stack([F.mse_loss(a, b.detach()) for a, b in zip(said, told, strict=True)]).mean()
        far = strayed(self.pairs, self.config.stray)
        return Loss(
            self.config.alpha * alike + self.config.gamma * far, {"features": alike.detach(), "stray": far.detach()}
        )


class PELA(Tuning):
    rate = 5e-4  # all weights train

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """A smaller one, in place. Raises RequestError when it has no linear map to factorise."""
        return factorise(encoder, self.config.ratio, self.config.omit, "PELA").requires_grad_(True)

    def beforehand(self, base: Encoder, adapted: Encoder, view: Callable[[Input, Rng], Input]) -> Method:
        return Mended(self.config, base, adapted, view)

    def architecture(self, base: Any) -> FactoredConfig:
        return FactoredConfig(of=base, ratio=self.config.ratio, omit=self.config.omit)


def strayed(pairs: Sequence[tuple[Factored, Tensor]], stray: float) -> Tensor:
    """How far the largest deviation of a product from the weight it came from is off `stray`, squared, mean over maps."""
    return torch.stack([((f.product - w.detach()).abs().max() - stray).square() for f, w in pairs]).mean()


def spoken(encoder: Encoder, x: Input, blocks: Sequence[str]) -> list[Tensor]:
    """What each block says; of an encoder without blocks, its tokens."""
    said: list[Tensor] = []

    def listen(module: nn.Module, given: Any, out: Any) -> None:
        said.append(out if isinstance(out, Tensor) else out[0])

    with ExitStack() as listening:
        for name in blocks:
            listening.callback(encoder.get_submodule(name).register_forward_hook(listen).remove)
        features = encoder(x)
    return said or [features.tokens]
