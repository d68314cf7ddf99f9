"""Sensor logs as CSV files: uneven clocks, gaps, lengths of their own. Learn from them without labels.

python examples/sensor_series.py [--steps 200] [--out runs/sensors]
"""

import argparse
from pathlib import Path

import numpy as np

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="runs/sensors")
given = parser.parse_args()

made = hw.open("waves")
folder = Path(given.out).with_name("sensor-files")
draw = np.random.default_rng(0)
for i in range(180):
    at = folder / made.classes[made.labels[i]]
    at.mkdir(parents=True, exist_ok=True)
    values = made.read(i)["series"].numpy()[:, : draw.integers(96, 129)]
    time = np.arange(values.shape[1]) + (draw.uniform(-0.2, 0.2, values.shape[1]) if i % 3 == 0 else 0)
    rows = [
        f"{t:.3f},{a:.4f},{'' if draw.random() < 0.03 else f'{b:.4f}'}" for t, a, b in zip(time, *values, strict=True)
    ]
    (at / f"{i}.csv").write_text("time,left,right\n" + "\n".join(rows))

data = hw.open(f"series:{folder}")
print("\n".join(hw.doctor(data).lines()))

hw.pretrain("mae", data, out=given.out, steps=given.steps, batch_size=32, holdout=0.28)
result = hw.evaluate(given.out, data, labels_per_class=[5], baselines=["random"])
print(f"\n{result['verdict']['words']}")
