"""CLIP: names put together from known words find pictures of pairs never seen."""

import numpy as np
import torch

from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import recipe, trained
from headwater.core.types import Ragged
from headwater.data import open as open_data
from headwater.data.captioned import Captioned
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.data.text import encode
from headwater.methods.align.clip import CLIP

STEPS, HELD = 300, 6  # steps of training, pairs of shape and colour that it never sees


def unseen(seed: int, shuffled: bool) -> float:
    """Accuracy in % among all 36 names, on pictures of the pairs held out."""
    data = open_data("captioned-shapes")
    assert isinstance(data, Captioned) and data.labels is not None
    away = np.random.default_rng(seed).permutation(len(data.classes))[:HELD]
    held = np.isin(data.labels, away)
    seen = Subset(data, np.flatnonzero(~held))
    pool: Source = seen
    if shuffled:
        captions = [data.captions[int(i)] for i in np.flatnonzero(~held)]
        order = np.random.default_rng(seed + 1000).permutation(len(captions))
        pool = Captioned(Subset(data.source, np.flatnonzero(~held)), [captions[i] for i in order])
    method = trained("clip", pool, seed, recipe("clip", pool, steps=STEPS, batch_size=64))
    assert isinstance(method, CLIP)
    rows = np.flatnonzero(held)
    _, batch = next(iter(Loader(Subset(data, rows), len(rows)).ordered(range(len(rows)))))
    with torch.inference_mode():
        names = method.classifier("text", [prompt(name) for name in data.classes])
        guess = (method.embed("image", batch.x["image"]) @ names.T).argmax(1).numpy()
    return 100 * float((guess == data.labels[rows]).mean())


def prompt(name: str) -> Ragged:
    ids = encode(f"a {name}")
    return Ragged(ids[None], torch.tensor([[len(ids)]]))


CLAIM = Claim(
    paper="Trained on 400 million pairs, CLIP names ImageNet's pictures without having seen one of its labels: 76.2 %, as "
    "many as a supervised ResNet-50.",
    claim="Pictures of six pairs of shape and colour that no picture or caption of the training showed are named among "
    "all 36. The paper's numbers need its scale; this shows the naming of new combinations alone.",
    data="captioned-shapes",
    metric="accuracy among 36 names on unseen pairs, %",
    direction="higher",
    baseline="chance",
    least=20.0,
    measure=lambda seed: Pair(unseen(seed, shuffled=False), 100 / 36),
    without="the pairs: captions are dealt out at random",
    ablated=lambda seed: Pair(unseen(seed, shuffled=True), 100 / 36),
)
