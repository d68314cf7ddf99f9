"""Active learning among outliers: where what people reject is a class of its own, labels are spent on what is wanted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from headwater.api.reproduce import Claim, Pair
from headwater.core.rng import Rng, mix
from headwater.core.verbs import Known
from headwater.methods.curate.active_outliers import ActiveOutliers
from headwater.parts.kmeans import Held

ROUNDS, BUDGET, SHOTS = 5, 15, 1
SETTINGS: Any = {"pseudo": 0, "rate": 1e-3, "batch": 8, "least": 400}  # small batches: there are 5 labels at first
NAMES = ["0", "1", "2", "3", "4", "outlier"]


@dataclass(frozen=True)
class Course:
    """In per cent: how many of the items labelled after the first round are wanted, and the accuracy in the end."""

    wanted: float
    accuracy: float


def course(seed: int, joint: bool = True, confused: bool = False) -> Course:
    """Some rounds of labelling digits, of which 5 to 9 are not wanted. `confused`: what is rejected is trained as one of the
    wanted classes, drawn at random, and not as a class of its own."""
    x, digit = load_digits(return_X_y=True)
    x, test, y, truth = train_test_split(x / 16, np.minimum(digit, 5), test_size=0.3, random_state=seed, stratify=digit)
    test, truth = torch.tensor(test[truth < 5], dtype=torch.float32), truth[truth < 5]
    features, rng = Held(torch.tensor(x, dtype=torch.float32)), np.random.default_rng(seed)
    known = np.full(len(y), -1)
    for k in range(5):
        first = rng.permutation(np.flatnonzero(y == k))[:SHOTS]
        known[first] = k
    rates = []
    for t in range(ROUNDS):
        method = ActiveOutliers(joint=joint, acquire="variation-ratio" if t else "random", **SETTINGS)
        labels = Known(torch.tensor(known), NAMES)
        chosen = method.select(features, BUDGET, Rng(mix(seed, t)), labels).kept.numpy()
        known[chosen] = np.where(confused & (y[chosen] == 5), rng.integers(5, size=len(chosen)), y[chosen])
        if t:
            rates.append((y[chosen] < 5).mean())
    ensemble, unit = method.fitted(features, Known(torch.tensor(known), NAMES), Rng(mix(seed, "end")))
    guess = ensemble.chances(unit(test))[0, :, :5].argmax(1).numpy()
    return Course(100 * float(np.mean(rates)), 100 * float((guess == truth).mean()))


CLAIM = Claim(
    paper="Training on annotated outliers as one more class, in an ensemble, beats the methods of open-set active learning "
    "before it and makes a detector of outliers superfluous.",
    claim="Of digits of which 5 to 9 are not wanted, far more of what is chosen for labelling is wanted when rejected items are "
    "trained as a class. Neither rivals nor pseudo-labels are compared, and the accuracy is no part of the claim.",
    data="digits",
    metric="wanted items among those chosen after the first round, %",
    direction="higher",
    baseline="the same, with rejected items left out of the training",
    least=15.0,
    measure=lambda seed: Pair(course(seed).wanted, course(seed, joint=False).wanted),
    without="the class of its own: what is rejected is trained as one of the wanted classes, drawn at random",
    ablated=lambda seed: Pair(course(seed, confused=True).wanted, course(seed, joint=False).wanted),
)
