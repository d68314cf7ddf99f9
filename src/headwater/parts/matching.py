"""Detection as a prediction of sets (Carion et al., 2020): each true box is given to one query, and losses follow that.

Boxes are (centre x, centre y, width, height) in shares of the picture. Terms are Deformable DETR's (Zhu et al., 2020).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headwater.core.types import Annotations
from headwater.parts.boxes import from_centre, giou, iou, to_centre
from headwater.parts.deformable import Detections
from headwater.parts.losses import Gather, masked_mean

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al., 2017)


@dataclass(frozen=True)
class Targets:
    """What is to be found on each picture; places with the class -1 are filled up."""

    boxes: Float[Tensor, "b m 4"]
    classes: Int[Tensor, "b m"]

    @property
    def real(self) -> Bool[Tensor, "b m"]:
        return self.classes >= 0

    def times(self, k: int) -> "Targets":
        """Every target k times."""
        return Targets(self.boxes.repeat(1, k, 1), self.classes.repeat(1, k))


def targets(marks: Annotations, size: tuple[int, int]) -> Targets:
    """What is marked on pictures of `size` (height, width)."""
    whole = marks.boxes.new_tensor([size[1], size[0]] * 2)
    return Targets(to_centre(marks.boxes / whole), marks.classes)


@dataclass(frozen=True, kw_only=True)
class SetLoss:
    """The weights of the three terms, in the cost of a match and in the loss alike."""

    label: float = 2.0
    l1: float = 5.0
    giou: float = 2.0

    def cost(self, found: Detections, wanted: Targets) -> Float[Tensor, "l b q m"]:
        """What it would cost to give target m to query q, by layer."""
        p = found.logits.sigmoid()
        miss = (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-8).log()
        hit = ALPHA * (1 - p) ** GAMMA * -(p + 1e-8).log()
        kind = wanted.classes.clamp(min=0)[None, :, None].expand(*p.shape[:3], -1)
        away = (found.boxes[:, :, :, None] - wanted.boxes[:, None]).abs().sum(-1)
        overlap = giou(from_centre(found.boxes)[:, :, :, None], from_centre(wanted.boxes)[:, None])
        return self.label * (hit - miss).gather(3, kind) + self.l1 * away - self.giou * overlap

    def __call__(
        self, found: Detections, wanted: Targets, gather: Gather
    ) -> tuple[Float[Tensor, ""], Int[Tensor, "l b m"]]:
        """The loss, summed over layers, each matched by itself, and divided by the number of boxes of everyone's batch per
        process; and the query that each target was given to (see `matched`)."""
        with torch.no_grad():
            given = matched(torch.cat([self.cost(layer, wanted) for layer in found.layers()]), wanted.real)
        layers, _, q, k = found.logits.shape
        paired, query = given >= 0, given.clamp(min=0)
        aim = torch.zeros_like(found.logits)
        kind = wanted.classes.clamp(min=0).expand(layers, -1, -1)
        place = torch.where(paired, query * k + kind, q * k)  # one place more, for what is filled up
        aim = F.pad(aim.flatten(2), (0, 1)).scatter(2, place, 1.0)[..., :-1].view_as(aim)
        box = found.boxes.gather(2, query[..., None].expand(-1, -1, -1, 4))
        truth = wanted.boxes.expand_as(box)
        away = (box - truth).abs().sum(-1)
        apart = 1 - giou(from_centre(box), from_centre(truth))
        regress = ((self.l1 * away + self.giou * apart) * paired).sum()
        total = self.label * focal(found.logits, aim).sum() + regress
        return total / boxes_per_process(wanted, gather), given


def given_to(x: Float[Tensor, "b q d"], given: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """The row of x of each target's query; that of the first where there is none."""
    return x.gather(1, given.clamp(min=0)[..., None].expand(-1, -1, x.shape[2]))


def overlap(found: Detections, wanted: Targets, given: Int[Tensor, "b m"], gather: Gather) -> Float[Tensor, ""]:
    """Intersection over union of what the last layer found with what was to be found, mean over everyone's targets."""
    box = given_to(found.boxes[-1].detach(), given)
    return masked_mean(iou(from_centre(box), from_centre(wanted.boxes)), given >= 0, gather)


def boxes_per_process(wanted: Targets, gather: Gather) -> Float[Tensor, ""]:
    """Over everyone's batch, so that shards add up to the whole; of none, one."""
    each = gather(wanted.real.sum(dtype=wanted.boxes.dtype)[None])
    return each.sum().clamp(min=1) / len(each)


def focal(logits: Float[Tensor, "*s"], aim: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Cross-entropy of single classes, less where the answer is right already (Lin et al., 2017)."""
    p = logits.sigmoid()
    right = p * aim + (1 - p) * (1 - aim)
    weight = ALPHA * aim + (1 - ALPHA) * (1 - aim)
    return weight * (1 - right) ** GAMMA * F.binary_cross_entropy_with_logits(logits, aim, reduction="none")


def matched(cost: Float[Tensor, "l b q m"], real: Bool[Tensor, "b m"]) -> Int[Tensor, "l b m"]:
    """The query that each target is given to at the least cost in all (Kuhn, 1955), each query to at most one; -1 for what
    is filled up, and for targets beyond the number of queries. One copy to the host for all layers and pictures."""
    from scipy.optimize import linear_sum_assignment

    table = cost.nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9).cpu().double().numpy()
    there = real.cpu().numpy()
    given = torch.full((table.shape[0], table.shape[1], table.shape[3]), -1)
    for layer, pictures in zip(given, table, strict=True):
        for row, costs, known in zip(layer, pictures, there, strict=True):
            queries, columns = linear_sum_assignment(costs[:, known])
            row[torch.from_numpy(known.nonzero()[0][columns])] = torch.from_numpy(queries)
    return given.to(cost.device)
