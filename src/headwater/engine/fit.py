"""The one training loop.

Everything a step does is a function of (seed, step) and of the weights: its batch, its randomness, its rate. So a run
that was killed and resumed ends with the same bits as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError, WorkError
from headwater.core.rng import Rng, mix
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Method
from headwater.engine import checkpoint as disk
from headwater.engine import health
from headwater.engine.distributed import World, join, spread
from headwater.engine.log import Journal, Line, Progress, told
from headwater.engine.meter import Meter, stop_signals
from headwater.engine.optimise import SGD, AdamW
from headwater.parts.schedules import WarmupCosine

Stream = Callable[[int], Iterator[Batch]]  # the batches from a given step on


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """`batch_size` counts the samples of one optimiser step over all processes and accumulated parts.

    `save_every` 0 means ten times a run; `keep_best` names a logged number (prefix it with - when less is better). A run whose
    `keep_best` was not better for `patience` logged lines ends there, with the weights that were best; 0: never.
    """

    steps: int = 2000
    batch_size: int = 256
    accumulate: int = 1
    optimiser: AdamW | SGD = field(default_factory=AdamW)
    clip: float = 3.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    log_every: int = 10
    check_every: int = 0
    save_every: int = 0
    keep_last: int = 2
    keep_best: str = ""
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "keep_last"):
            if getattr(self, name) < 1:
                raise RequestError(f"FitConfig.{name} must be at least 1; got {getattr(self, name)}.")
        if self.patience < 0:
            raise RequestError(f"FitConfig.patience must not be negative; got {self.patience}.")


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `done` is False when it was asked to stop; `--resume` goes on from there."""

    done: bool
    step: int
    seconds: float
    verdict: health.Verdict
    history: list[Line]


@dataclass
class State:
    """What a checkpoint remembers beside weights and optimiser."""

    step: int = 0
    rate_scale: float = 1.0
    rollbacks: int = 0
    best: float | None = None
    best_step: int = -1
    since: int = 0  # logged lines after the best


def fit(
    method: Method,
    stream: Stream,
    config: FitConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    probe: Mapping[str, Input] | None = None,
    progress: Progress | None = None,
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Outcome:
    """Minimise `method.loss` over the batches of `stream`, which must not end.

    With `out`, checkpoints and metrics are written there and a loss that is not finite sends the run back to its last
    checkpoint once. `probe` is a fixed batch for the health check; `facts` adds numbers to each logged line.

    Raises WorkError when the loss is not finite for a second time, or the disk refuses a checkpoint.
    """
    if config.patience and not config.keep_best:
        raise RequestError(
            f"FitConfig.patience={config.patience} needs keep_best, the name of the number that is waited for."
        )
    run = _Run(method, config, out, join(), torch.device(device), probe)
    if resume and out is not None and disk.steps(out / "checkpoints"):  # killed before the first one: from the start
        run.restore()
    elif out is not None:
        run.save()
    run.open_journal(resume)
    started = time.monotonic()
    if progress is not None:
        progress.begin("step", config.steps)
    try:
        with stop_signals() as stop:
            _loop(run, stream, stop, progress if run.world.main else None, facts)
    finally:
        run.close()
        if progress is not None:
            progress.end()
    done = run.state.step >= config.steps or run.weary()
    if done and config.patience:
        run.take_best()
    return Outcome(done, run.state.step, time.monotonic() - started, run.verdict, run.lines)


def _loop(
    run: "_Run", stream: Stream, stop: list[int], progress: Progress | None, facts: Callable[[], Mapping[str, Any]]
) -> None:
    config, meter, batches = run.config, Meter(run.world), stream(run.state.step)
    while run.state.step < config.steps and not run.weary():
        loss, norm = run.step(batches, meter)
        meter.add(loss, norm)
        if not run.due(config.log_every) and not (stop and run.world.size == 1):
            continue
        if not meter.finite():
            run.roll_back(meter)
            batches = stream(run.state.step)
            continue
        line = run.log(meter, facts())
        if progress is not None:
            progress.show(run.state.step, {**told(line), "health": run.verdict.brief})
        stopping = run.world.any(bool(stop))
        if run.due(run.save_every) or stopping:
            run.save()
        if stopping:
            return


class _Run:
    """The moving parts of one run."""

    def __init__(
        self,
        method: Method,
        config: FitConfig,
        out: Path | None,
        world: World,
        device: torch.device,
        probe: Mapping[str, Input] | None,
    ) -> None:
        if config.batch_size % (world.size * config.accumulate):
            raise RequestError(
                f"A batch of {config.batch_size} does not divide into {world.size} processes "
                f"times {config.accumulate} accumulated parts."
            )
        self.method, self.config, self.out, self.world, self.device = method.to(device), config, out, world, device
        self.called = spread(method, world)
        self.optimiser = config.optimiser.build(method)
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.rate = WarmupCosine(config.optimiser.rate, config.optimiser.warmup, config.optimiser.final_rate)
        self.probe = None if probe is None else {m: x.to(device) for m, x in probe.items()}
        self.save_every = _multiple(config.save_every or config.steps // 10, config.log_every)
        self.check_every = _multiple(config.check_every or config.steps // 20, config.log_every)
        self.journal: Journal | None = None
        self.held: dict[str, Tensor] = {}
        self.state, self.lines, self.complaints = State(), list[Line](), list[str]()
        self.verdict = health.Verdict("watch", "just begun")
        self.method.train()

    def step(self, batches: Iterator[Batch], meter: "Meter") -> tuple[Loss, Tensor]:
        """One optimiser step over `accumulate` parts of the batch."""
        t, config = self.state.step, self.config
        torch.manual_seed(mix(config.seed, "torch", t, self.world.rank))  # for drop path and dropout
        fraction = t / max(1, config.steps - 1)
        for part in range(config.accumulate):
            with meter.waiting():
                batch = next(batches).to(self.device)
            rng = Rng(mix(config.seed, "step", t, part), self.device, self.world.rank, self.world.size)
            step = Step(rng, fraction, self.world.gather)
            with self._precision():
                loss: Loss = self.called(batch, step)
            (loss.value / config.accumulate).backward()
            meter.items += len(batch) * self.world.size
        norm = nn.utils.clip_grad_norm_(self.trained, config.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(fraction) * self.state.rate_scale * group["scale"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.method.after_step(step, loss.carry)
        self.state.step += 1
        return loss, norm

    def due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.config.steps

    def log(self, meter: "Meter", facts: Mapping[str, Any]) -> Line:
        line: Line = {"step": self.state.step, **meter.read(), "rate": self.optimiser.param_groups[0]["lr"], **facts}
        if self.probe is not None and self.due(self.check_every):
            for modality, encoder in self.method.encoders().items():
                line |= health.examine(encoder, self.probe[modality])
        self._write(line)
        self.verdict = health.judge(self.lines)
        best = self.config.keep_best
        if best and best.lstrip("-") in line:
            value = line[best.lstrip("-")] * (-1 if best.startswith("-") else 1)
            self.state.since += 1
            if self.state.best is None or value > self.state.best:
                self.state.best, self.state.best_step, self.state.since = value, self.state.step, 0
                self.save()
                if self.out is None and self.config.patience:
                    self.held = {k: v.detach().cpu().clone() for k, v in self.method.state_dict().items()}
        return line

    def weary(self) -> bool:
        return 0 < self.config.patience <= self.state.since

    def take_best(self) -> None:
        """The weights as they were when the number waited for was best."""
        if self.out is not None and self.state.best_step >= 0:
            self.method.load_state_dict(disk.load(self.out / "checkpoints", self.state.best_step).method)
        elif self.held:
            self.method.load_state_dict(self.held)

    def roll_back(self, meter: "Meter") -> None:
        """Back to the last healthy checkpoint with half the rate; at the second time, stop and say so."""
        at, kept = self.state.step, self.state.rollbacks
        if self.out is None or kept:
            again = " again, at half the rate" if kept else ""
            raise WorkError(
                f"The loss or its gradient is not finite at step {at}{again}. Lower the rate "
                f"(--set fit.optimiser.rate={self.config.optimiser.rate / 10:g}), use --precision float32, or look for "
                "extreme values in the data with `headwater doctor`. The last healthy checkpoint is kept."
            )
        self.restore()
        self.state.rate_scale, self.state.rollbacks = self.state.rate_scale / 2, kept + 1
        self.save()
        self._write(
            {"step": self.state.step, "event": f"not finite at step {at}: back to {self.state.step}, half rate"}
        )
        meter.clear()

    def save(self) -> None:
        if self.out is None:
            return
        if self.world.main:
            tensors = disk.optimiser_tensors(self.method, self.optimiser)
            content = disk.Checkpoint(self.method.state_dict(), tensors, asdict(self.state))
            disk.save(self.out / "checkpoints", self.state.step, content)
            disk.prune(self.out / "checkpoints", self.config.keep_last, self.state.best_step)
        self.world.barrier()

    def restore(self) -> None:
        assert self.out is not None
        _, saved, complaints = disk.latest(self.out / "checkpoints")
        self.method.load_state_dict(saved.method)
        disk.restore_optimiser(self.method, self.optimiser, saved.optimiser)
        self.state, self.complaints = State(**saved.state), complaints

    def open_journal(self, resume: bool) -> None:
        if self.out is not None and self.world.main:
            self.journal = Journal(self.out / "metrics.jsonl", self.state.step if resume else None)
            self.lines = self.journal.lines
            for complaint in self.complaints:
                self._write({"step": self.state.step, "event": complaint})

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _write(self, line: Line) -> None:
        if self.journal is None:
            self.lines.append(line)
        else:
            self.journal.write(line)

    def _precision(self) -> AbstractContextManager[Any]:
        wanted = self.config.precision
        hardware = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        if wanted == "bfloat16" or (wanted == "auto" and hardware):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


def _multiple(value: int, of: int) -> int:
    return max(1, round(value / of)) * of
