"""What the engine costs over a bare loop of the same method, and embedding over the bare forward pass.

    python benchmarks/overhead.py [--steps 150] [--threads 2] [--write]

The bare loop does what no training can do without: batch, loss, backward, clip, optimiser, after_step. Both run in turns
in one process, and the median of the ratios is told.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from headwater.api import catalogue
from headwater.api.pretrain import build
from headwater.api.recipe import recipe_for
from headwater.core.rng import Rng, mix
from headwater.core.types import Step
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.engine import embed
from headwater.engine.fit import FitConfig, fit
from headwater.engine.optimise import AdamW

ROOT = Path(__file__).parents[1]


def bare(method: torch.nn.Module, loader: Loader, steps: int) -> float:
    """Seconds per step of the least loop there is."""
    trained = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    method.train()
    batches = loader(0)
    started = time.perf_counter()
    for t in range(steps):
        step = Step(Rng(mix(0, t)), t / steps)
        loss = method(next(batches), step)
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 3.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        method.after_step(step, loss.carry)
    return (time.perf_counter() - started) / steps


def engine(method: torch.nn.Module, loader: Loader, steps: int) -> float:
    """Seconds per step of `fit`, with its journal and the checkpoints of a run of 1,000 steps."""
    with TemporaryDirectory() as out:
        config = FitConfig(steps=steps, batch_size=loader.batch_size, save_every=100, optimiser=AdamW())
        return fit(method, loader, config, out=Path(out)).seconds / steps


def training(name: str, steps: int, repeats: int) -> dict[str, float]:
    source = open_data("digits")
    module = catalogue.load(name)
    recipe = recipe_for(module, source.spec, len(source), 10)
    ratios, times = [], []
    for i in range(repeats + 1):
        method = build(module, recipe, source, 0)
        loader = Loader(source, recipe.fit.batch_size)
        a, b = bare(method, loader, steps), engine(method, loader, steps)
        if i:  # the first round warms up
            ratios.append(b / a)
            times.append(1000 * a)
    return {"bare_ms_per_step": statistics.median(times), "engine_over_bare": statistics.median(ratios)}


def embedding(repeats: int, n: int = 4_096) -> dict[str, float]:
    """Writing Parquet against the forward pass on the same batches, held in memory."""
    x = np.random.default_rng(0).random((n, 3, 32, 32), dtype=np.float32)
    source = open_data(x)
    recipe = recipe_for(catalogue.load("simclr"), source.spec, n, 0)
    encoder = next(iter(build(catalogue.load("simclr"), recipe, source, 0).encoders().values())).eval()
    loader = Loader(source, 256)
    batches = [batch.x["image"] for _, batch in loader.ordered(range(n))]
    ratios, rates = [], []
    for i in range(repeats + 1):
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                encoder(batch)
        forward = time.perf_counter() - started
        with TemporaryDirectory() as out:
            started = time.perf_counter()
            embed.write(encoder, loader, n, lambda v: v, lambda c: {"id": [str(j) for j in c]}, Path(out) / "v", {})
            whole = time.perf_counter() - started
        if i:
            ratios.append(forward / whole)
            rates.append(n / whole)
    return {"items_per_second": statistics.median(rates), "share_of_bare_forward": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {name: training(name, given.steps, given.repeats) for name in ("simclr", "mae")}
    result = {"threads": given.threads, "training": found, "embedding": embedding(given.repeats)}
    print(json.dumps(result, indent=1))
    if given.write:
        (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
        (ROOT / "benchmarks" / "results" / "overhead.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
