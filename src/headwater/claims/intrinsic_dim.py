"""Intrinsic dimension: a few random directions lead further from a pre-trained start than from a random one."""

import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.api.reproduce import Claim, Pair
from headwater.methods.adapt.intrinsic_dim import Config, within

STEPS = 300
DIMENSIONS = (10, 20, 50)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def taught(network: Network, x: Tensor, y: Tensor, rate: float) -> Network:
    trained = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=rate)
    for rows in torch.randint(len(x), (STEPS, 128)):
        trained.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        trained.step()
    return network


def measure(seed: int, confined: bool = True) -> Pair:
    pixels, labels = load_digits(return_X_y=True)
    x, digit = torch.from_numpy(pixels.astype(np.float32) / 16), torch.from_numpy(labels)
    large = (digit >= 5).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=seed)
    torch.manual_seed(seed)
    fresh = Network()
    known = taught(copy.deepcopy(fresh), x[train], digit[train], 3e-3)

    def accuracy(start: Network, dimensions: int) -> float:
        torch.manual_seed(seed + 1)
        network = copy.deepcopy(start)
        network.head = nn.Linear(64, 2)
        if confined:
            within(Config(dimensions=dimensions, structure=False, projection="dense", seed=seed), network)
        taught(network, x[train], large[train], 0.2 if confined else 3e-3)
        with torch.inference_mode():
            return 100 * float((network(x[test]).argmax(1) == large[test]).float().mean())

    ours, baseline = (float(np.mean([accuracy(start, d) for d in DIMENSIONS])) for start in (known, fresh))
    return Pair(ours, baseline)


CLAIM = Claim(
    paper="In 200 random directions of its weights a RoBERTa comes to 90 % of what full fine-tuning reaches on paraphrases; the "
    "longer a model was pre-trained, the fewer directions it needs.",
    claim="A network that has learned digits tells large from small ones in 10 to 50 random directions of all its weights "
    "better than an untrained one does. Weaker than the paper: trends over the size of a model and the length of its "
    "pre-training need language models.",
    data="digits; five and more against fewer than five",
    metric="accuracy, mean over 10, 20 and 50 directions, %",
    direction="higher",
    baseline="the same directions from an untrained start",
    least=3.0,
    measure=measure,
    without="the subspace: all weights train, and both starts lead to the same",
    ablated=lambda seed: measure(seed, confined=False),
)
