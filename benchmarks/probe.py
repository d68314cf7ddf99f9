"""The linear probe against scikit-learn's, on the same generated features, in one run: time, accuracy, objective.

    python benchmarks/probe.py [--n 50000 --dim 768 --classes 100 --threads 2 --write]

The features have a power-law spectrum, as those of encoders do. Both sides get them centred and on unit scale and
minimise the same function, C * sum of losses + ||W||^2 / 2, whose value the table gives in double precision, as its
excess over the best value found. Both stop by the same tolerance, 1e-4, and scikit-learn once more at 1e-5. The search
over C is timed on fewer rows, for scikit-learn needs long. On a busy machine the ratio of CPU seconds with one thread
is the figure to trust.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import threadpool_limits

from headwater.methods.assess.linear_probe import LinearProbe

RESULTS = Path(__file__).parent / "results" / "probe.json"
CS = (1e-3, 1e-2, 1e-1, 1.0)


def features(n: int, dim: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian classes whose means and noise share a spectrum of variance ~ 1 / rank, rotated at random."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    spread = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    means = 0.15 * rng.standard_normal((classes, dim), dtype=np.float32) * spread
    y = rng.integers(classes, size=n)
    x = (means[y] + rng.standard_normal((n, dim), dtype=np.float32) * spread) @ rotation
    x -= x.mean(0)
    return x / x.std(), y


def objective(model: Any, x: NDArray[np.float32], y: NDArray[np.int64], c: float) -> float:
    """What both minimise, divided by C and the number of rows."""
    logits = torch.from_numpy(x.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    return float(loss) + float(np.square(model.coef_, dtype=np.float64).sum()) / (2 * c * len(x))


def timed(model: Any, x: NDArray[Any], y: NDArray[np.int64]) -> tuple[Any, float, float]:
    """The fitted model, the seconds on the wall and those of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    return model, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("n", 50_000), ("dim", 768), ("classes", 100), ("threads", 2), ("search-rows", 4_000)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--C", type=float, default=0.1)
    arguments.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    ask = arguments.parse_args()
    torch.set_num_threads(ask.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)

    x, y = features(ask.n + ask.n // 5, ask.dim, ask.classes)
    (x, x_test), (y, y_test) = np.split(x, [ask.n]), np.split(y, [ask.n])
    peers: dict[str, Callable[[], tuple[Any, float, float]]] = {
        "headwater": lambda: timed(LinearProbe(C=ask.C), x, y),
        "scikit-learn float32": lambda: timed(LogisticRegression(C=ask.C, max_iter=1000), x, y),
        "scikit-learn float64": lambda: timed(LogisticRegression(C=ask.C, max_iter=1000), x.astype(np.float64), y),
        "scikit-learn float32, tol 1e-5": lambda: timed(LogisticRegression(C=ask.C, max_iter=1000, tol=1e-5), x, y),
    }
    rows: list[dict[str, Any]] = []
    print(f"{ask.n} x {ask.dim}, {ask.classes} classes, C={ask.C}, {ask.threads} threads")
    with threadpool_limits(ask.threads):
        timed(LinearProbe(C=ask.C, max_iter=1), x[:2000], y[:2000])
        for name, fit in peers.items():
            model, seconds, cpu = fit()
            accuracy = float((model.predict(x_test) == y_test).mean())
            iterations = int(np.max(model.n_iter_))
            value = objective(model, x, y, ask.C)
            row = {"who": name, "seconds": seconds, "cpu_seconds": cpu, "iterations": iterations}
            rows.append(row | {"accuracy": accuracy, "objective": value})
            print(
                f"  {name:32s} {seconds:8.2f} s ({cpu:.2f} CPU)  {iterations:4d} iterations  accuracy {accuracy:.4f}",
                flush=True,
            )
        some, few = x[: ask.search_rows], y[: ask.search_rows]
        ours, our_search, our_cpu = timed(LinearProbe(Cs=CS), some, few)
        theirs, their_search, their_cpu = timed(LogisticRegressionCV(Cs=CS, cv=5, max_iter=1000), some, few)
    best = min(row["objective"] for row in rows)
    for row in rows:
        row["ratio"] = row["seconds"] / rows[0]["seconds"]
        row["cpu_ratio"] = row["cpu_seconds"] / rows[0]["cpu_seconds"]
        row["excess"] = row["objective"] / best - 1
        times = f"{row['ratio']:5.1f} x the time ({row['cpu_ratio']:.1f} x CPU)"
        print(f"  {row['who']:32s} {times}  objective {row['excess']:.1e} above the best")
    search = {
        "rows": ask.search_rows,
        "ratio": their_search / our_search,
        "cpu_ratio": their_cpu / our_cpu,
        "seconds": [our_search, their_search],
        "C": [ours.C_, float(np.ravel(theirs.C_)[0])],
        "accuracy": [float((m.predict(x_test) == y_test).mean()) for m in (ours, theirs)],
    }
    print(f"  search over {len(CS)} C x 5 folds (ours, LogisticRegressionCV): {search}")
    if ask.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"setting": vars(ask), "fit": rows, "search": search}, indent=2) + "\n")


if __name__ == "__main__":
    main()
