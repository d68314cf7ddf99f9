"""Embedding: sharded, resumable, refusing to mix, and the same vectors however it is asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Input
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.engine import embed
from headwater.engine.distributed import World
from tests import small

N = 50


def columns(chosen: list[int]) -> dict[str, Any]:
    return {"id": [str(i) for i in chosen]}


def same(x: Input) -> Input:
    return x


def setting() -> tuple[Any, Loader]:
    torch.manual_seed(0)
    x = torch.rand(N, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return small.convnet().eval(), Loader(open_data(x), 8)


def written(out: Path, **more: Any) -> int:
    encoder, loader = setting()
    return embed.write(encoder, loader, N, same, columns, out, {"encoder": "a"}, shard_size=20, **more)


def test_shards_hold_every_item_once_in_order(tmp_path: Path) -> None:
    assert written(tmp_path / "v") == N
    assert len(list((tmp_path / "v").glob("part-*.parquet"))) == 3
    vectors, others = embed.read(tmp_path / "v")
    encoder, loader = setting()
    direct, kept = embed.vectors(encoder, loader, N, same)
    assert others["id"] == [str(i) for i in range(N)] and kept == list(range(N))
    np.testing.assert_allclose(vectors, direct, rtol=1e-5, atol=1e-6)


def test_features_that_are_not_finite_are_refused_and_named(tmp_path: Path) -> None:
    x = torch.rand(N, 3, 16, 16)
    x[21, 0, 3, 3] = torch.inf
    encoder = small.convnet().eval()
    with pytest.raises(WorkError, match="not finite for 1 of 8 items, first for item 21"):
        embed.vectors(encoder, Loader(open_data(x), 8), N, same)
    with pytest.raises(WorkError, match="first for item 21"):
        embed.write(encoder, Loader(open_data(x), 8), N, same, columns, tmp_path / "v", {}, shard_size=20)
    assert [p.name for p in sorted((tmp_path / "v").glob("part-*"))] == ["part-00000.parquet"]


def test_a_second_run_writes_only_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "v"
    written(out)
    before, _ = embed.read(out)
    (out / "part-00001.parquet").unlink()
    (out / ".writing-part-00001.parquet").write_bytes(b"half")  # what a kill leaves behind
    assert written(out) == 20
    after, _ = embed.read(out)
    assert np.array_equal(before, after)


def test_several_processes_share_the_shards(tmp_path: Path) -> None:
    class Alone(World):
        def barrier(self) -> None:
            pass

    out = tmp_path / "v"
    assert written(out, world=Alone(0, 2)) == 20 + 10
    assert written(out, world=Alone(1, 2)) == 20
    assert len(embed.read(out)[0]) == N


def test_vectors_of_something_else_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "v")
    encoder, loader = setting()
    with pytest.raises(RequestError, match="other embeddings: their encoder is 'a', not 'b'"):
        embed.write(encoder, loader, N, same, columns, tmp_path / "v", {"encoder": "b"}, shard_size=20)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(RequestError, match="does not hold embeddings"):
        written(tmp_path / "mine")


def test_half_precision_is_stored_as_half(tmp_path: Path) -> None:
    written(tmp_path / "h", dtype="float16")
    vectors, _ = embed.read(tmp_path / "h")
    assert vectors.dtype == np.float16
    assert json.loads((tmp_path / "h" / embed.RECORD).read_text())["dtype"] == "float16"


def test_a_full_disk_leaves_the_shards_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = embed.pq.write_table

    def full(table: Any, path: Path) -> None:
        if "00001" in path.name:
            raise OSError(28, "No space left on device")
        real(table, path)

    monkeypatch.setattr(embed.pq, "write_table", full)
    with pytest.raises(WorkError, match=r"No space left on device\. The shards before it are whole"):
        written(tmp_path / "v")
    assert (tmp_path / "v" / "part-00000.parquet").is_file()
    assert not list((tmp_path / "v").glob(".writing*"))
