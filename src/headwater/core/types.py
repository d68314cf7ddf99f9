"""The values that flow between the parts.

Shapes, everywhere: b batch, n tokens, d width, k classes or kept tokens, m dropped tokens, p values of a patch,
c channels, h height, w width, t time, r rank of a grid (1 series, 2 images, 3 video and volumes).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.rng import Rng


@dataclass(frozen=True)
class Ragged:
    """Samples of unequal size in one tensor: `values[i]` is filled up to `extent[i]` along its last r axes.

    Images decoded at their own sizes, series and texts of their own lengths. Stands wherever a batch tensor may stand.
    """

    values: Tensor
    extent: Int[Tensor, "b r"]

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Ragged":
        return Ragged(
            self.values.to(device, non_blocking=non_blocking), self.extent.to(device, non_blocking=non_blocking)
        )


@dataclass(frozen=True)
class Graph:
    """Graphs of unequal size in one batch: node features, how many nodes are real, and edges as pairs of nodes.

    An undirected edge stands there once in each direction; `edges` is filled up with -1.
    """

    values: Float[Tensor, "b f n"]
    extent: Int[Tensor, "b 1"]
    edges: Int[Tensor, "b e 2"]

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Graph":
        moved = (x.to(device, non_blocking=non_blocking) for x in (self.values, self.extent, self.edges))
        return Graph(*moved)


Input = Tensor | Ragged | Graph
Sample = Tensor | Graph  # what a reader gives for one item; a graph is a batch of one


@dataclass(frozen=True)
class Annotations:
    """Boxes on pictures, (left, top, right, bottom) in pixels, the class of each (-1: no box, to fill up), and a class
    per pixel (-1: none)."""

    boxes: Float[Tensor, "b m 4"]
    classes: Int[Tensor, "b m"]
    masks: Int[Tensor, "b h w"] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Annotations":
        boxes, classes = (x.to(device, non_blocking=non_blocking) for x in (self.boxes, self.classes))
        masks = None if self.masks is None else self.masks.to(device, non_blocking=non_blocking)
        return Annotations(boxes, classes, masks)


@dataclass(frozen=True)
class Batch:
    """Samples of one or more modalities; everything has the same first axis: labels `y`, if any, what is marked on the
    pictures, which samples have each modality, where some lack one and hold zeros instead (`present`), and target vectors."""

    x: Mapping[str, Input]
    y: Tensor | None = None
    annotations: Annotations | None = None
    present: Mapping[str, Bool[Tensor, " b"]] | None = None
    targets: Float[Tensor, "b d"] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def to(self, device: torch.device | str) -> "Batch":
        x = {m: v.to(device, non_blocking=True) for m, v in self.x.items()}
        y, targets = (None if v is None else v.to(device, non_blocking=True) for v in (self.y, self.targets))
        present = None if self.present is None else {m: p.to(device) for m, p in self.present.items()}
        return Batch(x, y, None if self.annotations is None else self.annotations.to(device, True), present, targets)


def alone(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Step:
    """Where training stands: all that a method may know of the loop.

    progress   0 at the first step, 1 at the last
    gather     rows of this process -> rows of all of them, gradient included; the identity on one process
    """

    rng: Rng
    progress: float = 0.0
    gather: Callable[[Tensor], Tensor] = alone


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, numbers to log (never `.item()`: reading them is the logger's business), and what
    `after_step` will need.

    Three metric names mean something to the health check: `chance` (the loss of a model that knows nothing, such as
    ln K), `teacher_entropy` and `teacher_entropy_max`.
    """

    value: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    carry: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Mask:
    """A split of n positions into the seen and the hidden, per sample: every position stands in one of the two."""

    keep: Int[Tensor, "b k"]
    drop: Int[Tensor, "b m"]


@dataclass(frozen=True)
class Tokens:
    """A set of tokens per sample. `valid` is False on padding and on what is missing; None means all are real.

    `place` holds the coordinates of each token on its grid, in units of patches.
    """

    x: Float[Tensor, "b n d"]
    valid: Bool[Tensor, "b n"] | None
    place: Float[Tensor, "b n r"]


@dataclass(frozen=True)
class Features:
    """What an encoder says: one vector per token (in the order asked for) and one, as a rule as wide, per sample.

    `prefix` holds the outputs of class and register tokens, `valid` is as in `Tokens`.
    """

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b e"]
    prefix: Float[Tensor, "b q d"] | None = None
    valid: Bool[Tensor, "b n"] | None = None
