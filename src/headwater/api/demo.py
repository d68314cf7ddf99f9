"""`headwater demo`: the main job, end to end, on real pictures that come with scikit-learn."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from headwater.api.embed import embed
from headwater.api.encoders import load
from headwater.api.evaluate import evaluate
from headwater.api.pretrain import pretrain
from headwater.data import open as open_data
from headwater.data.doctor import examine
from headwater.engine.embed import read
from headwater.engine.log import Progress
from headwater.report.embedding_map import embedding_map
from headwater.report.page import render
from headwater.report.table import evaluation_lines

HOLDOUT = 0.28  # about 500 of 1,797 pictures are kept for the test


def demo(out: str | Path, *, seed: int = 0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Doctor, pre-train with the defaults, embed, evaluate, report; everything lands in `out`."""
    started, folder = time.monotonic(), Path(out)
    source = open_data("digits")
    say("1. The data")
    for line in examine(source).lines():
        say(f"   {line}")
    say(f"\n2. Pre-training without labels on {1 - HOLDOUT:.0%} of it (simclr, all defaults)")
    run = pretrain("simclr", source, out=folder, seed=seed, holdout=HOLDOUT, progress=Progress())
    say(f"   {run.outcome.step:,} steps in {run.outcome.seconds:.0f} s; health: {run.outcome.verdict.words}")
    say("\n3. Embedding all of it")
    embed(run.encoder, source, out=folder / "digits.parquet", progress=Progress())
    vectors, _ = read(folder / "digits.parquet")
    say(f"   {len(vectors):,} vectors of {vectors.shape[1]} in {folder / 'digits.parquet'}")
    say("\n4. Did it help? The other 28 % of the pictures, five draws of the labels")
    result = evaluate(load(folder), source, progress=Progress())
    for line in evaluation_lines(result):
        say(f"   {line}")
    say(f"\n   {result['verdict']['words']}")
    embed_map(folder, source, vectors)
    page = render(folder)
    seconds = time.monotonic() - started
    say(f"\nA page to look at: {page}   ({seconds:.0f} s in all)")
    return {"report": str(page), "seconds": seconds, **result}


def embed_map(folder: Path, source: Any, vectors: NDArray[Any]) -> None:
    """The map of the embeddings with the pictures on it, for the report."""
    thumbnails = torch.stack([source.read(i)["image"] for i in range(len(source))])
    ids = [source.id(i) for i in range(len(source))]
    embedding_map(vectors, source.labels, source.classes, ids, thumbnails, folder)
