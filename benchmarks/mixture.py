"""Does CLIMB find, without a label, which kinds of text are worth learning from? A corpus of six generated kinds.

    python benchmarks/mixture.py [--seeds 0,1,2] [--write]

Sums, short sentences, lists, two kinds of noise and brackets, as text files, more noise than sums. What counts are sums and
sentences that are not in the corpus: `headwater curate climb` clusters the texts by their bytes and learns from 40 trials of
a small masked autoencoder. Then models that learn three times as long, on the mixture found, on all groups alike and on the
corpus as it is, are measured on other sums and sentences, which the search never saw. Beside them stands the mixture that
the same trials give when their losses are shuffled. `--write` records it all in benchmarks/results/mixture.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

import headwater as hw
from headwater.api.pool import pool_of
from headwater.api.trials import trial_of
from headwater.core.verbs import Choice
from headwater.methods.curate.climb import boosted
from headwater.parts.mixtures import drawn

RESULTS = Path(__file__).parent / "results" / "mixture.json"
SIZES = {"sums": 60, "sentences": 60, "lists": 100, "noise": 150, "vowels": 150, "brackets": 80}
USEFUL, NOISE = ("sums", "sentences"), ("noise", "vowels")
ROUNDS, STEPS, DRAWS = (23, 11, 6), 60, 300
Draw = np.random.Generator


def sums(g: Draw) -> str:
    pairs = g.integers(1, 50, (3, 2)).tolist()
    return " ".join(f"{a} plus {b} is {a + b}." for a, b in pairs)


def sentences(g: Draw) -> str:
    said = []
    for _ in range(2):
        size, who, does = (
            g.choice(w.split()) for w in ("old small grey", "cat dog bird horse child", "run eat sing wait")
        )
        said.append(f"the {size} {who} {does}s." if g.random() < 0.5 else f"the {size} {who}s {does}.")
    return " ".join(said)


def brackets(g: Draw) -> str:
    depth, out = 0, ""
    while len(out) < 36:
        closes = depth and g.random() < 0.5
        depth += -1 if closes else 1
        out += (")" if closes else "(") + (g.choice(["x=1;", "y=2;", "f;"]) if g.random() < 0.3 else "")
    return out


KINDS: dict[str, Callable[[Draw], str]] = {
    "sums": sums,
    "sentences": sentences,
    "lists": lambda g: "; ".join(
        f"- {w}" for w in g.choice(["APPLE", "PEAR", "MILK", "BREAD", "SALT", "RICE", "TEA", "OIL"], 6)
    ),
    "noise": lambda g: "".join(map(chr, g.integers(33, 127, 36))),
    "vowels": lambda g: "".join(g.choice([*"aeiouxyzqkjvw"], 36)),
    "brackets": brackets,
}


def write(folder: Path, kinds: list[str], g: Draw) -> None:
    folder.mkdir(parents=True)
    for i, kind in enumerate(kinds):
        (folder / f"{i:04}.txt").write_text(KINDS[kind](g))


def measure(seed: int, scratch: Path) -> dict[str, Any]:
    started, g, at = time.monotonic(), np.random.default_rng(seed), scratch / str(seed)
    kinds = g.permutation([kind for kind, n in SIZES.items() for _ in range(n)]).tolist()
    write(at / "corpus", kinds, g)
    for name in ("wanted", "test"):
        write(at / name, [*USEFUL] * 60, g)
    settings = (f"rounds={ROUNDS}", "groups=6", "clusters=24")
    found = hw.curate(
        "climb", at / "corpus", target=at / "wanted", keep=DRAWS, out=at / "mixed", steps=STEPS, seed=seed, set=settings,
        device="cpu",
    )  # fmt: skip
    seconds = time.monotonic() - started
    group = torch.from_numpy(pq.read_table(at / "mixed/kept.parquet")["group"].to_numpy().copy())
    k = int(group.max()) + 1
    part = np.array(
        [[np.mean(np.array(kinds)[group == j] == kind) for kind in SIZES] for j in range(k)]
    )  # group -> kinds
    mixtures, losses = np.array(found.facts["mixtures"]), np.array(found.facts["losses"])
    size = group.bincount().numpy() / len(group)
    shuffled = boosted(mixtures, g.permutation(losses))
    unseen = drawn(size, 4000, g, None)
    mixed = {
        "climb": np.array([*found.facts["mixture"].values()]),
        "uniform": np.full(k, 1 / k),
        "as it is": size,
        "losses shuffled": unseen[np.argsort(shuffled(unseen))[:50]].mean(0),
    }
    pool = pool_of(at / "corpus", at / "again", None, None, "cpu", 2, None)
    trial = trial_of(pool, at / "test", "mae", 3 * STEPS, seed + 1000, "cpu", 2)
    choice = Choice(torch.arange(len(group)), {"group": group}, draws=DRAWS)
    loss = {what: trial(replace(choice, mixture=dict(enumerate(a.tolist())))) for what, a in mixed.items()}
    times = {
        what: dict(zip(SIZES, (len(SIZES) * a @ part).round(3).tolist(), strict=True)) for what, a in mixed.items()
    }
    folds = np.arange(ROUNDS[0]) % 5  # of the first round, whose mixtures are random, each foretold from all others
    told = np.empty(ROUNDS[0])
    for fold in range(5):
        rest = np.r_[folds != fold, np.ones(len(losses) - ROUNDS[0], bool)]
        told[folds == fold] = boosted(mixtures[rest], losses[rest])(mixtures[: ROUNDS[0]][folds == fold])
    return {
        "seed": seed,
        "rand_index": round(float(adjusted_rand_score(kinds, group.numpy())), 3),
        "times_uniform": times,
        "least_useful": min(times["climb"][kind] for kind in USEFUL),
        "most_noise": max(times["climb"][kind] for kind in NOISE),
        "loss": loss,
        "foretold": round(float(spearmanr(told, losses[: ROUNDS[0]]).statistic), 3),
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = []
    with TemporaryDirectory() as scratch:
        for seed in asked.seeds.split(","):
            rows.append(measure(int(seed), Path(scratch)))
            print(json.dumps(rows[-1]), flush=True)
    if asked.write:
        RESULTS.write_text(
            json.dumps({"sizes": SIZES, "rounds": ROUNDS, "steps": STEPS, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
