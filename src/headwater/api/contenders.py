"""What an encoder is measured against: raw values, their principal components, itself untrained, itself from scratch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from torch import Tensor
from torch.nn import functional as F

from headwater.api.encoders import Pretrained
from headwater.api.recipe import kit_for
from headwater.api.verdict import Budget, Row, interval, of_items, row
from headwater.core.errors import RequestError, WorkError
from headwater.core.rng import mix
from headwater.core.types import Batch, Graph, Loss, Ragged, Step
from headwater.core.verbs import Encoder, Method
from headwater.data.loader import Loader
from headwater.data.rows import plain
from headwater.data.source import Source, Subset
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.engine.log import Progress
from headwater.engine.optimise import AdamW
from headwater.methods.supervise import classify
from headwater.parts.ragged import ragged_of
from headwater.parts.tokens.base import inside

Array = NDArray[Any]
BASELINES = ("raw", "pca", "random", "scratch")
RAW_SIDE = 32  # pixels: raw pictures larger than this are shrunk to it, and the table says so


@dataclass
class Task:
    """One data set split once: features by contender, labels, and the draws all of them share."""

    pool: Source
    test: Source
    draws: dict[Budget, list[Array]]
    features: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    regression: bool = False
    device: torch.device = torch.device("cpu")
    workers: int = 2

    def row(self, title: str, probe: str, budget: Budget, guesses: list[Array], seconds: float) -> Row:
        """What was said of the test items in each draw, judged: by accuracy, or by R2 where labels are numbers."""
        truth = self.labels()[1]
        values = [float(r2_score(truth, g)) if self.regression else float((g == truth).mean()) for g in guesses]
        around = of_items(truth, guesses[0], self.regression) if len(guesses) == 1 else interval(values)
        return row(title, probe, budget, values, around, seconds)

    def labels(self) -> tuple[Array, Array]:
        assert self.pool.labels is not None and self.test.labels is not None
        return self.pool.labels, self.test.labels


def encode(task: Task, encoder: Encoder, pretrained: Pretrained) -> tuple[Array, Array]:
    return _vectors(encoder, task.pool, pretrained, task), _vectors(encoder, task.test, pretrained, task)


def _vectors(encoder: Encoder, source: Source, pretrained: Pretrained, task: Task) -> Array:
    loader = Loader(source, 256, workers=task.workers)
    return vectors(encoder, loader, len(source), pretrained.prepare, task.device)[0]


def readable(source: Source, pretrained: Pretrained, device: torch.device, workers: int) -> tuple[Source, Array]:
    """The items that decode, and what the encoder says of them. Too many broken ones raise WorkError with their list."""
    loader = Loader(source, 256, workers=workers)
    made, kept = vectors(pretrained.encoder, loader, len(source), pretrained.prepare, device)
    return (source if len(kept) == len(source) else Subset(source, np.array(kept))), made


def raw(task: Task, pretrained: Pretrained, seed: int) -> tuple[str, tuple[Array, Array]]:
    """The prepared values themselves, flattened; what is missing is set to the mean. Of texts, how often each token
    stands in them."""
    title = {"image": "raw pixels", "text": "counts of tokens"}.get(pretrained.modality, "raw values")
    side = (pretrained.card.preprocessing.get("size") or [0])[0]
    if side > RAW_SIDE:
        title = f"raw pixels ({RAW_SIDE} x {RAW_SIDE})"
    pool, test = (_flat(s, pretrained, side, task.workers) for s in (task.pool, task.test))
    wide = max(pool.shape[1], test.shape[1])
    pool, test = (np.pad(x, ((0, 0), (0, wide - x.shape[1])), constant_values=np.nan) for x in (pool, test))
    if pretrained.modality != "image":  # columns and channels come in units of their own
        pool = pool[:, known := ~np.isnan(pool).all(0)]
        test = test[:, known]
        mean, std = np.nanmean(pool, 0), np.nanstd(pool, 0)
        pool, test = ((x - mean) / np.where(std > 0, std, 1) for x in (pool, test))
    return title, (np.nan_to_num(pool), np.nan_to_num(test))


def _flat(source: Source, pretrained: Pretrained, side: int, workers: int) -> Array:
    parts = []
    for _, batch in Loader(source, 256, workers=workers).ordered(range(len(source))):
        x = pretrained.prepare(batch.x[pretrained.modality])
        if pretrained.modality == "text":
            parts.append(_counts(ragged_of(x), source.spec["text"]["vocabulary"]))
            continue
        x = x if isinstance(x, Tensor) else _hollow(x)
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if pretrained.modality == "table":
            x = plain(x, source.spec["table"].get("categories", [0] * x.shape[1]))
        parts.append((F.adaptive_avg_pool2d(x, RAW_SIDE) if side > RAW_SIDE else x).flatten(1))
    wide = max(p.shape[1] for p in parts)  # samples of unequal length: a batch is as wide as its longest
    return torch.cat([F.pad(p, (0, wide - p.shape[1]), value=torch.nan) for p in parts]).numpy()


def _counts(x: Ragged, vocabulary: int) -> Tensor:
    """The share of each token in each text [b vocabulary]."""
    real = torch.arange(x.values.shape[1]) < x.extent
    return torch.zeros(len(x), vocabulary).scatter_add_(1, x.values, real / x.extent)


def _hollow(x: Ragged | Graph) -> Tensor:
    """The values, NaN where a sample has ended."""
    rank = x.extent.shape[1]
    real = inside(x.values.shape[-rank:], x.extent).view(
        len(x), *[1] * (x.values.ndim - 1 - rank), *x.values.shape[-rank:]
    )
    return x.values.float().masked_fill(~real, torch.nan)


def pca(task: Task, pretrained: Pretrained, seed: int) -> tuple[str, tuple[Array, Array]]:
    _, (pool, test) = raw(task, pretrained, seed)
    n = min(32, pool.shape[1], len(pool) - 1)
    fitted = PCA(n, svd_solver="randomized" if pool.shape[1] > 500 else "full", random_state=seed).fit(pool)
    return f"PCA ({n})", (fitted.transform(pool), fitted.transform(test))


def random(task: Task, pretrained: Pretrained, seed: int) -> tuple[str, tuple[Array, Array]]:
    return "untrained encoder", encode(task, untrained(pretrained, seed), pretrained)


def public(task: Task, other: Pretrained, source: Source, title: str) -> tuple[Array, Array]:
    """What another encoder says of the very same items, found by their names in `source`, which is read as it wants.
    Raises RequestError where it reads another modality, WorkError where it cannot read all of them."""
    if source.modalities != task.pool.modalities:
        raise RequestError(
            f"{title} reads {', '.join(source.modalities)} and the encoder beside it {', '.join(task.pool.modalities)}."
        )
    at = {source.id(i): i for i in range(len(source))}
    both = [Subset(source, [at[part.id(i)] for i in range(len(part))]) for part in (task.pool, task.test)]
    made = [readable(part, other, task.device, task.workers)[1] for part in both]
    if lost := sum(len(part) - len(said) for part, said in zip(both, made, strict=True)):
        raise WorkError(f"{title} cannot read {lost} of the items that the encoder beside it reads.")
    return made[0], made[1]


def untrained(pretrained: Pretrained, seed: int) -> Encoder:
    """The same architecture with fresh weights and the same normalisation of its input."""
    torch.manual_seed(mix(seed, "untrained"))
    encoder: Encoder = pretrained.card.architecture.build()
    moments = {k: v for k, v in pretrained.encoder.state_dict().items() if ".normalise." in f".{k}"}
    encoder.load_state_dict(moments, strict=False)
    return encoder


def classifier(encoder: Encoder, pretrained: Pretrained, source: Source) -> classify.Classify:
    """A linear head for the classes of `source`, or for one number, on an encoder that takes what `pretrained` takes, with the
    mild views of it."""
    modality, side = pretrained.modality, pretrained.card.preprocessing.get("size")
    facts = {**source.spec[modality], **({"size": tuple(side)} if side else {})}
    config = replace(classify.SMALL, classes=len(source.classes) or 1).viewed(kit_for(modality, facts))
    return config.build({modality: encoder})


def scratch(task: Task, pretrained: Pretrained, seed: int, progress: Progress | None) -> Iterator[Row]:
    """The same network, from fresh weights, on the drawn labels alone, with the views that suit the data."""
    done = 0
    if progress is not None:
        progress.begin("training from scratch", sum(len(d) for d in task.draws.values()))
    for budget, draws in task.draws.items():
        started, guesses = time.monotonic(), list[Array]()
        for i, draw in enumerate(draws):
            made = classifier(untrained(pretrained, seed + i), pretrained, task.pool)
            few = Subset(task.pool, draw)
            aim = Numbers(made, few) if task.regression else made
            size = min(128, len(few))
            steps = min(400, max(60, 20 * len(few) // size))
            recipe = FitConfig(
                steps=steps, batch_size=size, optimiser=AdamW(rate=2e-3), seed=mix(seed, budget, i) % 2**31
            )
            fit(aim, Loader(few, size, seed=seed + i), recipe, device=task.device)
            said = _vectors(classify.Scorer(made), task.test, pretrained, task)
            guesses.append(aim.numbers(said) if isinstance(aim, Numbers) else said.argmax(1))
            done += 1
            if progress is not None:
                progress.show(done, {"": f"{budget} labels"})
        yield task.row("trained from scratch", "fine-tuned", budget, guesses, time.monotonic() - started)


class Numbers(Method):
    """Trains the one output of a `classifier` to be the label, which is a number: the square of the error, in deviations of
    the labels of `few`."""

    def __init__(self, made: classify.Classify, few: Source) -> None:
        super().__init__()
        assert few.labels is not None
        self.made, self.mean, self.std = made, float(few.labels.mean()), float(few.labels.std()) or 1.0

    def encoders(self) -> dict[str, Encoder]:
        return self.made.encoders()

    def loss(self, batch: Batch, step: Step) -> Loss:
        assert batch.y is not None
        said = self.made.head(self.made.encoder(self.made.seen(batch, step)).pooled)[:, 0]
        return Loss(F.mse_loss(said, ((batch.y - self.mean) / self.std).to(said)))

    def numbers(self, said: Array) -> Array:
        return said[:, 0] * self.std + self.mean
