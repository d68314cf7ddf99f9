"""Two cues tell the class, one a little better, the other easier to see: which one does a model go by?

asks       whether a model prefers a cue because it is available and not because it predicts
of         model families on generated vectors, and frozen encoders on generated pictures
measures   reliance on a cue: how far decisions follow its sign, over a grid of both cues on which they are independent
answers    the shortcut bias: reliance on the shortcut less that on the core, beyond that of the best linear decision

Predictivity and availability have a dial each. The core predicts better; the shortcut is made `ratio` times as available, by
amplitude (vectors), by size (pictures), or the core less so, by random layers that it passes through (nesting). Both
stay recoverable. Whatever else a condition changes, seeds are paired: the same latents, the same embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from headwater.core.errors import RequestError
from headwater.core.verbs import Lab, Paper, Procedure, Report

PAPER = Paper(
    title="On the Foundations of Shortcut Learning",
    year=2023,
    arxiv="2310.16228",
    differs="the bias is a difference of reliances in [-2, 2], not normalised further, the ratios, the training of the "
    "networks and the random layers of nesting are ours (all unverified); pictures carry the cues in the brightness of "
    "two discs, and availability is their size; the account by the neural tangent kernel is not computed.",
)
Array = NDArray[Any]
Decide = Callable[[Array], Array]  # inputs [n d] -> decisions in {-1, 1} (n,)
Learner = Callable[[Lab, Array, Array, int], Decide]  # (lab, inputs, classes in {-1, 1}, seed) -> what it learned
GRID = 64  # probe points along each cue, from -REACH to REACH
REACH = 3.0


@dataclass(frozen=True)
class Cues:
    """Latents (shortcut, core) that tell the class, and how they become inputs.

    predictivity  the probability that the sign of each is the class's
    amplitude     each is multiplied by its own before it is embedded
    nesting       each passes through so many random layers first, and is the less available
    dim           of the inputs; `seed` draws the embedding, the same for any amplitude
    """

    predictivity: tuple[float, float] = (0.85, 0.9)
    amplitude: tuple[float, float] = (1.0, 1.0)
    nesting: tuple[int, int] = (0, 0)
    dim: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(0.5 <= p < 1 for p in self.predictivity):
            raise RequestError(f"Cues: predictivity lies in [0.5, 1); got {self.predictivity}.")
        if not all(a > 0 for a in self.amplitude) or min(self.nesting) < 0 or self.dim < 2:
            raise RequestError(
                f"Cues: amplitudes are positive, nesting counts layers, and dim is 2 or more; got {self}."
            )

    @property
    def means(self) -> Array:
        """How far the latents of a class lie from 0, in their own deviations."""
        return np.asarray(norm.ppf(self.predictivity))

    def draw(self, n: int, seed: int) -> tuple[Array, Array]:
        """Latents [n 2] and classes in {-1, 1}, as many of each."""
        rng = np.random.default_rng((self.seed, seed, 1))
        y = np.where(np.arange(n) % 2, 1, -1)
        return rng.normal(size=(n, 2)) + y[:, None] * self.means, y

    def embed(self, z: Array) -> Array:
        """Inputs [n d]: each latent along a random direction of its own."""
        rng, x = np.random.default_rng((self.seed, 2)), np.zeros((len(z), self.dim))
        for i in range(2):
            way = rng.normal(size=self.dim)
            layers = [rng.normal(size=(self.dim, self.dim)) / np.sqrt(self.dim) for _ in range(max(self.nesting))]
            h = np.outer(z[:, i], way / np.linalg.norm(way))
            for w in layers[: self.nesting[i]]:  # invertible almost surely: no layer loses the latent
                a = np.sqrt(self.dim) * h @ w
                h = np.where(a > 0, a, 0.2 * a) / np.sqrt(self.dim)
            x += self.amplitude[i] * h
        return x.astype(np.float32)

    def best(self, z: Array) -> Array:
        """The linear decision that errs least."""
        return np.where(z @ self.means >= 0, 1, -1)


def grid() -> Array:
    """Both cues, independent of each other and symmetric about 0 [n 2]."""
    along = (np.arange(GRID) + 0.5) / GRID * 2 * REACH - REACH
    return np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)


def reliance(decided: Array, z: Array) -> Array:
    """On each cue, in [-1, 1]: 1 where all decisions follow its sign, 0 where they have nothing to do with it."""
    return np.asarray(2 * np.mean(decided[:, None] == np.sign(z), axis=0) - 1)


def shortcut_bias(decided: Array, z: Array, best: Array) -> float:
    """Reliance on the shortcut less that on the core, beyond that of `best`; above 0: too much on the shortcut."""
    (s, c), (s_best, c_best) = reliance(decided, z), reliance(best, z)
    return float((s - c) - (s_best - c_best))


@dataclass(frozen=True)
class Shortcuts(Procedure):
    """The bias of each learner at each ratio of availability, the core's held fixed, over paired seeds.

    render  (latents, ratio, cues) -> inputs; None embeds vectors with the shortcut's amplitude times the ratio
    """

    cues: Cues = Cues()
    ratios: Sequence[float] = (1.0, 10.0, 100.0)
    seeds: Sequence[int] = (0, 1, 2)
    samples: int = 800
    tell: Callable[[str, int], None] = lambda name, done: None
    render: Callable[[Array, float, Cues], Array] | None = None

    def run(self, lab: Lab, *data: Any) -> Report:
        """`data` are the learners by name. A row for each and ratio: the mean bias, its values by seed, and the accuracy on
        samples as drawn, which hardly tells; `extra` says how far the bias of each rises from the first ratio to the last."""
        learners: Mapping[str, Learner] = data[0]
        rows, rise, z = list[dict[str, Any]](), dict[str, float](), grid()
        for name, learn in learners.items():
            start = len(rows)
            for ratio in self.ratios:
                found = [self._one(lab, learn, ratio, seed, z) for seed in self.seeds]
                bias, right = ([f[k] for f in found] for k in (0, 1))
                row = {"learner": name, "ratio": ratio, "bias": float(np.mean(bias)), "by_seed": bias}
                rows.append({**row, "accuracy": float(np.mean(right))})
                self.tell(name, len(rows))
            rise[name] = rows[-1]["bias"] - rows[start]["bias"]
        told = "; ".join(f"{name} {v:+.3f}" for name, v in rise.items())
        words = f"From ratio {self.ratios[0]:g} to {self.ratios[-1]:g} the shortcut bias moves by: {told}."
        return Report(rows, words, {"rise": rise})

    def _one(self, lab: Lab, learn: Learner, ratio: float, seed: int, z: Array) -> tuple[float, float]:
        shortcut, core = self.cues.amplitude
        cues = replace(
            self.cues, seed=seed, amplitude=(shortcut * ratio, core) if self.render is None else (shortcut, core)
        )
        made = cues.embed if self.render is None else (lambda latents: self.render(latents, ratio, cues))
        (seen, y), (new, truth) = cues.draw(self.samples, 0), cues.draw(2000, 1)
        decide = learn(lab, made(seen), y, seed)
        return shortcut_bias(decide(made(z)), z, cues.best(z)), float(np.mean(decide(made(new)) == truth))
