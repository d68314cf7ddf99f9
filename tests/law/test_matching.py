"""Matching of queries to true boxes, the losses that follow it, and average precision."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from headwater.core.types import Annotations
from headwater.parts.boxes import from_centre
from headwater.parts.deformable import Detections
from headwater.parts.matching import SetLoss, Targets, boxes_per_process, matched, targets
from headwater.parts.precision import average_precision, overlaps

LAYERS, B, Q, K = 2, 3, 7, 4
COUNTS = (3, 0, 2)


def pair(seed: int = 0) -> tuple[Detections, Targets]:
    """Three pictures with three, no and two boxes, filled up to four."""
    g = torch.Generator().manual_seed(seed)
    found = Detections(
        torch.randn(LAYERS, B, Q, K, generator=g), boxes(g, LAYERS, B, Q), torch.randn(B, Q, 8, generator=g)
    )
    classes = torch.full((B, 4), -1)
    for row, n in zip(classes, COUNTS, strict=True):
        row[:n] = torch.randint(K, (n,), generator=g)
    return found, Targets(boxes(g, B, 4) * (classes >= 0)[..., None], classes)


def boxes(g: torch.Generator, *shape: int) -> Tensor:
    return 0.1 + 0.4 * torch.rand(*shape, 4, generator=g)


def alone(x: Tensor) -> Tensor:
    return x


def test_the_loss_is_that_of_transformers() -> None:
    """By layer and in all, for the weights of its defaults."""
    transformers = pytest.importorskip("transformers")
    from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss as theirs

    config = transformers.DeformableDetrConfig(num_labels=K, auxiliary_loss=True, decoder_layers=LAYERS, class_cost=1)
    found, wanted = pair()
    labels = [
        {"class_labels": c[:n], "boxes": b[:n]} for c, b, n in zip(wanted.classes, wanted.boxes, COUNTS, strict=True)
    ]
    last = (found.logits[-1], labels, "cpu", found.boxes[-1], config)
    told, parts, _ = theirs(*last, found.logits, found.boxes)
    ours, _ = SetLoss(label=1.0, l1=5.0, giou=2.0)(found, wanted, alone)
    torch.testing.assert_close(ours, told, rtol=1e-5, atol=1e-5)
    for weights, name in (((1.0, 0.0, 0.0), "loss_ce"), ((0.0, 1.0, 0.0), "loss_bbox"), ((0.0, 0.0, 1.0), "loss_giou")):
        config.class_cost, config.bbox_cost, config.giou_cost = map(int, weights)
        _, parts, _ = theirs(*last, found.logits, found.boxes)
        ours, _ = SetLoss(label=weights[0], l1=weights[1], giou=weights[2])(found, wanted, alone)
        torch.testing.assert_close(ours, parts[name] + parts[f"{name}_0"], rtol=1e-5, atol=1e-5)


def test_a_match_is_the_cheapest_of_all() -> None:
    cost = torch.randn(1, 1, 5, 3, generator=torch.Generator().manual_seed(3))
    given = matched(cost, torch.ones(1, 3, dtype=torch.bool))[0, 0].tolist()
    best = min(permutations(range(5), 3), key=lambda rows: sum(cost[0, 0, r, c].item() for c, r in enumerate(rows)))
    assert tuple(given) == best


def test_what_is_filled_up_is_given_to_nobody() -> None:
    found, wanted = pair()
    given = matched(SetLoss().cost(found, wanted), wanted.real)
    assert torch.equal(given >= 0, wanted.real.expand(LAYERS, -1, -1))
    for row in given.flatten(0, 1):
        taken = row[row >= 0].tolist()
        assert len(set(taken)) == len(taken) and all(q < Q for q in taken)
    padded = Targets(
        torch.cat([wanted.boxes, torch.rand(B, 3, 4)], 1), torch.cat([wanted.classes, torch.full((B, 3), -1)], 1)
    )
    assert torch.equal(SetLoss()(found, wanted, alone)[0], SetLoss()(found, padded, alone)[0])


def test_pictures_without_boxes_teach_that_nothing_is_there() -> None:
    found, wanted = pair()
    for m in (0, 2):
        none = Targets(wanted.boxes[:, :m], torch.full((B, m), -1))
        found.logits.requires_grad_(True)
        value, given = SetLoss()(found, none, alone)
        assert value.isfinite() and given.shape == (LAYERS, B, m)
        (slope,) = torch.autograd.grad(value, found.logits)
        assert (slope > 0).all()
    less = Detections(found.logits.detach() - 20, found.boxes, found.queries)
    assert SetLoss()(less, none, alone)[0] < 1e-6


def test_every_true_box_is_matched_k_times_where_targets_are_repeated() -> None:
    found, wanted = pair()
    drawn = boxes(torch.Generator().manual_seed(4), LAYERS, B, 4 * Q)
    many = Detections(found.logits.repeat(1, 1, 4, 1), drawn, found.queries.repeat(1, 4, 1))
    _, given = SetLoss()(many, wanted.times(5), alone)
    each = (given.unflatten(2, (5, 4)) >= 0).sum(2)
    assert torch.equal(each, 5 * wanted.real.int().expand_as(each))
    for row in given.flatten(0, 1):
        assert len({*row[row >= 0].tolist()}) == (row >= 0).sum()


def test_the_number_of_boxes_is_everyones() -> None:
    _, wanted = pair()
    share = boxes_per_process(wanted, lambda n: torch.cat([n, n + 4]))
    assert share == (5 + 9) / 2
    assert boxes_per_process(Targets(wanted.boxes[:, :0], wanted.classes[:, :0]), alone) == 1


def test_targets_are_shares_of_the_picture() -> None:
    marks = Annotations(torch.tensor([[[8.0, 0, 16, 8]]]), torch.tensor([[2]]))
    made = targets(marks, (16, 32))
    assert made.boxes.tolist() == [[[12 / 32, 4 / 16, 8 / 32, 8 / 16]]]
    torch.testing.assert_close(from_centre(made.boxes) * torch.tensor([32.0, 16, 32, 16]), marks.boxes)


def found_at(*rows: tuple[float, float, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [x, x + 10] × [0, 10], with score and class."""
    x, scores, kinds = (np.array(v, np.float64) for v in zip(*rows, strict=True))
    return np.stack([x, 0 * x, x + 10, 0 * x + 10], 1), scores, kinds.astype(np.int64)


def true_at(*rows: tuple[float, int]) -> tuple[np.ndarray, np.ndarray]:
    made, _, kinds = found_at(*((x, 1.0, k) for x, k in rows))
    return made, kinds


def test_average_precision_by_hand() -> None:
    """Class 0, in all three true boxes: by falling score hit, miss (taken twice), hit, then nothing: precision 1 up to a
    recall of 1/3 (34 of the 101 recalls), 2/3 up to one of 2/3 (33 of them), then 0."""
    found = [found_at((0, 0.9, 0), (0, 0.8, 0)), found_at((0, 0.7, 0))]
    truth = [true_at((0, 0), (50, 0)), true_at((0, 0))]
    assert average_precision(found, truth, [0.5]) == pytest.approx([(34 * 1 + 33 * 2 / 3) / 101])
    other = [true_at((0, 0), (50, 0), (80, 1)), true_at((0, 0))]  # a class that is never found
    assert average_precision(found, other, [0.5]) == pytest.approx([(34 * 1 + 33 * 2 / 3) / 202])


def test_precision_counts_as_the_best_at_a_recall_or_a_higher_one() -> None:
    """A miss and then two hits of two: 2/3 at every recall."""
    found = [found_at((90, 0.9, 0), (0, 0.8, 0), (50, 0.7, 0))]
    assert average_precision(found, [true_at((0, 0), (50, 0))], [0.5]) == pytest.approx([2 / 3])


def test_average_precision_minds_overlap_and_class() -> None:
    shifted = [found_at((10 / 3, 0.9, 0))]  # (10 - 10/3) / (10 + 10/3): an overlap of one half
    assert average_precision(shifted, [true_at((0, 0))], [0.499, 0.501]).tolist() == [1.0, 0.0]
    assert average_precision(shifted, [true_at((0, 1))], [0.3]).tolist() == [0.0]
    nobody = (np.zeros((0, 4)), np.zeros(0, np.int64))
    assert np.isnan(average_precision([found_at((0, 0.9, 0))], [nobody])).all()
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert average_precision([nothing], [true_at((0, 0))], [0.5]).tolist() == [0.0]
    assert overlaps(found_at((5, 1, 0))[0], true_at((0, 0), (40, 0))[0]).tolist() == [[pytest.approx(1 / 3), 0.0]]


def test_the_true_box_that_overlaps_most_is_taken() -> None:
    """A box between two true ones takes the nearer; the second box then finds the other."""
    found = [found_at((2, 0.9, 0), (6, 0.8, 0))]
    assert average_precision(found, [true_at((0, 0), (5, 0))], [0.4]).tolist() == [1.0]
