"""Electrocardiograms as WFDB records: learn from all without labels, then tell six diagnoses from a few labels of each.

python examples/ecg.py [--steps 800] [--out runs/ecg]
"""

import argparse
from pathlib import Path

import numpy as np

import headwater as hw
from headwater.data.generated.heartbeats import LEADS, RATE
from headwater.report.table import evaluation_lines

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=800)
parser.add_argument("--out", default="runs/ecg")
given = parser.parse_args()

# Records as PhysioNet has them, in microvolts of 16 bits with a header beside, and the diagnoses in a table; generated ones.
made = hw.open("heartbeats")
folder = Path(given.out).with_name("ecg-records")
folder.mkdir(parents=True, exist_ok=True)
rows = ["name,diagnosis"]
for i in range(len(made)):
    stored = np.round(1000 * made.read(i)["series"].numpy().T).astype("<i2")
    signals = [
        f"{i:04}.dat 16 1000/mV 16 0 {first} {total % 65536} 0 {lead}"
        for lead, first, total in zip(LEADS, stored[0], stored.sum(0, dtype=int), strict=True)
    ]
    (folder / f"{i:04}.dat").write_bytes(stored.tobytes())
    (folder / f"{i:04}.hea").write_text("\n".join([f"{i:04} {len(LEADS)} {RATE} {len(stored)}", *signals, ""]))
    rows.append(f"{i:04},{made.classes[made.labels[i]]}")
(folder / "diagnoses.csv").write_text("\n".join(rows))

data = hw.open(folder, labels="diagnoses.csv:diagnosis")
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("ecg-jepa", data, out=given.out, steps=given.steps, batch_size=64, holdout=0.28)
print(f"\nhealth: {run.outcome.verdict.words}\n")

result = hw.evaluate(given.out, data, labels_per_class=[5, 20], baselines=["raw", "random"])
print("\n".join(evaluation_lines(result)))
print(f"\n{result['verdict']['words']}")
