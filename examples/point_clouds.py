"""Meshes and scans as clouds of points: learn their shapes without labels, then sort them with five labels per class.

python examples/point_clouds.py [--steps 300] [--out runs/clouds]
"""

import argparse
from pathlib import Path

import numpy as np
import trimesh

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--out", default="runs/clouds")
given = parser.parse_args()

# Six kinds of bodies, each turned and stretched its own way, saved as the PLY and OFF files that scanners give.
creation = trimesh.creation
bodies = {
    "ball": lambda: creation.icosphere(2),
    "box": lambda: creation.box((1, 1, 1)),
    "cone": lambda: creation.cone(0.7, 1.5),
    "ring": lambda: creation.torus(1.0, 0.3),
    "rod": lambda: creation.cylinder(0.3, 2.0),
    "pipe": lambda: creation.annulus(0.5, 0.8, 1.2),
}
folder = Path(given.out).with_name("cloud-files")
draw = np.random.default_rng(0)
for kind, make in bodies.items():
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(24):
        body = make()
        body.apply_scale(draw.uniform(0.7, 1.4, 3))
        body.apply_transform(trimesh.transformations.random_rotation_matrix(draw.random(3)))
        body.export(folder / kind / f"{i}.{'ply' if i % 2 else 'off'}")

data = hw.open(folder)
print("\n".join(hw.doctor(data).lines()))

hw.pretrain("simclr", data, out=given.out, steps=given.steps, batch_size=16, holdout=0.28)
result = hw.evaluate(given.out, data, labels_per_class=[5], baselines=["random"])
print(f"\n{result['verdict']['words']}")
