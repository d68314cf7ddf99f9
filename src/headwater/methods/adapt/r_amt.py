"""Regularised mask tuning: no weight changes, some are switched off, and only where what was known agrees.

    before    y = W x + b
    after     y = (B * W) x + b      with B = 1 where M > threshold, M as large as W and above it everywhere at the start

Only M trains, through the threshold as if that were not there, against fixed class vectors. Its gradient is dropped at random
where it conflicts with that of staying close to what the encoder said before. Saved is B, a bit a weight; merged, W has zeros.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.bits import packed, unpacked
from headwater.parts.frozen import Frozen
from headwater.parts.heads import CosineHead
from headwater.parts.surgery import Adapted, Tuning

PAPER = Paper(
    title="Regularized Mask Tuning: Uncovering Hidden Knowledge in Pre-trained Vision-Language Models",
    year=2023,
    arxiv="2307.15049",
    differs="For encoders without a text tower too: the fixed class vectors are the means of the frozen encoder's features of "
    "the labelled data, where the paper has CLIP's texts; features are centred, and cosines scaled by 10, not 100. All attention "
    "maps are masked, without the paper's analysis of layers. Gradients however small agree. Our learning rate and views.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`dropping`: how much of the regularity is at work, from 0 to 1; `penalty` is on the Euclidean norm of each M; `where`
    names linear maps by the last part of their module name, such as `qkv`."""

    where: tuple[str, ...] = ("qkv", "out")
    threshold: float = 5e-3
    start: float = 1e-2
    penalty: float = 1e-4
    dropping: float = 1.0
    scale: float = 10.0

    def __post_init__(self) -> None:
        if not self.start > self.threshold:
            raise RequestError(f"R-AMT: start must be above threshold; got {self.start} and {self.threshold}.")
        if not 0 <= self.dropping <= 1:
            raise RequestError(f"R-AMT: dropping lies between 0 and 1; got {self.dropping}.")

    def build(self) -> "RAMT":
        return RAMT(self)


SMALL = Config()
TINY = Config()


class Masked(Adapted):
    """A linear map some of whose weights are switched off; biases are not."""

    def __init__(self, base: nn.Linear, config: Config) -> None:
        super().__init__()
        self.base, self.config = base, config
        self.mask = nn.Parameter(torch.full_like(base.weight, config.start))

    def on(self) -> Bool[Tensor, "e d"]:
        return self.mask > self.config.threshold

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        through = self.mask - self.mask.detach()  # 0, with the gradient of M
        hard = self.on().to(self.mask) + through
        return F.linear(x, hard * self.base.weight, self.base.bias)

    def merged(self) -> nn.Linear:
        self.base.weight *= self.on()
        return self.base

    def kept(self) -> dict[str, Tensor]:
        return {"mask": packed(self.on())}

    def take(self, saved: Mapping[str, Tensor]) -> None:
        on = unpacked(saved["mask"], self.mask.numel()).view(self.mask.shape).to(self.mask.device)
        self.mask.copy_(on * self.config.start)


class Regularised(Method):
    """Fits the masks of a classifier to labels, held by what the encoder said when all its weights were on."""

    def __init__(self, config: Config, classifier: classify.Classify) -> None:
        super().__init__()
        self.config, self.classifier = config, classifier
        self.before = Frozen(surgery.merge(copy.deepcopy(classifier.encoder)))

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.classifier.seen(batch, step)
        logits, known = (self.classifier.head(e(x).pooled) for e in (self.classifier.encoder, self.before))
        masks = [m.mask for _, m in surgery.adapted(self.classifier) if isinstance(m, Masked)]
        judged = self.classifier.judged(logits, batch, step)
        task = judged.value + self.config.penalty * torch.stack([m.norm() for m in masks]).sum()
        stay = F.cross_entropy(logits, known.softmax(1))
        wanted = torch.autograd.grad(task, masks, retain_graph=True)
        staying = torch.autograd.grad(stay, masks)
        drawn, value = step.rng.everyone(), task.detach()
        for mask, a, b in zip(masks, wanted, staying, strict=True):
            chance = drawn.rand(*mask.shape).to(a)
            value = value + ((mask - mask.detach()) * regular(a, b, chance, self.config.dropping)).sum()  # + 0
        return Loss(value, judged.metrics)


class RAMT(Tuning):
    rate = 4e-4  # a mask can be off after 13 steps; after three, at 2e-3, half go off at once and little may be left
    decay = 0.0  # it would bring every mask below the threshold

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder, changed in place. Raises RequestError when it has no linear map of the names asked for."""
        return surgery.adapt(encoder, self.config.where, lambda base: Masked(base, self.config), "R-AMT")

    def objective(self, method: Method, features: Tensor, labels: Tensor) -> Method:
        assert isinstance(method, classify.Classify)
        method.config = replace(method.config, head="cosine")
        method.head = CosineHead.of_means(features, labels, method.config.classes, self.config.scale).requires_grad_(
            False
        )
        return Regularised(self.config, method)


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """From 0, where b opposes a and is all there is, over 1/2 to 1, where their signs agree."""
    return 0.5 * (1 + a.sign() * (a + b) / (a.abs() + b.abs()).clamp(min=torch.finfo(a.dtype).tiny))


def regular(a: Tensor, b: Tensor, chance: Tensor, dropping: float) -> Tensor:
    """`a`, less the share `dropping` of what is dropped: where agreement with `b` does not exceed `chance` in [0, 1)."""
    return a * (1 - dropping + dropping * (agreement(a, b) > chance))
