"""Each session trains a head of its own; then all heads are trained against each other on samples drawn for every class.

learns from   features and their labels, session by session, each of new classes; as `headwater continual slca` from the data
              themselves, with an encoder that learns on, a hundred times more slowly than the heads
fits          a linear head per session by cross-entropy over its own classes; per class the mean and covariance of its features
chooses       nothing
predicts      the class with the highest logit of the aligned heads, which the next session does not start from
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.rng import mix
from headwater.core.verbs import Paper
from headwater.parts.aligning import block_normalised, drawn, gaussians, shrunk
from headwater.parts.prototypes import merged
from headwater.parts.sessions import local_head, rescaled, unit

PAPER = Paper(
    title="SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model",
    year=2023,
    arxiv="2303.05118",
    differs="Features are scaled so that those of the first session are about as long as after a layer norm. Every session has "
    "steps, not passes, whose rate falls once, at nine tenths; where the encoder learns too, along half a cosine, and its batch "
    "norms, of which the paper's has none, stay as they were.",
)


LEAST = {"steps": 1, "rate": 1e-12, "rounds": 0, "samples": 1, "temperature": 1e-12, "slow": 0}


class SLCA(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Class-incremental linear heads, aligned on Gaussian samples.

    steps, rate     of a session's own head; SGD with batches of 128
    rounds          of alignment, `samples` of every class in each, drawn anew; 0 leaves the heads as they are
    temperature     of the normalised logits that alignment compares
    slow            the rate of an encoder that `hw.continual.sessions` trains on, as a share of `rate`; 0: it stays as it is
    random_state    seed of heads, batches and samples

    `fit` is the first session; each later `partial_fit` is one of new classes. A class that comes again raises RequestError.
    Learned: `classes_` (sorted), `session_of_` (classes,), `heads_` (classes, d + 1) as trained, offset last, `means_`,
    `covariances_` (classes, d, d), `scale_`; and aligned `coef_` (classes, d), `intercept_`.
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        steps: int = 300,
        rate: float = 0.01,
        rounds: int = 5,
        samples: int = 256,
        temperature: float = 0.1,
        slow: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.steps = steps
        self.rate = rate
        self.rounds = rounds
        self.samples = samples
        self.temperature = temperature
        self.slow = slow
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "SLCA":
        """The first session."""
        return self._session(X, y, first=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, head: Any = None) -> "SLCA":
        """A session of new classes. `classes`, if given, must hold every label of `y` (scikit-learn's protocol). `head`, if
        given, was trained already, with the encoder that said X: a row for each new class, sorted, its offset last."""
        if classes is not None and not np.isin(y, classes).all():
            raise RequestError(f"SLCA got labels that are not among classes={list(classes)}.")
        return self._session(X, y, not hasattr(self, "classes_"), head)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The logits, (n, classes); for two classes the second minus the first, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        scores: NDArray[np.float64] = X * self.scale_ @ self.coef_.T + self.intercept_
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return np.asarray(self.classes_[best])

    def _session(self, X: Any, y: Any, first: bool, head: Any = None) -> "SLCA":
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        for name, least in LEAST.items():
            if not least <= getattr(self, name) < np.inf:
                raise RequestError(f"SLCA needs a finite {name} of at least {least:g}; got {getattr(self, name)}.")
        names, codes = np.unique(y, return_inverse=True)
        past = names[:0] if first else self.classes_
        if (again := np.intersect1d(names, past)).size:
            raise RequestError(f"SLCA takes only new classes in a later session; known: {again.tolist()}.")
        everything = merged(past, names) if len(past) else names
        if len(everything) < 2:
            raise RequestError(f"SLCA needs two classes or more; the labels hold one class, {everything[0]}.")
        session = 0 if first else int(self.session_of_.max()) + 1
        if first:
            self.scale_ = unit(X)
        x, of = torch.tensor(X * self.scale_), torch.from_numpy(codes)
        rng = torch.Generator().manual_seed(mix(self.random_state, "session", session))
        own = (
            local_head(x, of, len(names), self.steps, self.rate, rng)
            if head is None
            else rescaled(head, 1 / self.scale_)
        )
        new = [t.numpy() for t in (own, *gaussians(x, of, len(names)))]
        new.append(np.full(len(names), session))
        order = np.argsort(np.concatenate([past, names]))
        for name, value in zip(("heads_", "means_", "covariances_", "session_of_"), new, strict=True):
            setattr(self, name, value if first else np.concatenate([getattr(self, name), value])[order])
        self.classes_, aligned = everything, torch.tensor(self.heads_)
        if session and self.rounds:
            aligned = self._aligned(aligned, session, rng)
        self.coef_, self.intercept_ = aligned[:, :-1].numpy(), aligned[:, -1].numpy()
        return self

    def _aligned(self, heads: Tensor, session: int, rng: torch.Generator) -> Tensor:
        """All heads, trained from where they stand on samples of all classes."""
        heads = heads.clone().requires_grad_(True)
        sessions = torch.from_numpy(self.session_of_)
        taught = torch.optim.SGD([heads], lr=self.rate, momentum=0.9, weight_decay=5e-4)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(taught, self.rounds)
        means = shrunk(torch.tensor(self.means_), sessions, session)
        for _ in range(self.rounds):
            x, y = self._samples(means, sessions, rng)
            for rows in torch.randperm(len(x), generator=rng).split(self.samples):
                logits = x[rows] @ heads[:, :-1].T + heads[:, -1]
                taught.zero_grad()
                F.cross_entropy(block_normalised(logits, sessions) / self.temperature, y[rows]).backward()
                taught.step()
            falling.step()
        return heads.detach()

    def _samples(self, means: Tensor, sessions: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return drawn(means, torch.tensor(self.covariances_), self.samples, rng)
