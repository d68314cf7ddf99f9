"""A few made-up pictures with target vectors teach a small network what a large unlabelled set taught a teacher.

corrupt    nothing: the samples are learned as they are, so that the inner problem has no randomness
encode     the samples and a batch of real ones by a network out of a pool of half-trained ones
predict    the vectors of the real batch, by kernel ridge regression on the samples, in closed form
target     what the teacher says of the real batch; the gradient goes to the samples and to their vectors
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.verbs import Paper
from headwater.parts.netpool import Lesson, NetPool, Student, descend, seeded

PAPER = Paper(
    title="Self-Supervised Dataset Distillation for Transfer Learning",
    year=2023,
    arxiv="2310.06511",
    differs="the teacher is any encoder, not a ResNet-18 trained by Barlow Twins; its vectors are standardised for the search; "
    "the ridge is solved in float64; a network that is replaced starts its count anew, as written, where the "
    "authors' code does not; small sets take SMALL. `student` pre-trains a network on the pairs in Python; `pretrain --data` "
    "learns from the pictures alone. Transfer to other sets is not claimed.",
)


@dataclass(frozen=True)
class KRRST:
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
        tell: Callable[[int, float], None] = lambda step, loss: None,
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
                tell(step, float(value.detach()))
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


SMALL = KRRST(widths=(64, 64), pool=5, limit=20, inner_rate=0.02, steps=400, batch=256, rate=1e-2, regular=1e-3)


def outer(
    net: Student,
    x: Float[Tensor, "m ..."],
    y: Float[Tensor, "m d"],
    real: Float[Tensor, "b ..."],
    truth: Float[Tensor, "b d"],
    regular: float,
) -> Float[Tensor, ""]:
    """The error of what ridge regression on the samples' features says of real ones. The network is as it is (evaluating,
    its weights constant)."""
    net.eval()
    still = {k: v.detach() for k, v in net.body.state_dict().items()}
    features = functional_call(net.body, still, (x,))
    with torch.no_grad():
        seen = functional_call(net.body, still, (real,))
    return F.mse_loss(ridge(features, y, seen, regular), truth)


def ridge(
    features: Float[Tensor, "m f"], y: Float[Tensor, "m d"], seen: Float[Tensor, "b f"], regular: float
) -> Float[Tensor, "b d"]:
    """Kernel ridge regression with a constant among the features; the ridge is a share of the kernel's trace, which is
    taken as given."""
    a, b = (F.pad(z.double(), (0, 1), value=1.0) for z in (features, seen))
    kernel = a @ a.T
    strength = regular * kernel.trace().detach()
    weights = torch.linalg.solve(kernel + strength * torch.eye(len(a), dtype=a.dtype, device=a.device), y.double())
    return (b @ a.T @ weights).to(y.dtype)


def student(net: Student, x: Float[Tensor, "m ..."], y: Float[Tensor, "m d"], steps: int = 1000) -> list[float]:
    """Pre-trains a network on the distilled pairs, all of them at each step; the errors on the way."""
    lesson = Lesson(net)
    return [lesson.step(x, y) for _ in range(steps)]
