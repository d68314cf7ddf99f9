"""A folder of NIfTI scans of two voxel spacings: learn from them without labels, and find the scan most like another.

python examples/volumes.py [--steps 200] [--out runs/scans]
"""

import argparse
from pathlib import Path

import nibabel
import numpy as np

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="runs/scans")
given = parser.parse_args()

made = hw.open("blobs-3d")
folder = Path(given.out).with_name("scan-files")
folder.mkdir(parents=True, exist_ok=True)
for i in range(120):
    values = made.read(i)["volume"][0].numpy().transpose(2, 1, 0)  # NIfTI counts x first
    spacing = 1.0
    if i % 4 == 0:  # another scanner, with slices twice as thick
        values, spacing = values[:, :, ::2], 2.0
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, spacing, 1.0])), folder / f"{i:03}.nii.gz")

data = hw.open(folder)
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("mae", data, out=given.out, steps=given.steps, batch_size=32)
vectors = hw.embed(run.encoder, data)
nearest = int(((vectors[1:] - vectors[0]) ** 2).sum(1).argmin()) + 1
print(f"\n{len(vectors)} scans, {vectors.shape[1]} numbers each; the one most like {data.id(0)} is {data.id(nearest)}.")
