"""Few labels, many pictures: pre-train without labels, then see what one and five labels per class are worth.

python examples/few_labels.py [--steps 1000] [--out runs/few-labels]
"""

import argparse

import headwater as hw
from headwater.report.table import evaluation_lines

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--out", default="runs/few-labels")
given = parser.parse_args()

data = hw.open("digits")
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("simclr", data, out=given.out, steps=given.steps, holdout=0.28)
print(f"\nhealth: {run.outcome.verdict.words}\n")

result = hw.evaluate(given.out, data, labels_per_class=[1, 5])
print("\n".join(evaluation_lines(result)))
print(f"\n{result['verdict']['words']}")
