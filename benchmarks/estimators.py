"""Estimators on frozen features beside scikit-learn's own, on the same rows, in turns: seconds to fit and to predict.

    python benchmarks/estimators.py [--n 100000 --dim 768 --classes 100 --rounds 3 --threads 2 --write]

The best of the rounds counts, for whatever else a machine does only slows down. `alike` is the share of rows of which both
say the same: all but for naive Bayes, whose classes share their variances here and not there.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from probe import features
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from threadpoolctl import threadpool_limits

import headwater as hw

RESULTS = Path(__file__).parent / "results" / "estimators.json"
PAIRS = {
    "naive Bayes": (lambda: hw.assess.NaiveBayes(), lambda: GaussianNB()),
    "nearest class mean": (lambda: hw.assess.NMC(), lambda: make_pipeline(Normalizer(), NearestCentroid())),
    "kNN": (
        lambda: hw.assess.KNN(k=5, metric="euclidean", weights="uniform"),
        lambda: KNeighborsClassifier(n_neighbors=5, algorithm="brute"),
    ),
}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("n", 100_000),
        ("dim", 768),
        ("classes", 100),
        ("rounds", 3),
        ("threads", 2),
        ("test", 2000),
    ):
        ask.add_argument(f"--{name}", type=int, default=default)
    ask.add_argument("--write", action="store_true")
    given = ask.parse_args()
    torch.set_num_threads(given.threads)
    x, y = features(given.n + given.test, given.dim, given.classes)
    (x, z), y = np.split(x, [given.n]), y[: given.n]
    rows: list[dict[str, Any]] = []
    with threadpool_limits(given.threads):
        for name, makers in PAIRS.items():
            best = np.full((2, 2), np.inf)
            said: list[Any] = [None, None]
            for _ in range(given.rounds):
                for side, make in enumerate(makers):
                    model, start = make(), time.perf_counter()
                    model.fit(x, y)
                    fitted = time.perf_counter()
                    said[side] = model.predict(z)
                    took = fitted - start, time.perf_counter() - fitted
                    best[side] = np.minimum(best[side], took)
            row = {"what": name, "fit": best[:, 0].tolist(), "predict": best[:, 1].tolist()}
            row |= {"alike": float(np.mean(said[0] == said[1])), "ratio": (best[1] / best[0]).tolist()}
            rows.append(row)
            print(
                f"{name:20} fit {best[0, 0]:.2f} s, scikit-learn {best[1, 0]:.2f} s; predict {best[0, 1]:.2f} s, "
                f"scikit-learn {best[1, 1]:.2f} s; alike on {row['alike']:.1%}",
                flush=True,
            )
    if given.write:
        RESULTS.write_text(json.dumps({"setting": vars(given), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
