"""KRR-ST: made-up samples with vectors of their own say more of a teacher than as many real ones do."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from headwater.api.reproduce import Claim, Pair
from headwater.core.rng import Rng, mix
from headwater.methods.curate.krr_st import Distillation

SAMPLES, WIDTH = 20, 16
METHOD = Distillation(  # networks replaced early: the error is measured with fresh ones
    widths=(128, 128), pool=5, limit=20, inner_rate=0.02, steps=400, batch=256, rate=2e-2, regular=1e-3, augment=False
)


def measure(seed: int, images: bool = True) -> Pair:
    """The error with fresh networks, in % of that with real samples. Without `images` the vectors alone are learned."""
    x, digit = load_digits(return_X_y=True)
    parts = train_test_split(x / 16, test_size=0.3, random_state=seed, stratify=digit)
    pool, held = (torch.tensor(part, dtype=torch.float32) for part in parts)
    g = torch.Generator().manual_seed(mix(seed, "teacher"))
    first, second = torch.randn(64, 64, generator=g) / 4, torch.randn(64, WIDTH, generator=g) / 4
    vectors = torch.tanh(torch.tanh((pool - pool.mean(0)) @ first) @ second)  # stands in for a teacher
    truth = torch.tanh(torch.tanh((held - pool.mean(0)) @ first) @ second)
    mean, std = vectors.mean(0), vectors.std(0)
    vectors, truth = (vectors - mean) / std, (truth - mean) / std
    rng = Rng(mix(seed, "krr-st"))
    few = rng.rand(len(pool)).argsort()[:SAMPLES]

    def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = Rng(mix(seed, step)).randint(len(pool), METHOD.batch)
        return pool[at], vectors[at]

    made = METHOD.distil(pool[few], vectors[few], batches, rng, images)
    ours, real = (METHOD.error(*s, held, truth, Rng(mix(seed, "fresh"))) for s in (made, (pool[few], vectors[few])))
    return Pair(100 * ours / real, 100.0)


CLAIM = Claim(
    paper="Networks pre-trained on 1,000 samples distilled from CIFAR-100 transfer better than those pre-trained on as many "
    "real samples, or on samples of other methods of distillation.",
    claim="The vectors of held-out digits are predicted from 20 distilled samples, by regression on the features of networks "
    "that no search has seen, with an error at least a quarter below that from 20 real ones. Transfer needs the paper's scale.",
    data="digits",
    metric="error on held-out digits, % of that from real samples",
    direction="lower",
    baseline="as many real samples drawn at random, with the teacher's vectors",
    least=25.0,
    measure=measure,
    without="the samples' part: they stay real, and their vectors alone are learned",
    ablated=lambda seed: measure(seed, images=False),
)
