"""Which items should be labelled next, in a pool that also holds what nobody asked for: what people reject is a class too.

reads      features of all items, in passes, and the labels there are: classes wanted, and one for what is not
fits       an ensemble on the labelled ones, the unwanted as one more class; then on its own guesses, the surer the weightier
measures   the share of members that contradict the ensemble; 0 where the ensemble says that an item is unwanted
keeps      the budget of those contradicted most: they are to be labelled, and the labels are the product
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwater.core.errors import RequestError, unknown
from headwater.core.rng import Rng
from headwater.core.verbs import Choice, Known, Paper, Selector, Vectors
from headwater.parts.ensemble import Ensemble, shuffled, train
from headwater.parts.kmeans import gather, sample

PAPER = Paper(
    title="Training Ensembles with Inliers and Outliers for Semi-supervised Active Learning",
    year=2024,
    arxiv="2307.03741",
    differs="the members are perceptrons on frozen features, where the paper trains the whole pre-trained network, so there are "
    "no training augmentations of the pool, and at least 200 steps; one round a call: labelling and calling again are the "
    "loop; the first, random acquisition is asked for by acquire=random; pseudo-labels are trained on for at most `rows` "
    "items drawn from the pool. The gain of pseudo-labels at small size is not claimed.",
)
ACQUIRE = ("variation-ratio", "random")


@dataclass(frozen=True)
class ActiveOutliers(Selector):
    """
    outlier   the name of the class of what is not wanted
    joint     train it as a class; without, the items of that class serve nothing
    members   of the ensemble; with one alone nothing is contradicted, and the choice is random
    hidden    widths of the hidden layers
    passes    over the labelled items in batches of `batch`, `least` steps at least; `pseudo` passes over the guesses, in
              batches of 256 with as many labelled ones beside; 0: none
    acquire   variation-ratio, or random, as the paper's first round

    Columns: `score`, the share of members that contradict (-1 where labelled), and `group`, the label or the guess.
    """

    outlier: str = "outlier"
    joint: bool = True
    members: int = 5
    hidden: tuple[int, ...] = (64, 64)
    passes: int = 10
    least: int = 200
    batch: int = 32
    pseudo: int = 3
    rate: float = 5e-4
    acquire: str = "variation-ratio"
    rows: int = 1 << 16

    def __post_init__(self) -> None:
        if self.acquire not in ACQUIRE:
            raise unknown("way to acquire", self.acquire, ACQUIRE)
        if min(self.members, self.batch) < 1 or not self.rate > 0:
            raise RequestError(f"An ensemble needs members, a batch and a rate above 0; got {self}.")

    def select(self, features: Vectors, budget: int | None, rng: Rng, known: Known | None = None) -> Choice:
        if budget is None:
            raise RequestError("active-outliers needs a budget: how many items can be labelled next (keep).")
        if known is None:
            raise RequestError("active-outliers needs labels of some items of each class that is wanted.")
        free = known.classes < 0
        if budget > free.sum():
            raise RequestError(f"A budget of {budget:,} items is above the pool, {int(free.sum()):,} without a label.")
        group, score = known.classes.clone(), torch.where(free, 0.0, -1.0)
        if self.acquire == "variation-ratio":
            ensemble, unit = self.fitted(features, known, rng)
            wanted, outlier = self.split(known)
            code = torch.tensor([*wanted, outlier])
            chances = [ensemble.chances(unit(piece)) for piece in features]
            mean = torch.cat([c.mean(0) for c in chances]).argmax(1)
            found = torch.cat([variation_ratio(c) for c in chances]).masked_fill(mean == len(wanted), 0)
            group, score = torch.where(free, code[mean], group), torch.where(free, found, score)
        return Choice(best(score, budget, rng), {"score": score, "group": group})

    def split(self, labels: Known) -> tuple[list[int], int]:
        """The classes that are wanted, and the other: -1 where it has not been met."""
        names = [str(name) for name in labels.names]
        outlier = names.index(self.outlier) if self.outlier in names else -1
        met = labels.classes.unique().tolist()
        wanted = [k for k in range(len(names)) if k != outlier and k in met]
        if len(wanted) < 2:
            raise RequestError(f"active-outliers needs labels of two wanted classes or more; got {len(wanted)}.")
        return wanted, outlier

    def fitted(self, features: Vectors, labels: Known, rng: Rng) -> tuple[Ensemble, "Unit"]:
        """The ensemble, whose last output is the unwanted class where that is trained, and what makes its input."""
        wanted, outlier = self.split(labels)
        target = torch.full_like(labels.classes, -1)
        for k, name in enumerate([*wanted, outlier] if self.joint and outlier >= 0 else wanted):
            target[labels.classes == name] = k
        at = (target >= 0).nonzero()[:, 0]
        few = sample(features, self.rows, rng)
        unit = Unit(few.mean(0), few.std())
        x, y, few = unit(gather(features, at)), target[at], unit(few)
        ensemble = Ensemble((features.dim, *self.hidden, len(wanted) + self.joint), self.members, rng)
        draw = shuffled(len(x), self.members, min(self.batch, len(x)), rng)

        def labelled(step: int) -> tuple[Tensor, Tensor, Tensor]:
            chosen = draw(step)
            return x[chosen], y[chosen], torch.ones(chosen.shape)

        train(ensemble, labelled, max(self.least, self.passes * len(x) // self.batch), self.rate)
        if self.pseudo:
            mean, size = ensemble.chances(few).mean(0), min(256, len(few))
            guess, sure = mean.argmax(1), certainty(mean)
            guesses, partners = (shuffled(n, self.members, size, rng) for n in (len(few), len(x)))

            def paired(step: int) -> tuple[Tensor, Tensor, Tensor]:
                a, b = guesses(step), partners(step)
                weight = torch.cat([sure[a], torch.ones(b.shape)], 1)
                return torch.cat([few[a], x[b]], 1), torch.cat([guess[a], y[b]], 1), weight

            train(ensemble, paired, self.pseudo * -(-len(few) // size), self.rate)
        return ensemble, unit


@dataclass(frozen=True)
class Unit:
    """Features about their mean, in units of their overall deviation."""

    mean: Float[Tensor, " d"]
    std: Float[Tensor, ""]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (x - self.mean) / self.std.clamp(min=1e-12)


def certainty(p: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """1 where one class has all the probability, 0 where all have the same."""
    return (1 + torch.xlogy(p, p).sum(1) / torch.tensor(float(p.shape[1])).log()).clamp(0, 1)


def variation_ratio(chances: Float[Tensor, "e n k"]) -> Float[Tensor, " n"]:
    """The share of members whose class is another than that of the mean."""
    return (chances.argmax(2) != chances.mean(0).argmax(1)).float().mean(0)


def best(score: Float[Tensor, " n"], budget: int, rng: Rng) -> Int[Tensor, " m"]:
    """The highest scores, equals in random order; ascending positions. A score below 0 is out."""
    shuffle = rng.rand(len(score)).argsort()
    return shuffle[score[shuffle].sort(descending=True, stable=True).indices[:budget]].sort().values
