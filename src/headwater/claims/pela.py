"""PELA: a factorised network that listens to the whole one gets back most of what the factors cost it."""

import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.api.reproduce import Claim, Pair
from headwater.parts.lowrank import Factored

STEPS, RANK = 200, 6
HIDDEN = (0, 2)  # the maps that are factorised; each is heard after its ReLU


def said(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    out = []
    for i, layer in enumerate(network[:-1]):
        x = layer(x)
        if i - 1 in HIDDEN:
            out.append(x)
    return out


def mended(whole: nn.Sequential, small: nn.Sequential, x: Tensor) -> nn.Sequential:
    taught = torch.optim.Adam(small.parameters(), lr=3e-3)
    for rows in torch.randint(len(x), (STEPS, 128)):
        with torch.no_grad():
            told = said(whole, x[rows])
        alike = torch.stack([F.mse_loss(a, b) for a, b in zip(said(small, x[rows]), told, strict=True)]).mean()
        taught.zero_grad()
        alike.backward()  # type: ignore[no-untyped-call]
        taught.step()
    return small


def measure(seed: int, by_values: bool = True) -> Pair:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels.astype(np.float32) / 16), torch.from_numpy(labels)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=seed)
    torch.manual_seed(seed)
    whole = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    taught = torch.optim.Adam(whole.parameters(), lr=3e-3)
    for rows in torch.randint(len(train), (300, 128)):
        taught.zero_grad()
        F.cross_entropy(whole(x[train][rows]), y[train][rows]).backward()  # type: ignore[no-untyped-call]
        taught.step()

    def accuracy(network: nn.Sequential) -> float:
        with torch.inference_mode():
            return 100 * float((network(x[test]).argmax(1) == y[test]).float().mean())

    cut, begun = copy.deepcopy(whole), copy.deepcopy(whole)
    for i in HIDDEN:
        layer = whole[i]
        assert isinstance(layer, nn.Linear)
        cut[i] = Factored.of(layer, RANK)
        begun[i] = Factored.of(layer, RANK) if by_values else Factored(layer, RANK)
    return Pair(accuracy(mended(whole, begun, x[train])), (accuracy(whole) + accuracy(cut)) / 2)


CLAIM = Claim(
    paper="Models lose a third to two thirds of their weights and about 0.6 points of accuracy.",
    claim="Of the accuracy that factors of rank 6 cost a network on digits, hearing the whole network without labels brings back "
    "more than half. Weaker than the paper: that one stage serves many tasks needs scale; and the term that keeps products "
    "near their weights is left out, as in the authors' image scripts.",
    data="digits",
    metric="accuracy after the stage, %",
    direction="higher",
    baseline="half-way between the factors alone and the whole network",
    measure=measure,
    without="singular values: the factors begin at random and learn as long",
    ablated=lambda seed: measure(seed, by_values=False),
)
