"""Does a network learn more from a few distilled pairs of KRR-ST than from as many real ones? Scikit-learn's digits.

    python benchmarks/distilled.py [--samples 20,100] [--seeds 0,1,2] [--write]

A teacher learns by SimCLR on 72 % of the pictures, without labels. Out of those, `headwater curate krr-st` makes a few
pairs of picture and vector; as many real pictures with the teacher's vectors are the rival. `headwater pretrain krr-st`
learns from either, with the same architecture and steps; each encoder, the teacher and an untrained one are measured by
linear probe on the other 28 %. `--write` records the rows in benchmarks/results/distilled.json.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import headwater as hw
from headwater.api.verdict import OURS
from headwater.data.source import Subset, split

RESULTS = Path(__file__).parent / "results" / "distilled.json"
HOLDOUT, BUDGETS = 0.28, [1, 5, 10]


def probe(encoder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Mean accuracy of linear probes at each number of labels per class, of the encoder and of an untrained one."""
    result = hw.evaluate(
        encoder, "digits", labels_per_class=BUDGETS, baselines=["random"], test=HOLDOUT, seed=seed, device="cpu"
    )
    found: dict[str, dict[str, float]] = {}
    for row in result["rows"]:
        if row["probe"] == "linear":
            found.setdefault("ours" if row["features"] == OURS else "untrained", {})[str(row["budget"])] = row["mean"]
    return found


def measure(seed: int, samples: list[int], scratch: Path) -> list[dict[str, Any]]:
    at = scratch / str(seed)
    hw.pretrain("simclr", "digits", out=at / "teacher", seed=seed, holdout=HOLDOUT, device="cpu")
    pool, _ = split(hw.open("digits"), HOLDOUT, seed)
    vectors = hw.embed(at / "teacher", pool)
    vectors = (vectors - vectors.mean(0)) / vectors.std(0).clip(1e-6)
    teacher = probe(at / "teacher", seed)
    rows = [{"seed": seed, "learned_from": "all, by SimCLR (the teacher)", "samples": len(pool), **teacher["ours"]}]
    rows.append({"seed": seed, "learned_from": "nothing", "samples": 0, **teacher["untrained"]})
    for n in samples:
        made = hw.curate("krr-st", pool, keep=n, out=at / f"few-{n}", encoder=at / "teacher", seed=seed, device="cpu")
        few = np.random.default_rng(seed).permutation(len(pool))[:n]
        pictures = Subset(pool, few).tensors
        assert pictures is not None
        np.savez(at / f"real-{n}.npz", x=pictures["image"].numpy(), targets=vectors[few])
        for what, data in (("distilled pairs", made.data), ("real pairs", at / f"real-{n}.npz")):
            run = hw.pretrain("krr-st", data, out=at / f"{what}-{n}", seed=seed, device="cpu")
            rows.append({"seed": seed, "learned_from": what, "samples": n, **probe(run.path, seed)["ours"]})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for key in dict.fromkeys((r["learned_from"], r["samples"]) for r in rows):
        mine = [r for r in rows if (r["learned_from"], r["samples"]) == key]
        means = {str(b): round(float(np.mean([r[str(b)] for r in mine])), 4) for b in BUDGETS}
        spreads = {
            f"{b}_spread": round(float(np.std([r[str(b)] for r in mine], ddof=1)), 4) for b in BUDGETS if mine[1:]
        }
        out.append({"learned_from": key[0], "samples": key[1], "seeds": len(mine), **means, **spreads})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="20,100")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = []
    with TemporaryDirectory() as scratch:
        for seed in asked.seeds.split(","):
            rows += measure(int(seed), [int(n) for n in asked.samples.split(",")], Path(scratch))
    made = {"metric": "accuracy of a linear probe by labels per class", "summary": summary(rows), "rows": rows}
    for line in made["summary"]:
        print(line)
    if asked.write:
        RESULTS.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
