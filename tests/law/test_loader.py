"""The order of the data is a function of (seed, step), whatever works on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Ragged
from headwater.data import open as open_data
from headwater.data.loader import Loader, order, stack


def pictures(folder: Path, n: int = 12, side: int = 8) -> Path:
    folder.mkdir()
    for i in range(n):
        Image.fromarray(np.full((side, side + i % 3, 3), i * 10, np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_every_epoch_holds_every_item_once(n: int) -> None:
    seen = order(n, seed=3, start=0, count=3 * n).reshape(3, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in seen)
    assert n < 7 or not np.array_equal(seen[0], seen[1])


def test_the_order_looks_random() -> None:
    """No item keeps its place, and neighbours do not stay neighbours."""
    first = order(10_000, seed=0, start=0, count=10_000)
    assert abs(np.corrcoef(first, np.arange(10_000))[0, 1]) < 0.03
    assert np.mean(np.abs(np.diff(first)) == 1) < 0.002
    assert not np.array_equal(first, order(10_000, seed=1, start=0, count=10_000))


def test_any_step_can_be_had_at_once() -> None:
    whole = order(100, seed=5, start=0, count=1000)
    assert np.array_equal(whole[640:704], order(100, seed=5, start=640, count=64))


def test_shards_and_parts_are_rows_of_the_same_global_batch() -> None:
    source = open_data((torch.arange(40.0)[:, None].repeat(1, 3), torch.arange(40)))
    whole = next(Loader(source, 8, seed=1)(5)).y
    shards = [next(Loader(source, 8, seed=1, shard=s, shards=2)(5)).y for s in range(2)]
    parts = Loader(source, 8, seed=1, parts=2)(5)
    assert whole is not None
    assert torch.equal(whole, torch.cat([s for s in shards if s is not None]))
    assert torch.equal(whole, torch.cat([next(parts).y, next(parts).y]))  # type: ignore[list-item]


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    source = open_data(str(pictures(tmp_path / "p")))
    batches = []
    for workers in (1, 4):
        stream = Loader(source, 4, seed=2, workers=workers)(0)
        batches.append([next(stream).x["image"] for _ in range(5)])
    for a, b in zip(*batches, strict=True):
        assert isinstance(a, Ragged) and isinstance(b, Ragged)
        assert torch.equal(a.values, b.values) and torch.equal(a.extent, b.extent)


def test_a_broken_item_is_named_counted_and_replaced_the_same_way_each_time(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p")
    (folder / "05.png").write_bytes(b"not a picture")
    source = open_data(str(folder))
    runs = []
    for _ in range(2):
        loader = Loader(source, 4, seed=0, tolerate=0.2)
        stream = loader(0)
        runs.append([next(stream).x["image"] for _ in range(6)])
        assert list(loader.bad) == ["05.png"]
    for a, b in zip(*runs, strict=True):
        assert isinstance(a, Ragged) and isinstance(b, Ragged) and torch.equal(a.values, b.values)


def test_too_many_broken_items_stop_the_run_with_the_list(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p")
    for i in range(6):
        (folder / f"{i:02}.png").write_bytes(b"")
    loader = Loader(open_data(str(folder)), 4, tolerate=0.1)
    with pytest.raises(WorkError, match=r"items do not decode, more than the 10% that are tolerated. First: 0\d.png"):
        for _, _ in zip(range(20), loader(0), strict=False):
            pass


def test_an_ordered_pass_leaves_out_what_does_not_decode(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p")
    (folder / "03.png").write_bytes(b"")
    loader = Loader(open_data(str(folder)), 5, tolerate=0.5)
    kept = [i for chosen, _ in loader.ordered(range(12)) for i in chosen]
    assert kept == [i for i in range(12) if i != 3]


def test_stacking_pads_and_remembers_the_sizes() -> None:
    x = stack([torch.ones(3, 4, 5), 2 * torch.ones(3, 6, 2)])
    assert isinstance(x, Ragged) and x.values.shape == (2, 3, 6, 5)
    assert x.extent.tolist() == [[4, 5], [6, 2]]
    assert x.values[0].sum() == 3 * 4 * 5 and x.values[1].sum() == 2 * 3 * 6 * 2
    assert isinstance(stack([torch.ones(3), torch.ones(3)]), torch.Tensor)


def test_items_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RequestError, match="different numbers of channels"):
        stack([torch.ones(3, 4, 4), torch.ones(1, 4, 4)])
