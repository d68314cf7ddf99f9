"""Boxes of high colour contrast, without learning."""

import numpy as np
import pytest
import torch
from torch import Tensor

from headwater.core.rng import Rng
from headwater.core.types import Annotations
from headwater.data.generated.detection import scene
from headwater.parts.boxes import iou, together
from headwater.parts.proposals import (
    ContrastBoxes,
    contrast,
    cut_out,
    histogram,
    integral,
    spread_out,
    summed,
)


def squares() -> Tensor:
    """A red square (8 to 24 across, 4 to 20 down) on grey, twice; in the second picture elsewhere."""
    x = torch.full((2, 3, 32, 32), 0.5)
    for row, (left, top) in zip(x, ((8, 4), (14, 10)), strict=True):
        row[0, top : top + 16, left : left + 16], row[1:, top : top + 16, left : left + 16] = 1.0, 0.0
    return x


TRUE = torch.tensor([[8.0, 4, 24, 20], [14, 10, 30, 26]])


def test_sums_over_boxes_from_an_integral_image() -> None:
    x = torch.rand(2, 3, 7, 9)
    boxes = torch.tensor([[1, 2, 5, 6], [0, 0, 9, 7], [3, 3, 3, 3]]).expand(2, -1, -1)
    made = summed(integral(x), boxes)
    for i, (left, top, right, bottom) in enumerate(boxes[0].tolist()):
        torch.testing.assert_close(made[:, i], x[:, :, top:bottom, left:right].sum((2, 3)), rtol=1e-5, atol=1e-5)


def test_every_pixel_has_one_colour() -> None:
    made = histogram(torch.rand(2, 3, 5, 6))
    assert made.shape == (2, 64, 5, 6) and torch.equal(made.sum(1), torch.ones(2, 5, 6))


def test_contrast_by_hand() -> None:
    """A box that is the square and nothing else shares no colour with its ring; one of which half is the square shares
    half of itself."""
    boxes = (TRUE / 32)[:, None]
    assert contrast(squares(), boxes, 1.5).flatten().tolist() == pytest.approx([2.0, 2.0])
    half = torch.tensor([[8.0, 4, 24, 20]]) + torch.tensor([0.0, 8, 0, 8])  # its lower half is ground
    p, ring = torch.tensor([0.5, 0.5]), torch.zeros(2)
    around = squares()[0, 0, 8:32, 4:28]  # the box half as wide again on either side, cut at nothing
    n = around.numel() - 256
    ring[0] = ((around == 1).sum() - 128) / n
    ring[1] = 1 - ring[0]
    wanted = ((p - ring) ** 2 / (p + ring)).sum()
    assert contrast(squares()[:1], (half / 32)[None], 1.5).item() == pytest.approx(wanted.item(), abs=1e-5)
    assert contrast(squares()[:1], torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), 1.5).item() == 0  # nothing is around it


def test_the_best_box_is_the_object_and_no_two_overlap() -> None:
    maker = ContrastBoxes(n=8)
    marks = maker(squares(), Rng(0))
    each = iou(marks.boxes, TRUE[:, None])
    assert (each[:, 0] > 0.5).all() and (each.amax(1) > 0.6).all()
    for boxes, classes in zip(marks.boxes, marks.classes, strict=True):
        kept = boxes[classes == 0]
        assert ((kept[:, 2:] - kept[:, :2]) > 0).all() and (kept >= 0).all() and (kept <= 32).all()
        each = iou(kept[:, None], kept) - torch.eye(len(kept))
        assert each.max() <= maker.overlap


def test_what_overlaps_a_better_box_is_left_out_and_the_rest_filled_up() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 3], [6, 6, 8, 8]]])
    chosen, kept = spread_out(boxes, torch.tensor([[1.0, 2.0, 0.5]]), 3, 0.5)
    assert chosen[0, :2].tolist() == [1, 2] and kept.tolist() == [[True, True, False]]
    marks = ContrastBoxes(n=300, drawn=50, overlap=0.3)(squares(), Rng(0))
    assert (marks.classes == -1).any() and not marks.boxes[marks.classes == -1].any()


def test_two_shards_find_what_one_process_finds() -> None:
    x = squares()
    whole = ContrastBoxes(n=4)(x, Rng(3)).boxes
    halves = [ContrastBoxes(n=4)(x[i : i + 1], Rng(3, shard=i, shards=2)).boxes for i in (0, 1)]
    assert torch.equal(whole, torch.cat(halves))


def test_large_pictures_are_looked_at_in_a_smaller_size() -> None:
    large = torch.nn.functional.interpolate(squares(), (160, 320))
    marks = ContrastBoxes(n=1)(large, Rng(0))
    assert (iou(marks.boxes[:, 0], TRUE * torch.tensor([10.0, 5, 10, 5])) > 0.5).all()


def test_objects_of_scenes_are_found_better_than_by_chance() -> None:
    """Of the true boxes over clutter, how many the ten best boxes find; and ten of the boxes as drawn."""
    images, boxes, _, _ = zip(*map(scene, range(48)), strict=True)
    x = torch.from_numpy(np.stack(images)).float() / 255
    truth = together([Annotations(torch.from_numpy(b)[None], torch.zeros(1, len(b), dtype=torch.int64)) for b in boxes])
    assert truth is not None
    shares = []
    for drawn in (1000, 10):
        marks = ContrastBoxes(n=10, drawn=drawn, overlap=0.99 if drawn == 10 else 0.5)(x, Rng(0))
        best = iou(truth.boxes[:, :, None], marks.boxes[:, None]).amax(2)
        shares.append((best > 0.5)[truth.classes >= 0].float().mean().item())
    assert shares[0] > shares[1] + 0.1


def test_crops_hold_what_is_in_the_box() -> None:
    made = cut_out(squares(), TRUE[:, None], 4)
    assert made.shape == (2, 1, 3, 4, 4)
    assert torch.equal(made[:, 0], torch.tensor([1.0, 0, 0])[None, :, None, None].expand(2, 3, 4, 4))
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(cut_out(x, torch.tensor([[[2.0, 1, 6, 5]]]), 4)[0, 0], x[0, :, 1:5, 2:6])
