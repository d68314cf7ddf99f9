"""The protocol behind the verdict: balanced draws, honest intervals, no leak, paired differences."""

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.api.evaluate import balanced
from headwater.api.verdict import OURS, interval, of_items, row, verdict
from headwater.core.errors import RequestError
from headwater.data.source import duplicates, split


def line(features: str, budget: Any, values: list[float]) -> dict[str, Any]:
    return row(features, "linear", budget, values, interval(values), 0.0)


def test_draws_are_balanced_and_within_the_pool() -> None:
    labels = np.repeat(np.arange(4), [5, 9, 30, 100])
    drawn = balanced(labels, 5, np.random.default_rng(0), "abcd")
    assert (np.bincount(labels[drawn]) == 5).all() and len(set(drawn)) == 20
    with pytest.raises(RequestError, match=r"6 labels per class.*class a has 5"):
        balanced(labels, 6, np.random.default_rng(0), "abcd")


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 2,000 five-draw experiments around 0.8, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    hits = [low <= 0.8 <= high for low, high in (interval(list(rng.normal(0.8, 0.02, 5))) for _ in range(2000))]
    assert 0.935 < np.mean(hits) < 0.965


def test_a_single_value_gets_the_interval_of_its_test_items() -> None:
    def wilson(n: int) -> tuple[float, float]:
        return of_items(np.ones(n), (np.arange(n) % 10 > 0).astype(float), numbers=False)

    low, high = wilson(100)
    assert 0.82 < low < 0.9 < high < 0.95
    assert wilson(10_000)[0] > 0.89


def test_the_interval_of_r2_covers_as_often_as_it_says() -> None:
    """Half of the variance is said: of 200 test sets of 200 items, about 95 % of the intervals hold 0.5."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        guess = rng.normal(size=200)
        low, high = of_items(guess + rng.normal(size=200), guess, numbers=True)
        hits += low <= 0.5 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_labels_that_are_numbers(tmp_path: Any) -> None:
    """Budgets count labels, scores are R2, and training from scratch is among the rivals."""
    run = hw.pretrain("simclr", "diabetes", out=tmp_path / "r", steps=2, batch_size=32, device="cpu")
    said = hw.evaluate(run.encoder, "diabetes", labels_per_class=[5, "all"], baselines=["raw", "scratch"], draws=2)
    assert said["metric"] == "r2" and said["budgets"] == [50, "all"]
    scratch = {r["budget"]: r for r in said["rows"] if r["features"] == "trained from scratch"}
    assert scratch["all"]["mean"] > 0.35 and scratch["all"]["low"] < scratch["all"]["mean"] < scratch["all"]["high"]
    assert scratch["all"]["mean"] > scratch[50]["mean"] - 0.2
    words = said["verdict"]["words"]
    assert "at 50 labels " in words and "(R² 0." in words and "per class" not in words and "%" not in words
    with pytest.raises(RequestError, match="500 labels were asked for, and the training part has 318"):
        hw.evaluate(run.encoder, "diabetes", labels_per_class=[50])


def test_the_verdict_follows_paired_differences() -> None:
    wide = [0.5, 0.6, 0.7, 0.8, 0.9]
    better = verdict([line(OURS, 1, [v + 0.02 for v in wide]), line("raw pixels", 1, wide)], [1])
    assert better["helped"] is True and better["words"].startswith("Pre-training helped")
    worse = verdict([line(OURS, 1, [v - 0.02 for v in wide]), line("raw pixels", 1, wide)], [1])
    assert worse["helped"] is False and "do not pre-train" in worse["words"]
    same = verdict([line(OURS, 1, wide), line("raw pixels", 1, wide[::-1])], [1])
    assert same["helped"] is None and "no clear difference" in same["words"]


def test_a_public_encoder_is_judged_by_itself() -> None:
    high, low = [0.9, 0.91, 0.92], [0.5, 0.51, 0.52]
    ours = [line(OURS, b, [0.7, 0.71, 0.72]) for b in (1, "all")]
    rows = [*ours, *(line("raw pixels", b, low) for b in (1, "all")), *(line("hf:x", b, high) for b in (1, "all"))]
    told = verdict(rows, [1, "all"], ["hf:x"])
    assert told["helped"] is False
    assert told["words"].startswith("Pre-training helped: at 1 label")
    assert "Do not pre-train, take hf:x: at 1 label" in told["words"]
    rows = [*ours, *(line("raw pixels", b, low) for b in (1, "all")), *(line("hf:x", b, low) for b in (1, "all"))]
    assert verdict(rows, [1, "all"], ["hf:x"])["helped"] is True
    even = [line("hf:x", b, [0.7, 0.71, 0.72]) for b in (1, "all")]
    told = verdict([*ours, *even], [1, "all"], ["hf:x"])
    assert told["helped"] is None
    assert told["words"].startswith("There is no clear difference from hf:x")
    mixed = [*ours, line("hf:x", 1, low), line("hf:x", "all", high)]
    assert "better than hf:x at some budgets and worse at others" in verdict(mixed, [1, "all"], ["hf:x"])["words"]


def test_one_class_alone_is_told(tmp_path: Any) -> None:
    run = hw.pretrain("simclr", "wine", out=tmp_path / "r", steps=1, batch_size=32, device="cpu")
    x = hw.open("wine").tensors["table"]  # type: ignore[index]
    with pytest.raises(RequestError, match="holds one class, red; there is nothing to tell apart"):
        hw.evaluate(run.encoder, (x, np.array(["red"] * len(x))))


def test_rivals_meet_the_very_same_items(tmp_path: Any) -> None:
    """The encoder against itself, given by another path: the same numbers, whatever the order of its items."""
    run = hw.pretrain("simclr", "wine", out=tmp_path / "r", steps=3, batch_size=32, device="cpu")
    again = str(tmp_path / "r" / "encoder")
    source = hw.open("wine")
    assert source.labels is not None
    source.labels = np.where(np.arange(len(source)) % 7, source.labels, -1)  # some lack a label
    said = hw.evaluate(run.encoder, source, labels_per_class=[5], baselines=[], against=[again], draws=3)
    ours, theirs = ([r for r in said["rows"] if r["features"] == name] for name in (OURS, again))
    assert [r["values"] for r in ours] == [r["values"] for r in theirs] and len(ours) == 2
    with pytest.raises(RequestError, match="each given once"):
        hw.evaluate(run.encoder, "wine", against=[again, again])
    with pytest.raises(RequestError, match="reads table and digits holds image"):
        hw.evaluate(
            hw.pretrain("simclr", "digits", out=tmp_path / "d", steps=1, device="cpu").encoder,
            "digits",
            against=[again],
        )


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
