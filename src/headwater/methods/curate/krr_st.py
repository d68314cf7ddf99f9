"""A few made-up pictures with target vectors teach a small network what a large unlabelled set taught a teacher.

corrupt    nothing: the samples are learned as they are, so that the inner problem has no randomness
encode     the samples and a batch of real ones by a network out of a pool of half-trained ones
predict    the vectors of the real batch, by kernel ridge regression on the samples, in closed form
target     what the teacher says of the real batch; the gradient goes to the samples and to their vectors

`curate` makes the samples. `pretrain` regresses their vectors on them, without views, and drops the linear head afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, only
from headwater.parts.kernel_ridge import outer
from headwater.parts.netpool import NetPool, Student, descend, seeded
from headwater.parts.views import CentreCrop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Self-Supervised Dataset Distillation for Transfer Learning",
    year=2023,
    arxiv="2310.06511",
    differs="the teacher is any encoder, not a ResNet-18 trained by Barlow Twins; its vectors are standardised for the search; "
    "the ridge is solved in float64; a network that is replaced starts its count anew, as written, where the "
    "authors' code does not; small sets take QUICK; pre-training is by AdamW with cosine decay at the rate of all methods, not "
    "SGD at 0.1, and of any encoder. Transfer is not claimed. On the digits (benchmarks/distilled.py, 3 seeds, linear probe at 1 "
    "and 10 labels per class) 20 distilled pairs gave 67 and 85 %, as many real ones 63 and 84; 100 gave 77 and 90, and as many "
    "real ones more: 80 and 91; untrained 40 and 74.",
)


@dataclass(frozen=True)
class Distillation:
    """
    widths    of the layers of the networks; for pictures of 64 pixels the paper has (64, 128, 256, 512)
    pool      how many networks, each replaced after `limit` steps of its own at `inner_rate`
    steps     of the search, on batches of `batch` real samples; `rate` falls to a thousandth
    regular   the ridge, as a share of the trace of the kernel
    augment   real samples go through the mild view of their kind first, and the teacher sees the same
    """

    widths: tuple[int, ...] = (128, 256, 512)
    pool: int = 10
    limit: int = 1000
    inner_rate: float = 0.1
    steps: int = 160_000
    batch: int = 1024
    rate: float = 1e-4
    regular: float = 1e-6
    augment: bool = True

    def __post_init__(self) -> None:
        if min(self.pool, self.limit, self.steps, self.batch, *self.widths) < 1 or not self.widths:
            raise RequestError(f"krr-st needs layers, networks, steps and a batch of 1 or more; got {self}.")
        if min(self.rate, self.inner_rate, self.regular) <= 0:
            raise RequestError(f"krr-st needs rates and a ridge above 0; got {self}.")

    def distil(
        self,
        x: Float[Tensor, "m ..."],
        y: Float[Tensor, "m d"],
        batches: Callable[[int], tuple[Float[Tensor, "b ..."], Float[Tensor, "b d"]]],
        rng: Rng,
        images: bool = True,
        tell: Callable[[int, Tensor], None] = lambda step, loss: None,
    ) -> tuple[Float[Tensor, "m ..."], Float[Tensor, "m d"]]:
        """Samples and vectors learned from those given; with `images` False the samples stay and the vectors alone learn."""
        x, y = x.clone().requires_grad_(images), y.clone().requires_grad_()
        with seeded(rng):
            pool = NetPool(lambda: self.fresh(x, y), self.pool, self.limit, x, y, rng, self.inner_rate)
            picked = 0

            def loss(step: int) -> Tensor:
                nonlocal picked
                picked = pool.pick()
                value = outer(pool.lessons[picked].net, x, y, *batches(step), self.regular)
                tell(step, value.detach())
                return value

            leaves = [x, y] if images else [y]
            descend(leaves, loss, lambda step: pool.advance(picked, x, y), self.steps, self.rate)
        return x.detach(), y.detach()

    def fresh(self, x: Float[Tensor, "m ..."], y: Float[Tensor, "m d"]) -> Student:
        return Student(x.shape[1:], self.widths, y.shape[1]).to(x.device)

    def error(
        self,
        x: Float[Tensor, "m ..."],
        y: Float[Tensor, "m d"],
        real: Float[Tensor, "b ..."],
        truth: Float[Tensor, "b d"],
        rng: Rng,
        nets: int = 5,
    ) -> float:
        """The error on real samples with fresh networks that no pool has seen, as a share of the variance of the truth."""
        with seeded(rng), torch.no_grad():
            errors = [outer(self.fresh(x, y), x, y, real, truth, self.regular) for _ in range(nets)]
        return float(torch.stack(errors).mean() / truth.var(0, correction=0).mean())


QUICK = Distillation(widths=(64, 64), pool=5, limit=20, inner_rate=0.02, steps=400, batch=256, rate=1e-2, regular=1e-3)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Of pre-training. `view`: the whole picture, nothing random; `targets`: the width of the vectors, found in the data."""

    view: View = CentreCrop(224, part=1.0)
    targets: int = 512

    def viewed(self, kit: ViewKit) -> "Config":
        return self if kit.joint is None else replace(self, view=CentreCrop(kit.joint.size, part=1.0))

    def build(self, encoders: Mapping[str, Encoder]) -> "KRRST":
        return KRRST(self, only(encoders, "KRRST"))


SMALL = Config()
TINY = Config(view=CentreCrop(16, part=1.0), targets=5)


class KRRST(Method):
    modalities = ("image",)
    regresses = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = nn.Linear(encoder.dim, config.targets)

    def loss(self, batch: Batch, step: Step) -> Loss:
        if batch.targets is None:
            raise RequestError("KRRST learns from target vectors, and these samples have none.")
        said = self.head(self.encoder(self.config.view(batch.x[self.encoder.modality], step.rng)).pooled)
        chance = step.gather(batch.targets).var(0, correction=0).mean()
        return Loss(F.mse_loss(said, batch.targets), metrics={"chance": chance})
