"""A table with missing cells: learn from its rows, embed them, and find the rows most alike.

python examples/table_with_gaps.py [--steps 300] [--out runs/table]
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--out", default="runs/table")
given = parser.parse_args()

# Real measurements of 178 wines, from which one cell in ten is lost.
wine = load_wine()
table = Path(given.out).with_suffix(".csv")
table.parent.mkdir(parents=True, exist_ok=True)
lost = np.random.default_rng(0).random(wine.data.shape) < 0.1
with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([*wine.feature_names, "cultivar"])
    for row, gaps, label in zip(wine.data, lost, wine.target, strict=True):
        writer.writerow([*("" if gap else f"{v:g}" for v, gap in zip(row, gaps, strict=True)), f"cultivar {label}"])

data = hw.open(table, labels="cultivar")
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("mae", data, out=given.out, steps=given.steps, batch_size=64)
vectors = hw.embed(run.encoder, data)
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
nearest = (unit @ unit.T - 2 * np.eye(len(unit))).argmax(1)
assert data.labels is not None
print(f"\nThe nearest row is of the same cultivar for {np.mean(data.labels[nearest] == data.labels):.0%} of the rows.")
