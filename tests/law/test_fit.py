"""What the engine promises of its one loop."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Method
from headwater.engine import checkpoint, health
from headwater.engine.fit import FitConfig, fit
from headwater.engine.log import read
from headwater.engine.optimise import AdamW, groups
from tests import small
from tests.contract.methods import build


class Line(Method):
    """Fit y = w x with noise from step.rng; non-finite from step `bad` on, while the rate is above `limit`."""

    def __init__(self, bad: float = 2.0, once: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))
        self.bad, self.once = bad, once

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = batch.x["image"].flatten(1)[:, :4]  # type: ignore[union-attr]
        error = (x @ self.weight - 2 * x + 0.1 * step.rng.randn(len(x), 4)).square().mean()
        if step.progress >= self.bad:
            self.bad = 2.0 if self.once else self.bad
            error = error * torch.nan
        return Loss(error)


def numbered(start: int) -> Iterator[Batch]:
    step = start
    while True:
        yield small.batch(seed=step)
        step += 1


def config(**more: object) -> FitConfig:
    return FitConfig(**{"steps": 20, "batch_size": 8, "log_every": 2, "save_every": 4, **more})  # type: ignore[arg-type]


def test_interrupted_and_resumed_equals_uninterrupted_in_weights_and_optimiser(tmp_path: Path) -> None:
    fit(build("simclr"), numbered, config(), out=tmp_path / "a")
    stopped = 0

    def stopping(start: int) -> Iterator[Batch]:
        nonlocal stopped
        for i, batch in enumerate(numbered(start)):
            if i == 7 and not stopped:
                stopped = 1
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    first = fit(build("simclr"), stopping, config(), out=tmp_path / "b")
    assert not first.done and first.step < 20
    second = fit(build("simclr"), numbered, config(), out=tmp_path / "b", resume=True)
    assert second.done
    a, b = (checkpoint.load(tmp_path / r / "checkpoints", 20) for r in "ab")
    for mine, theirs in ((a.method, b.method), (a.optimiser, b.optimiser)):
        assert mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())
    assert [x["step"] for x in read(tmp_path / "b" / "metrics.jsonl") if "loss" in x][-1] == 20


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    tmp_path.joinpath("metrics.jsonl").write_text("")
    outcome = fit(build("simclr"), numbered, config(), out=tmp_path, resume=True)
    assert outcome.done
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 20


def test_accumulated_parts_give_the_gradient_of_the_whole_batch() -> None:
    torch.manual_seed(0)

    def halves(start: int) -> Iterator[Batch]:
        for batch in numbered(start):
            for part in (slice(0, 4), slice(4, 8)):
                yield Batch({"image": batch.x["image"][part]})  # type: ignore[index]

    class Plain(Method):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))

        def loss(self, batch: Batch, step: Step) -> Loss:
            x = batch.x["image"].flatten(1)[:, :4]  # type: ignore[union-attr]
            return Loss((x @ self.weight - 2 * x).square().mean())

    whole, parts = Plain(), Plain()
    fit(whole, numbered, config())
    fit(parts, halves, config(accumulate=2))
    torch.testing.assert_close(whole.weight, parts.weight)


def test_not_finite_once_goes_back_with_half_the_rate_and_finishes(tmp_path: Path) -> None:
    outcome = fit(Line(bad=0.5, once=True), numbered, config(), out=tmp_path)
    assert outcome.done
    events = [x["event"] for x in outcome.history if "event" in x]
    assert len(events) == 1 and "half rate" in events[0]
    assert checkpoint.load(tmp_path / "checkpoints", 20).state["rate_scale"] == 0.5


def test_not_finite_twice_stops_with_a_clear_message_and_keeps_the_healthy_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        WorkError, match=r"not finite at step \d+ again, at half the rate.*last healthy checkpoint is kept"
    ):
        fit(Line(bad=0.5), numbered, config(), out=tmp_path)
    _, kept, _ = checkpoint.latest(tmp_path / "checkpoints")
    assert all(t.isfinite().all() for t in kept.method.values())


def test_keep_best_spares_the_best_step(tmp_path: Path) -> None:
    outcome = fit(Line(), numbered, config(keep_best="-loss", keep_last=1), out=tmp_path)
    best = min((x for x in outcome.history if "loss" in x), key=lambda x: x["loss"])["step"]
    assert set(checkpoint.steps(tmp_path / "checkpoints")) == {best, 20}


def test_weight_decay_spares_vectors_tokens_and_tables() -> None:
    method = build("mae")
    names = {p: n for n, p in method.named_parameters()}
    decayed, spared = ({names[p] for p in group} for group in groups(method))
    assert "mask_token" in spared and "encoder.trunk.norm.weight" in spared and "to_patch.bias" in spared
    assert "encoder.trunk.blocks.0.attention.qkv.weight" in decayed
    assert decayed | spared == {n for n, p in method.named_parameters() if p.requires_grad}


def test_the_rate_warms_up_and_falls() -> None:
    outcome = fit(Line(), numbered, config(steps=50, log_every=1, optimiser=AdamW(rate=0.1, warmup=0.2)))
    rates = [x["rate"] for x in outcome.history]
    assert rates[0] < 0.01 and max(rates) == pytest.approx(0.1, rel=0.02) and rates[-1] < 1e-3
    assert 8 <= rates.index(max(rates)) <= 11


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(RequestError, match="8 does not divide into 1 processes times 3"):
        fit(Line(), numbered, config(accumulate=3))


def test_every_line_of_the_journal_is_json_with_the_promised_numbers(tmp_path: Path) -> None:
    fit(build("simclr"), numbered, config(), out=tmp_path, probe={"image": small.batch().x["image"]})
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all({"step", "loss", "gradient_norm", "rate", "items_per_second", "data_wait"} <= x.keys() for x in lines)
    assert "rankme" in lines[-1] and 0 <= lines[-1]["data_wait"] <= 1


def test_collapse_is_called_collapse() -> None:
    lines = [{"step": i, "loss": 1.0, "rankme": 1.0, "spread": 0.001, "dim": 64} for i in range(20)]
    assert health.judge(lines).level == "bad" and "collapsed" in health.judge(lines).words
    stuck = [{"step": i, "loss": 5.545, "chance": 5.545} for i in range(20)]
    assert "knows nothing" in health.judge(stuck).words
    assert health.judge([{"step": i, "loss": 5.0 / (i + 1), "chance": 5.5} for i in range(20)]).level == "ok"


def test_rankme_counts_dimensions() -> None:
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(500, 16, generator=g)
    flat = torch.randn(500, 2, generator=g) @ torch.randn(2, 16, generator=g)
    assert float(health.rankme(wide)) > 14 and float(health.rankme(flat)) < 2.5
    assert float(health.spread(torch.ones(50, 8))) < 1e-3
