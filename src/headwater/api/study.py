"""`hw.study`: questions put to model families and to encoders; a table, a figure and a sentence answer."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.api import catalogue, run
from headwater.api.bench import Bench
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load
from headwater.api.override import flat, override
from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder, Lab, values
from headwater.data.array import Memory
from headwater.data.labels import Labels
from headwater.engine.fit import FitConfig
from headwater.engine.log import Progress
from headwater.engine.optimise import AdamW
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.study.shortcut_foundations import Cues, Decide, Learner, Shortcuts
from headwater.methods.supervise import classify
from headwater.parts.views import Chain

Array = NDArray[Any]
WIDTH, STEPS, RATE = 128, 500, 1e-3  # of the networks, and of their training on all samples at a time
SIDE = 32  # pixels of a picture where the encoder has no size of its own
STUDIES = ("shortcut-foundations",)


class Layers(Encoder):
    """Plain layers on a vector, as it comes."""

    def __init__(self, columns: int, depth: int, squash: type[nn.Module], width: int = WIDTH) -> None:
        super().__init__()
        self.modality, self.dim = "table", width
        sizes = [columns, *[width] * depth]
        parts = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), squash())]
        self.body = nn.Sequential(*parts)

    def forward(self, x: Input, keep: Any = None) -> Features:
        pooled: Float[Tensor, "b d"] = self.body(values(x))
        return Features(pooled[:, None], pooled)


def linear(lab: Lab, x: Array, y: Array, seed: int) -> Decide:
    """Logistic regression with hardly a penalty, to its optimum."""
    probe = LinearProbe(C=1e6, max_iter=5000, tol=1e-6).fit(x, y)
    return lambda new: np.asarray(probe.predict(new))


def network(depth: int, squash: type[nn.Module]) -> Learner:
    def learn(lab: Lab, x: Array, y: Array, seed: int) -> Decide:
        torch.manual_seed(seed)
        encoder = Layers(x.shape[1], depth, squash)
        method = classify.Config(view=Chain(), classes=2).build({"table": encoder})
        data = Memory("cues", {"table": torch.from_numpy(x)}, Labels((y > 0).astype(np.int64), ("-1", "1")))
        optimiser = AdamW(rate=RATE, final_rate=RATE, warmup=0.0, weight_decay=0.0)
        fitting = FitConfig(steps=STEPS, batch_size=len(x), optimiser=optimiser, seed=seed, log_every=STEPS)
        assert isinstance(lab, Bench)
        lab.train(method, data, fitting)
        scorer = classify.Scorer(method)

        def decide(new: Array) -> Array:
            with torch.inference_mode():
                return np.where(scorer(torch.from_numpy(new).to(lab.device)).pooled.argmax(1).cpu().numpy() == 1, 1, -1)

        return decide

    return learn


FAMILIES: dict[str, Learner] = {
    "linear": linear,
    "one layer, ReLU": network(1, nn.ReLU),
    "one layer, tanh": network(1, nn.Tanh),
}


def discs(z: Array, ratio: float, cues: Cues, side: int = SIDE) -> Array:
    """Pictures [n 1 h w] in [0, 1] with a disc for each cue on uneven ground: its brightness is the latent's, squashed; that of
    the shortcut, on the left, has `ratio` times the area of the other."""
    rng = np.random.default_rng((cues.seed, 3))
    x, y = np.meshgrid((np.arange(side) + 0.5) / side, (np.arange(side) + 0.5) / side)
    ground = np.clip(0.5 + 0.05 * rng.normal(size=(len(z), 1, side, side)), 0, 1)
    radius = 0.06  # of the core's disc; that of the other grows until it fills its half
    for i, (cx, r) in enumerate(((0.27, min(0.22, radius * np.sqrt(ratio))), (0.73, radius))):
        inside = np.clip((r - np.hypot(x - cx, y - 0.5)) * side + 0.5, 0, 1)
        light = 0.5 + 0.5 * np.tanh(z[:, i] / 2)
        ground += inside * (light[:, None, None, None] - ground)
    return ground.astype(np.float32)


def frozen(encoder: Pretrained) -> Learner:
    """A linear probe on what the encoder says of pictures."""
    kind = encoder.card.architecture
    channels = int(getattr(kind, "channels", 0) or getattr(getattr(kind, "tokenizer", None), "channels", 0) or 3)

    def learn(lab: Lab, x: Array, y: Array, seed: int) -> Decide:
        def said(pictures: Array) -> Array:
            stacked = torch.from_numpy(pictures).expand(-1, channels, -1, -1).contiguous()
            assert isinstance(lab, Bench)
            lab.forget()
            return lab.features(encoder, Memory("discs", {"image": stacked})).numpy()

        probe = LinearProbe(random_state=seed).fit(said(x), y)
        return lambda new: np.asarray(probe.predict(said(new)))

    return learn


def study(
    name: str,
    encoders: Sequence[Any] = (),
    *,
    out: str | Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "auto",
    workers: int = 2,
    set: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Put the question of a study, such as shortcut-foundations, to model families or, where `encoders` are given, to them.

    encoders  of pictures: run or encoder folders, hf:CHECKPOINT, or what `hw.load` returns
    out       a new folder: `study.json`, which holds what is returned, and `study.png`, a figure
    set       settings, such as cues.predictivity=(0.7,0.9) or ratios=(1.0,4.0,10.0)

    Returns `rows` (learner, ratio, bias, by_seed, accuracy), `rise` and a `verdict` in words. Raises RequestError for a study
    that is none and for encoders that do not read pictures.
    """
    if catalogue.slug(catalogue.load(name).__name__) not in STUDIES:
        raise RequestError(
            f"{name!r} is no study of this command; there is {', '.join(STUDIES)}, and bob is `headwater compare`."
        )
    loaded = {
        str(e.path if isinstance(e, Pretrained) else e): e if isinstance(e, Pretrained) else load(e) for e in encoders
    }
    if strange := [n for n, e in loaded.items() if e.modality != "image"]:
        raise RequestError(
            f"The study shows pictures to encoders, and {strange[0]} reads {loaded[strange[0]].modality}."
        )
    if not seeds:
        raise RequestError("A study is repeated with one seed at least.")
    base: dict[str, Any] = {
        "cues": Cues(),
        "ratios": (1.0, 4.0, 13.0) if loaded else (1.0, 10.0, 100.0),
        "samples": 800,
    }
    asked = override(base, set)
    folder = run.fresh(out) if out is not None else None
    learners = {n: frozen(e) for n, e in loaded.items()} or FAMILIES
    total = len(learners) * len(asked["ratios"])
    if progress is not None:
        progress.begin("condition", total)

    def tell(who: str, done: int) -> None:
        if progress is not None:
            progress.show(done, {"": who})

    sides = [e.card.preprocessing.get("size") for e in loaded.values()]
    side = max((s[0] for s in sides if s), default=SIDE)

    def shown(z: Array, ratio: float, cues: Cues) -> Array:
        return discs(z, ratio, cues, side)

    procedure = Shortcuts(**asked, seeds=tuple(seeds), tell=tell, render=shown if loaded else None)
    report = procedure.run(Bench(pick_device(device), workers), learners)
    if progress is not None:
        progress.end()
    result = {"study": name, "seeds": list(seeds), "settings": flat(asked), "rows": list(report.rows), **report.extra}
    result["verdict"] = report.verdict
    if folder is not None:
        from headwater.report.study import figure

        run.write_json(folder / "study.json", result)
        figure(result["rows"], folder / "study.png")
    return result
