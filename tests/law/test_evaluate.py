"""The protocol behind the verdict: balanced draws, honest intervals, no leak, paired differences."""

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.api.evaluate import balanced
from headwater.api.verdict import OURS, interval, row, verdict
from headwater.core.errors import RequestError
from headwater.data.source import duplicates, split


def line(features: str, budget: Any, values: list[float]) -> dict[str, Any]:
    return row(features, "linear", budget, values, 500, 0.0)


def test_draws_are_balanced_and_within_the_pool() -> None:
    labels = np.repeat(np.arange(4), [5, 9, 30, 100])
    drawn = balanced(labels, 5, np.random.default_rng(0))
    assert (np.bincount(labels[drawn]) == 5).all() and len(set(drawn)) == 20
    with pytest.raises(RequestError, match=r"6 labels per class.*class 0 has 5"):
        balanced(labels, 6, np.random.default_rng(0))


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 2,000 five-draw experiments around 0.8, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    hits = [low <= 0.8 <= high for low, high in (interval(list(rng.normal(0.8, 0.02, 5)), 0) for _ in range(2000))]
    assert 0.935 < np.mean(hits) < 0.965


def test_a_single_value_gets_the_interval_of_its_test_items() -> None:
    low, high = interval([0.9], 100)
    assert 0.82 < low < 0.9 < high < 0.95
    assert interval([0.9], 10_000)[0] > 0.89


def test_the_verdict_follows_paired_differences() -> None:
    wide = [0.5, 0.6, 0.7, 0.8, 0.9]
    better = verdict([line(OURS, 1, [v + 0.02 for v in wide]), line("raw pixels", 1, wide)], [1])
    assert better["helped"] is True and better["words"].startswith("Pre-training helped")
    worse = verdict([line(OURS, 1, [v - 0.02 for v in wide]), line("raw pixels", 1, wide)], [1])
    assert worse["helped"] is False and "do not pre-train" in worse["words"]
    same = verdict([line(OURS, 1, wide), line("raw pixels", 1, wide[::-1])], [1])
    assert same["helped"] is None and "no clear difference" in same["words"]


def test_the_split_is_disjoint_stratified_and_the_same_for_all() -> None:
    source = hw.open("digits")
    pool, test = split(source, 0.28, 0)
    again, _ = split(source, 0.28, 0)
    ids = {pool.id(i) for i in range(len(pool))} & {test.id(i) for i in range(len(test))}
    assert not ids and len(pool) + len(test) == 1797
    assert [pool.id(i) for i in range(50)] == [again.id(i) for i in range(50)]
    assert pool.labels is not None
    assert test.labels is not None
    assert np.abs(np.bincount(test.labels) / len(test) - np.bincount(pool.labels) / len(pool)).max() < 0.005


def test_what_stands_on_both_sides_is_found() -> None:
    x = torch.rand(20, 4)
    x[13] = x[2]
    source = hw.open((x, torch.arange(20) % 2))
    pool, test = hw.open(x[:10]), hw.open(x[10:])
    assert len(duplicates(pool, test)) == 1
    assert not duplicates(*split(source, 0.5, 0)) or True in [
        bool(duplicates(*split(source, 0.5, s))) for s in range(5)
    ]


def test_labels_of_the_test_part_never_reach_a_probe(tmp_path: Any) -> None:
    """With test labels shuffled, accuracy falls to chance: nothing was learnt from them."""
    run = hw.pretrain("simclr", "wine", out=tmp_path / "r", steps=3, batch_size=32, device="cpu")
    honest = hw.evaluate(run.encoder, "wine", labels_per_class=["all"], baselines=["raw"])
    raw = next(r for r in honest["rows"] if r["features"] == "raw values" and r["probe"] == "linear")
    assert raw["mean"] > 0.9
    source = hw.open("wine")
    _, test = split(source, 0.28, 0)
    inside = {test.id(i) for i in range(len(test))}
    labels = np.array(source.labels)
    at = [i for i in range(len(source)) if source.id(i) in inside]
    labels[at] = np.random.default_rng(0).permutation(labels[at])
    source.labels = labels
    shuffled = hw.evaluate(run.encoder, source, labels_per_class=["all"], baselines=["raw"])
    raw = next(r for r in shuffled["rows"] if r["features"] == "raw values" and r["probe"] == "linear")
    assert raw["mean"] < 0.65
