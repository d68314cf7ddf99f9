"""Small networks that are trained a little and replaced by fresh ones: what distilled data must teach whoever learns from it.

Shapes: m distilled samples, b real ones, d outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.core.rng import Rng


@contextmanager
def seeded(rng: Rng) -> Iterator[None]:
    """Within it torch's own generator, from which layers draw their weights, follows from `rng`; outside nothing changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.randint(2**31, 1)))
        yield


class Student(nn.Module):
    """Pictures go through convolutions of 3 x 3 with batch normalisation, ReLU and pooling by two while there is room, then
    the mean; vectors through linear maps with ReLU. A linear head on the features gives `out` numbers."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int], out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, room = shape[0], min(shape[1:], default=0)
        for wide in widths:
            if len(shape) == 1:
                layers += [nn.Linear(width, wide), nn.ReLU()]
            else:
                layers += [nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
                layers += [nn.AvgPool2d(2)] if room >= 4 else []
                room = room // 2 if room >= 4 else room
            width = wide
        if len(shape) > 1:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, out)

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return self.head(self.body(x))


class Lesson:
    """A network on its way through the distilled samples: SGD with momentum on the mean squared error of all of them."""

    def __init__(self, net: Student, rate: float = 0.1, decay: float = 1e-3) -> None:
        self.net, self.steps = net, 0
        self.descent = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=decay)

    def step(self, x: Float[Tensor, "m ..."], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """One step; the error before it."""
        self.net.train()
        self.descent.zero_grad()
        with torch.enable_grad():
            error = F.mse_loss(self.net(x.detach()), y.detach())
            error.backward()
        self.descent.step()
        self.steps += 1
        return error.detach()


class NetPool:
    """Networks of all ages up to `limit` steps. One that has come to it is replaced by a fresh one, whose count is 0."""

    def __init__(
        self,
        fresh: Callable[[], Student],
        size: int,
        limit: int,
        x: Float[Tensor, "m ..."],
        y: Float[Tensor, "m d"],
        rng: Rng,
        rate: float = 0.1,
    ) -> None:
        self.fresh, self.limit, self.rng, self.rate = fresh, limit, rng, rate
        self.lessons = [Lesson(fresh(), rate) for _ in range(size)]
        for lesson in self.lessons:
            for _ in range(int(rng.randint(limit, 1))):
                lesson.step(x, y)

    def pick(self) -> int:
        return int(self.rng.randint(len(self.lessons), 1))

    def advance(self, i: int, x: Float[Tensor, "m ..."], y: Float[Tensor, "m d"]) -> None:
        self.lessons[i].step(x, y)
        if self.lessons[i].steps >= self.limit:
            self.lessons[i] = Lesson(self.fresh(), self.rate)


def descend(
    leaves: Sequence[Tensor],
    loss: Callable[[int], Tensor],
    after: Callable[[int], None],
    steps: int,
    rate: float,
) -> None:
    """AdamW on the leaves alone, at a rate that falls in a line to a thousandth; `after` follows each step."""
    descent = torch.optim.AdamW(leaves, lr=rate)
    for step in range(steps):
        for group in descent.param_groups:
            group["lr"] = rate * (1 - 0.999 * step / max(1, steps - 1))
        for leaf, slope in zip(leaves, torch.autograd.grad(loss(step), leaves, allow_unused=True), strict=True):
            leaf.grad = slope
        descent.step()
        after(step)
