"""Real English: the docstrings of Python's own library. Learn from them without labels, then look something up.

python examples/texts.py [--steps 300] [--out runs/docs]
"""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--out", default="runs/docs")
given = parser.parse_args()

# One JSON object per line, as corpora come: a paragraph of a docstring and the module it stands in.
corpus = Path(given.out).with_name("docstrings.jsonl")
corpus.parent.mkdir(parents=True, exist_ok=True)
with corpus.open("w") as file:
    for name in ("argparse", "json", "random", "statistics", "textwrap", "threading", "urllib.request", "zipfile"):
        for part in vars(importlib.import_module(name)).values():
            for paragraph in (getattr(part, "__doc__", None) or "").split("\n\n"):
                if 8 < len(paragraph.split()) < 50:
                    file.write(json.dumps({"text": " ".join(paragraph.split()), "module": name}) + "\n")

data = hw.open(corpus, labels="module")
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("simclr", data, out=given.out, steps=given.steps, batch_size=16, vocabulary=600)
vectors = hw.embed(run.encoder, data)
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
nearest = (unit @ unit.T - 2 * np.eye(len(unit))).argmax(1)
print(f"\nThe nearest paragraph is of the same module for {np.mean(data.labels[nearest] == data.labels):.0%} of them.")
