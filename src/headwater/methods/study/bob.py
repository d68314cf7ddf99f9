"""Many encoders, the same tasks under the same rules: who leads is told in deviations from the field, task by task.

asks       which encoder to begin with, and whether that depends on the task
of         any number of encoders, each fed as it learned to be fed; an encoder that fails stops no other
measures   every task of every encoder: a score, or an error, of which less is better
answers    z-scores: how many deviations above the mean of the field, per task, then per family of tasks, then over families

An average of scores belongs to the task with the widest unit; an average of z-scores to all tasks alike. A task that an
encoder of the field is missing from would compare unequal sets of tasks, and is left out of the averages for all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from headwater.core.verbs import Lab, Paper, Procedure, Report
from headwater.parts.ranking import z_scores

PAPER = Paper(
    title="Battle of the Backbones: A Large-Scale Comparison of Pretrained Models across Computer Vision Tasks",
    year=2023,
    arxiv="2310.19909",
    differs="of the tasks, classification, retrieval and strangeness on the user's own data, with calibration and robustness "
    "to corruption added, and not detection or segmentation; the rule of the z-scores with the population's deviation, and "
    "families weighing alike (unverified); fine-tuning chooses among two learning rates on a validation part, with neither "
    "layer decay nor the paper's augmentations; the linear probe is solved to the end instead of trained by LARS. The "
    "published ranking needs the published backbones and is not claimed.",
)
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One question that every encoder is asked, on one data set.

    family   tasks of a family are averaged before families are
    error    less is better
    ask      (lab, encoder) -> the score
    """

    name: str
    data: str
    family: str
    ask: Callable[[Any, Any], float]
    error: bool = False


@dataclass(frozen=True)
class Standing:
    """Of e encoders and t tasks.

    z         [e t], higher is better; NaN where there is no score
    counted   which tasks went into the averages [t]
    families  mean z per family [e]
    overall   the mean over families [e]; NaN for an encoder without any score, or where no task is common
    rank      1 for the best; equals share a rank; 0 without one [e]
    """

    z: Scores
    counted: NDArray[np.bool_]
    families: Mapping[str, Scores]
    overall: Scores
    rank: NDArray[np.int64]


def standing(scores: Scores, tasks: Sequence[Task]) -> Standing:
    """Who leads, from scores [e t] with NaN for what is missing."""
    z = z_scores(scores, [t.error for t in tasks])
    field = np.isfinite(scores).any(1)
    counted = np.asarray(np.isfinite(scores[field]).all(0) & field.any())
    families = {}
    for family in dict.fromkeys(t.family for t in tasks):
        mine = counted & np.array([t.family == family for t in tasks])
        if mine.any():
            families[family] = np.where(field, z[:, mine].mean(1), np.nan)
    overall = np.mean([*families.values()], 0) if families else np.full(len(scores), np.nan)
    rank = np.zeros(len(scores), np.int64)
    placed = np.isfinite(overall)
    rank[placed] = rankdata(-overall[placed].round(9), method="min")
    return Standing(z, counted, families, overall, rank)


@dataclass(frozen=True)
class BoB(Procedure):
    """`tell` hears of every score: (encoder, task, how many are done)."""

    tell: Callable[[str, Task, int], None] = lambda encoder, task, done: None

    def run(self, lab: Lab, *data: Any) -> Report:
        """`data` are the encoders by name and the tasks. One row per encoder and task: `score`, `z`, and `why` where it
        failed; `extra` holds the Standing and the matrix of scores."""
        encoders, tasks = data
        scores = np.full((len(encoders), len(tasks)), np.nan)
        why: dict[tuple[int, int], str] = {}
        for i, (name, encoder) in enumerate(encoders.items()):
            for j, task in enumerate(tasks):
                self.tell(name, task, i * len(tasks) + j)
                try:
                    scores[i, j] = task.ask(lab, encoder)
                except Exception as error:  # whatever is wrong with one encoder is told, and the others go on
                    said = str(error).strip().splitlines() or [type(error).__name__]
                    why[i, j] = said[0]
        made = standing(scores, tasks)
        rows = [
            {
                "encoder": name,
                "data": task.data,
                "task": task.name,
                "score": float(scores[i, j]) if np.isfinite(scores[i, j]) else None,
                "z": float(made.z[i, j]) if np.isfinite(made.z[i, j]) else None,
                "why": why.get((i, j)),
            }
            for i, name in enumerate(encoders)
            for j, task in enumerate(tasks)
        ]
        return Report(rows, _words([*encoders], made), {"standing": made, "scores": scores})


def _words(names: list[str], made: Standing) -> str:
    order = [int(i) for i in np.argsort(-made.overall, kind="stable") if np.isfinite(made.overall[i])]
    if len(order) < 2:
        return "Fewer than two encoders can be compared." if order else "No encoder can be compared."
    leaders = [i for i in order if made.rank[i] == 1]
    if len(leaders) == len(order):
        return f"No difference was found between {', '.join(names[i] for i in order)}."
    best, rest = leaders[0], next(i for i in order if made.rank[i] > 1)
    others = np.nan_to_num(np.delete(made.z[:, made.counted], best, 0), nan=-np.inf)
    ahead = int(np.sum(made.z[best, made.counted] > others.max(0)))
    return (
        f"{' and '.join(names[i] for i in leaders)} {'leads' if len(leaders) == 1 else 'lead'} the field by "
        f"{made.overall[best] - made.overall[rest]:.2f} deviations over {names[rest]}, and alone in {ahead} of "
        f"{int(made.counted.sum())} tasks."
    )
