"""Boxes: overlaps in closed form, the twin's, and what is left of them in crops, mirror images and scaled pictures."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.rng import Rng
from headwater.core.types import Annotations, Ragged
from headwater.data.generated.detection import scene
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.parts.boxes import around, clip, from_centre, from_corner, giou, iou, to_centre
from headwater.parts.views import Crop, JointCrop, JointFlip, JointResize, JointScale, Resize
from headwater.parts.views.joint import carried


def box(*edges: float) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.float32)


@pytest.mark.parametrize(
    ("a", "b", "overlap", "general"),
    [
        (box(0, 0, 2, 2), box(0, 0, 2, 2), 1, 1),
        (box(0, 0, 2, 2), box(1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        (box(0, 0, 4, 4), box(1, 1, 3, 3), 4 / 16, 4 / 16),  # one in the other
        (box(0, 0, 1, 1), box(3, 0, 4, 1), 0, -2 / 4),  # apart, two empty pixels between
        (box(0, 0, 1, 1), box(1, 0, 2, 1), 0, 0),  # side by side
        (box(0, 0, 3, 1), box(0, 0, 1, 3), 1 / 5, 1 / 5 - 4 / 9),
        (box(1, 1, 1, 1), box(1, 1, 1, 1), 0, 0),  # nothing
    ],
)
def test_overlaps_have_their_closed_form(a: torch.Tensor, b: torch.Tensor, overlap: float, general: float) -> None:
    for one, other in ((a, b), (b, a), (a * 0.01, b * 0.01)):
        assert iou(one, other).item() == pytest.approx(overlap, abs=1e-6)
        assert giou(one, other).item() == pytest.approx(general, abs=1e-6)


def test_overlaps_of_all_pairs_are_those_of_pixels() -> None:
    edges = torch.randint(0, 12, (2, 30, 2, 2), generator=torch.Generator().manual_seed(0)).sort(2).values
    a, b = (e.flatten(1).float() for e in edges)

    def drawn(boxes: torch.Tensor) -> torch.Tensor:
        x = torch.arange(12)
        inside = [(x >= boxes[:, k, None]) & (x < boxes[:, k + 2, None]) for k in (0, 1)]
        return inside[1][:, :, None] & inside[0][:, None]

    common = (drawn(a)[:, None] & drawn(b)).sum((2, 3))
    either = (drawn(a)[:, None] | drawn(b)).sum((2, 3))
    assert torch.allclose(iou(a[:, None], b), common / either.clamp(min=1))
    assert giou(a[:, None], b).shape == (30, 30)
    assert torch.equal(around(drawn(a)), torch.where(drawn(a).any(2).any(1)[:, None], a, 0.0))


def test_formats_are_each_others_inverse_and_boxes_are_clipped() -> None:
    edges = torch.tensor([[1.0, 2.0, 5.0, 10.0], [-3.0, 4.0, 50.0, 60.0]])
    assert torch.equal(from_centre(to_centre(edges)), edges)
    assert to_centre(edges)[0].tolist() == [3, 6, 4, 8]
    assert from_corner(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist() == [1, 2, 5, 10]
    assert clip(edges, torch.tensor([20, 30]))[1].tolist() == [0, 4, 30, 20]


@functools.cache
def twin() -> Source:
    return hw.open("shapes-boxes")


def batch_of(n: int) -> tuple[torch.Tensor, Annotations]:
    """n scenes of the twin."""
    _, batch = next(iter(Loader(twin(), n).ordered(range(n))))
    assert batch.annotations is not None
    x = batch.x["image"]
    assert isinstance(x, torch.Tensor)
    return x, batch.annotations


def test_the_twin_has_the_box_of_every_shape_and_any_scene_alone_is_the_same() -> None:
    x, marks = batch_of(40)
    assert marks.masks is not None
    counts = (marks.classes >= 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3, 4, 5}
    for i in range(40):
        boxes, mask = marks.boxes[i, : counts[i]], marks.masks[i]
        rest = mask > 0
        for edges, kind in zip(boxes, marks.classes[i].tolist(), strict=False):
            left, top, right, bottom = edges.long().tolist()
            inside = torch.zeros_like(rest)
            inside[top:bottom, left:right] = mask[top:bottom, left:right] == kind + 1
            assert torch.equal(around(inside), edges)
            rest &= ~inside
        assert not rest.any()  # every coloured pixel belongs to a box
        assert iou(boxes[:, None], boxes).fill_diagonal_(0).max() == 0
    image, boxes, kinds, _ = scene(17)
    assert np.array_equal(x[17].numpy(), image)
    assert np.array_equal(marks.boxes[17, : len(boxes)].numpy(), boxes)
    assert marks.classes[17, : len(kinds)].tolist() == kinds.tolist()


def drawn_boxes(size: int, n: int = 300) -> Annotations:
    """One random box per picture, drawn as the mask too: class 1 inside, 0 outside."""
    edges = torch.randint(0, size + 1, (n, 2, 2), generator=torch.Generator().manual_seed(3)).sort(1).values
    edges[:, 1] = torch.maximum(edges[:, 1], edges[:, 0] + 1).clamp(max=size)
    edges[:, 0] = torch.minimum(edges[:, 0], edges[:, 1] - 1)
    place = torch.arange(size)
    across, down = ((place >= edges[:, 0, k, None]) & (place < edges[:, 1, k, None]) for k in (0, 1))
    masks = (down[:, :, None] & across[:, None]).long()
    return Annotations(edges.flatten(1).float()[:, None], torch.ones(n, 1, dtype=torch.int64), masks)


@pytest.mark.parametrize(
    "view",
    [
        JointCrop(32, least=0.0),
        JointCrop(96, scale=(0.1, 0.4), least=0.0),
        JointScale(32, least=0.0),
        JointScale(80, scale=(0.3, 3.0), least=0.0),
        JointResize(23),
        JointFlip(),
    ],
    ids=str,
)
def test_a_box_drawn_as_a_mask_and_carried_along_bounds_what_is_left_of_it(view: Any) -> None:
    marks = drawn_boxes(40)
    x = marks.masks.float()[:, None].repeat(1, 3, 1, 1)  # type: ignore[union-attr]
    seen, moved = view(x, marks, Rng(5))
    assert moved.masks is not None
    assert seen.shape[2:] == moved.masks.shape[1:]
    for drawing, tolerance in ((moved.masks == 1, 1.01), (seen[:, 0] > 0.5, 1.5)):
        expected, there = around(drawing), drawing.any(2).any(1)
        assert there.float().mean() > 0.5
        assert (moved.classes[there] == 1).all()
        near = (moved.boxes[:, 0] - expected)[there].abs()
        assert near.max() <= tolerance  # a pixel is in where its centre is, or where it is mostly bright
        assert near.mean() < 0.5
    vanished = moved.classes[:, 0] < 0
    assert not (moved.masks == 1).any(2).any(1)[vanished].any()


def test_whole_multiples_are_carried_exactly_and_each_side_counts() -> None:
    """A crop of 20 × 20 at 40 × 40 by hand, on the left half and mirrored."""
    marks = drawn_boxes(40)
    window = torch.tensor([10.0, 0.0, 20.0, 20.0]).expand(300, 4)
    for mirrored in (False, True):
        flip = torch.full((300,), mirrored)
        moved = carried(marks, window, flip, (40, 40), 0.0)
        assert moved.masks is not None
        cut = marks.masks[:, 10:30, :20].repeat_interleave(2, 1).repeat_interleave(2, 2)  # type: ignore[index]
        cut = cut.flip(2) if mirrored else cut
        assert torch.equal(moved.masks, cut)
        assert torch.equal(moved.boxes[:, 0], around(cut == 1))
        assert torch.equal(moved.classes[:, 0] >= 0, (cut == 1).any(2).any(1))
    smaller = carried(marks, torch.tensor([10.0, 0.0, 30.0, 30.0]).expand(300, 4), flip, (10, 10), 0.0)
    assert smaller.masks is not None
    assert torch.equal(smaller.masks, marks.masks[:, 11:40:3, 1:30:3].flip(2))  # type: ignore[index]


def test_boxes_of_which_too_little_is_seen_are_dropped_and_the_others_move_up() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [2, 0, 10, 4], [8, 8, 10, 10], [6, 0, 10, 4]]])  # seen: 0, 1/4, all, 1/2
    marks = Annotations(boxes, torch.tensor([[5, 6, 7, 8]]))
    window, never = torch.tensor([[0.0, 8.0, 10.0, 10.0]]), torch.tensor([False])
    for least, kept in ((0.0, [6, 7, 8]), (0.25, [6, 7, 8]), (0.26, [7, 8]), (0.6, [7])):
        moved = carried(marks, window, never, (10, 10), least)
        assert moved.classes[0].tolist() == kept + [-1] * (4 - len(kept))
        assert moved.boxes[0, len(kept) - 1].tolist() == ([0, 8, 2, 10] if kept == [7] else [0, 0, 2, 4])
        assert (moved.boxes[0, len(kept) :] == 0).all()


def test_pictures_are_cropped_as_without_boxes_and_ragged_ones_within_their_own_extent() -> None:
    x, marks = batch_of(12)
    seen, _ = JointCrop(32, scale=(0.2, 0.9))(x, marks, Rng(2))
    assert torch.equal(seen, Crop(32, scale=(0.2, 0.9))(x, Rng(2)))
    assert torch.equal(JointResize(32)(x, marks, Rng(2))[0], Resize(32)(x, Rng(2)))
    small = x[:, :, :40, :48].clone()
    extent = torch.tensor([[40, 48]]).expand(12, 2)
    x[:, :, 40:] = 255
    x[:, :, :, 48:] = 255
    few = Annotations(clip(marks.boxes, extent[:, None]), marks.classes)
    for view in (JointCrop(32), JointScale(32), JointResize(32)):
        alone, padded = view(small, few, Rng(3)), view(Ragged(x, extent), few, Rng(3))
        assert torch.allclose(alone[0], padded[0], atol=0.01)  # one of them in bytes
        assert torch.allclose(alone[1].boxes, padded[1].boxes)
        assert torch.equal(alone[1].classes, padded[1].classes)


def test_rows_of_a_shard_are_those_of_the_whole_batch() -> None:
    x, marks = batch_of(8)
    halves = [Annotations(marks.boxes[s], marks.classes[s]) for s in (slice(4), slice(4, 8))]
    for view in (JointCrop(32), JointScale(32), JointFlip()):
        whole = view(x, marks, Rng(6))
        for k, half in enumerate(halves):
            seen, moved = view(x[4 * k : 4 * k + 4], half, Rng(6, shard=k, shards=2))
            assert torch.equal(seen, whole[0][4 * k : 4 * k + 4])
            assert torch.equal(moved.boxes, whole[1].boxes[4 * k : 4 * k + 4])
