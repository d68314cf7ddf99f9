"""Pictures and captions named in a table, as people have them: some files are gone, some captions were never written.

python examples/pairs_of_files.py [--steps 600] [--out runs/pairs]
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import headwater as hw

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--out", default="runs/pairs")
given = parser.parse_args()

folder = Path(f"{given.out}-files")
(folder / "pictures").mkdir(parents=True, exist_ok=True)
digits = load_digits()
pictures, answers = digits.images[:800], digits.target[:800]
with open(folder / "pairs.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["file", "caption", "label"])
    for i, (picture, k) in enumerate(zip(pictures, answers, strict=True)):
        name = f"pictures/{i:04}.png"
        if i != 100:  # this file is gone
            Image.fromarray((picture * 15.9).astype(np.uint8)).save(folder / name)
        shape = "even" if k % 2 == 0 else "odd"
        caption = "" if i % 20 == 7 else f"{NUMBERS[k]}, an {shape} digit"  # one in twenty has no words
        table.writerow([name, caption, NUMBERS[k]])

data = hw.open(folder / "pairs.csv", missing=True)
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("clip", data, out=given.out, steps=given.steps, batch_size=64, holdout=0.28)
print(f"\nhealth: {run.outcome.verdict.words}\n")

result = hw.evaluate(hw.load(run.path, "image"), data, labels_per_class=[1, 5], baselines=["raw", "random"], draws=3)
print(result["verdict"]["words"])
