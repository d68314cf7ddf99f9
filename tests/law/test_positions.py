"""Where tokens stand: closed forms, and what rotations and tables promise."""

import math

import pytest
import torch

from headwater.parts.positions import LearnedPositions, rotate, rotation, sincos
from headwater.parts.tokens import coordinates


@pytest.mark.parametrize(("grid", "dim"), [((7,), 12), ((3, 4), 16), ((2, 3, 2), 18)])
def test_sincos_is_the_closed_form(grid, dim):
    place = coordinates(grid, "cpu")
    got = sincos(place, dim)
    per = dim // (2 * len(grid))
    for i, at in enumerate(place.tolist()):
        want = []
        for where in reversed(at):
            want += [math.sin(where / 10_000 ** (j / per)) for j in range(per)]
            want += [math.cos(where / 10_000 ** (j / per)) for j in range(per)]
        torch.testing.assert_close(got[i], torch.tensor(want))


def test_sincos_fills_a_width_that_does_not_divide_with_zeros():
    got = sincos(coordinates((3, 3), "cpu"), 10)
    assert got.shape == (9, 10)
    assert (got[:, 8:] == 0).all()


def test_sincos_does_not_depend_on_the_size_of_the_grid():
    small, large = sincos(coordinates((2, 2), "cpu"), 16), sincos(coordinates((4, 4), "cpu"), 16)
    assert torch.equal(small, large.view(4, 4, 16)[:2, :2].flatten(0, 1))


@pytest.mark.parametrize("axes", [1, 2])
def test_rotated_products_depend_on_differences_of_places_only(axes):
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 2, 6, 16, generator=g), torch.randn(1, 2, 6, 16, generator=g)
    place = torch.randint(0, 9, (1, 6, axes), generator=g).float()

    def scores(at):
        turn = rotation(at, 16)
        return rotate(q, *turn) @ rotate(k, *turn).mT

    torch.testing.assert_close(scores(place), scores(place + 5), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores(place), scores(place * 2), atol=1e-2)


def test_rotations_keep_lengths_and_place_zero_stays():
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([[[0.0], [1.0], [50.0]]])
    turned = rotate(x, *rotation(place, 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


@pytest.mark.parametrize("grid", [(6,), (3, 5), (2, 3, 2)])
def test_a_learned_table_is_itself_on_its_own_grid_and_smooth_on_others(grid):
    table = LearnedPositions(grid, 8)
    assert torch.equal(table(grid), table.table)
    finer = tuple(2 * g for g in grid)
    assert table(finer).shape == (1, math.prod(finer), 8)
    torch.nn.init.constant_(table.table, 0.3)
    torch.testing.assert_close(table(finer), torch.full((1, math.prod(finer), 8), 0.3))


def test_a_learned_table_keeps_its_axes_when_resized():
    table = LearnedPositions((4, 4), 1)
    with torch.no_grad():
        table.table.copy_(torch.arange(4.0).repeat_interleave(4).view(1, 16, 1))  # grows along the first axis only
    finer = table((8, 2)).view(8, 2)
    torch.testing.assert_close(finer[:, 0], finer[:, 1])
    assert (finer[1:, 0] > finer[:-1, 0]).all()
