"""What `hw.compare` asks of every encoder on labelled data: nine tasks in four families."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from headwater.api.bench import Bench
from headwater.api.encoders import Pretrained, suited
from headwater.api.evaluate import balanced
from headwater.api.recipe import kit_for
from headwater.core.errors import RequestError, unknown
from headwater.core.rng import mix
from headwater.data.loader import Loader
from headwater.data.source import Source, split
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig
from headwater.engine.optimise import AdamW
from headwater.methods.assess.dis_vs_gen import NaiveBayes
from headwater.methods.assess.knn import KNN
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.assess.pt_ood import FamiliarityScore
from headwater.methods.study.bob import Task
from headwater.methods.supervise import classify
from headwater.parts.calibration import calibration_error
from headwater.parts.corruptions import corruptions
from headwater.parts.retrieval import precision_at_ranks

FEW = 5  # labels per class
RATES = (3e-4, 2e-3)  # of fine-tuning; a validation part chooses
QUERIES = 2000  # of retrieval, at most
KINDS = {
    "linear": ("classification", "accuracy of logistic regression on frozen features, all labels"),
    "knn": ("classification", "accuracy of the vote of the 20 nearest neighbours"),
    "naive-bayes": ("classification", "accuracy of Gaussian naive Bayes with shared variances"),
    "few-shot": (
        "classification",
        "accuracy of logistic regression from {few} labels per class, mean of {draws} draws",
    ),
    "fine-tune": (
        "classification",
        "accuracy when the whole encoder trains for {steps} steps, at the better of two rates on a validation part",
    ),
    "retrieval": ("retrieval", "mean average precision: test samples look for others of their class among all others"),
    "ood": ("out of distribution", "AUROC of telling classes left out from known ones by the distance to 5 neighbours"),
    "corruption": ("out of distribution", "accuracy of the linear probe on {ways}"),
    "calibration": ("calibration", "expected calibration error of the linear probe: less is better"),
}
ERRORS = ("calibration",)
Array = NDArray[Any]


class Gauntlet:
    """The tasks on one data set, split into `pool` to learn from and `test`; all encoders meet the same draws."""

    def __init__(
        self, name: str, source: Source, pool: Source, test: Source, *, draws: int, steps: int, seed: int
    ) -> None:
        assert pool.labels is not None and test.labels is not None
        self.name, self.source, self.pool, self.test = name, source, pool, test
        self.y, self.truth = pool.labels, test.labels
        self.steps, self.seed = steps, seed
        rng = np.random.default_rng(mix(seed, "draws"))
        smallest = int(np.unique(self.y, return_counts=True)[1].min())
        self.few = min(FEW, smallest)
        self.draws = [balanced(self.y, self.few, rng, self.source.classes) for _ in range(draws)]
        kinds = rng.permutation(np.unique(self.y))
        part = max(1, len(kinds) // 3)
        self.left_out = [kinds[k * part : (k + 1) * part] for k in range(min(3, len(kinds) // part))]
        facts = source.spec[source.modalities[0]]
        self.ways = corruptions(source.modalities[0], bool(facts.get("own_unit")))

    def tasks(self, wanted: Sequence[str]) -> list[Task]:
        asks: dict[str, Callable[[Bench, Pretrained], float]] = {
            "linear": lambda lab, e: self._right(self._linear(lab, e).predict(self._test(lab, e))),
            "knn": lambda lab, e: self._right(self._fitted(lab, e, KNN()).predict(self._test(lab, e))),
            "naive-bayes": lambda lab, e: self._right(self._fitted(lab, e, NaiveBayes()).predict(self._test(lab, e))),
            "few-shot": self._few_shot,
            "fine-tune": self._fine_tune,
            "retrieval": self._like,
            "ood": self._ood,
            "corruption": self._corruption,
            "calibration": self._calibration,
        }
        return [Task(name, self.name, KINDS[name][0], asks[name], name in ERRORS) for name in wanted]

    def said(self, name: str) -> str:
        """What the task is, in words."""
        return KINDS[name][1].format(
            few=self.few, draws=len(self.draws), steps=self.steps, ways=", ".join(self.ways) + " (mean)"
        )

    def _pool(self, lab: Bench, encoder: Pretrained) -> Array:
        return lab.features(encoder, self.pool).numpy()

    def _test(self, lab: Bench, encoder: Pretrained) -> Array:
        return lab.features(encoder, self.test).numpy()

    def _fitted(self, lab: Bench, encoder: Pretrained, model: Any) -> Any:
        return model.fit(self._pool(lab, encoder), self.y)

    def _linear(self, lab: Bench, encoder: Pretrained) -> LinearProbe:
        probe: LinearProbe = lab.once(
            (id(encoder), id(self), "linear"), lambda: self._fitted(lab, encoder, LinearProbe(random_state=self.seed))
        )
        return probe

    def _right(self, guess: Array) -> float:
        return float(np.mean(guess == self.truth))

    def _few_shot(self, lab: Bench, encoder: Pretrained) -> float:
        x, z = self._pool(lab, encoder), self._test(lab, encoder)
        probes = (LinearProbe(random_state=self.seed).fit(x[rows], self.y[rows]) for rows in self.draws)
        return float(np.mean([self._right(probe.predict(z)) for probe in probes]))

    def _like(self, lab: Bench, encoder: Pretrained) -> float:
        x = lab.features(encoder, self.test)
        asking = np.unique(np.linspace(0, len(x) - 1, min(len(x), QUERIES)).astype(np.int64))
        return precision_at_ranks(x, torch.from_numpy(self.truth), torch.from_numpy(asking))[0]

    def _ood(self, lab: Bench, encoder: Pretrained) -> float:
        x, z, found = self._pool(lab, encoder), self._test(lab, encoder), []
        for strange in self.left_out:
            known = x[~np.isin(self.y, strange)]
            score = FamiliarityScore(random_state=self.seed).fit(known).score_samples(z)
            found.append(float(roc_auc_score(~np.isin(self.truth, strange), score)))
        return float(np.mean(found))

    def _corruption(self, lab: Bench, encoder: Pretrained) -> float:
        probe = self._linear(lab, encoder)
        worse = (lab.features(encoder, self.test, way).numpy() for way in self.ways.items())
        return float(np.mean([self._right(probe.predict(z)) for z in worse]))

    def _calibration(self, lab: Bench, encoder: Pretrained) -> float:
        probe = self._linear(lab, encoder)
        sure = probe.predict_proba(self._test(lab, encoder))
        return calibration_error(sure.max(1), probe.classes_[sure.argmax(1)] == self.truth)

    def _fine_tune(self, lab: Bench, encoder: Pretrained) -> float:
        train, valid = split(suited(self.pool, encoder), 0.2, self.seed)
        test, size = suited(self.test, encoder), encoder.card.preprocessing.get("size")
        facts = {**train.spec[encoder.modality], **({"size": tuple(size)} if size else {})}
        config = replace(classify.SMALL, classes=len(self.source.classes)).viewed(kit_for(encoder.modality, facts))
        tried = []
        for rate in RATES:
            torch.manual_seed(mix(self.seed, "head"))
            method = config.build({encoder.modality: copy.deepcopy(encoder.encoder).requires_grad_(True)})
            batch = min(64, len(train))
            fitting = FitConfig(steps=self.steps, batch_size=batch, optimiser=AdamW(rate=rate), seed=self.seed)
            lab.train(method, train, fitting)

            def right(part: Source, method: classify.Classify = method) -> float:
                loader = Loader(part, 256, workers=lab.workers)
                said, _ = vectors(classify.Scorer(method), loader, len(part), encoder.prepare, lab.device)
                return float(np.mean(said.argmax(1) == part.labels))

            tried.append((right(valid), -rate, right))
        return max(tried, key=lambda found: found[:2])[2](test)


def chosen(names: Sequence[str]) -> list[str]:
    """The tasks of these names. Raises RequestError for a name that is none, or where there is none."""
    for name in names:
        if name not in KINDS:
            raise unknown("task", name, KINDS)
    if not names:
        raise RequestError(f"compare needs a task at least; there are {', '.join(KINDS)}.")
    return list(dict.fromkeys(names))
