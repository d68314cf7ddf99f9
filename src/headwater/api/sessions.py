"""`hw.continual.sessions`: classes arrive in sessions, and nothing old is seen again.

The encoder stays as it is, or learns on slowly where the learner says so (SLCA).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.base import BaseEstimator

from headwater.api import catalogue, contenders, run
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load
from headwater.api.evaluate import labelled
from headwater.api.override import flat, override
from headwater.api.slowly import SlowLearner
from headwater.core.errors import RequestError
from headwater.core.rng import mix
from headwater.data import open as open_data
from headwater.data.source import Subset, split
from headwater.engine.artefact import versions
from headwater.engine.checkpoint import recovered, verify, write_folder
from headwater.engine.log import Progress

Array = NDArray[Any]
STATE, ENCODER = "state", "encoder.safetensors"


def sessions(
    method: str,
    encoder: Any,
    data: Any,
    *,
    out: str | Path,
    groups: int | Sequence[int] = 5,
    labels: str | None = None,
    test: float = 0.28,
    seed: int = 0,
    device: str = "auto",
    workers: int = 2,
    resume: bool = False,
    add: bool = False,
    set: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Teaches the estimator `method` (such as fetril) the classes of labelled data, session by session.

    groups   how many sessions of about as many classes each; or how many classes in each. `seed` decides the order
    test     the share of each class held out and measured on, after each session, of all classes met so far
    resume   goes on after the last whole session, or within one that trains an encoder, to the same bits
    add      one more session, of the classes of other data, for the learner in `out`
    set      settings of the estimator, each `name=value`

    Returns what `continual.json` in `out` holds: `groups`, the names of the classes by session; `matrix`, whose row t holds
    the accuracy on the classes of each session after session t (None: no test data any more); `seen`, that on all of them;
    `average`, the mean of `seen`, `last`, its last, and `forgetting`, by how much sessions are known less at the end than
    they were at best, on average. `out`/state is all that the next session needs; an encoder that learned on is in `out`/encoder.
    Raises RequestError for a method that does not learn in sessions, groups that do not fit the classes, and, with `add`,
    for classes that are known.
    """
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    source = labelled(open_data(data, labels=labels), pretrained)
    if not source.classes:
        raise RequestError(f"{source.name} has numbers for labels; classes come in sessions.")
    folder, where, kind = Path(out), pick_device(device), _learner(method)
    settings = override(kind().get_params(), set)
    model = kind(**settings)
    slow = SlowLearner(model, pretrained, folder, seed, where, workers) if getattr(model, "slow", 0) else None
    identity: dict[str, Any] = {"method": method, "settings": flat(settings), "base": pretrained.digest}
    if add:
        run.claim(folder, identity, resume=True, asked="--add")
    else:
        plan = _planned(source.classes, groups, seed)
        run.claim(folder, {**identity, "groups": plan, "seed": seed, "fingerprint": source.fingerprint}, resume)
    done: dict[str, Any] = {"groups": [], "matrix": [], "seen": []}
    if recovered(folder / STATE):
        done = _restore(folder / STATE, model, slow)
    if add:
        if known := [name for group in done["groups"] for name in group if name in source.classes]:
            raise RequestError(f"A session that is added holds new classes; {folder} knows {', '.join(known[:5])}.")
        plan = [*done["groups"], [*source.classes]]
    parts = [part.only(pretrained.modality) for part in split(source, test, seed)]
    (pool, x), (tested, z) = (contenders.readable(part, pretrained, where, workers) for part in parts)
    names = np.array(source.classes)
    y, truth = names[pool.labels], names[tested.labels]
    if progress is not None:
        progress.begin("session", len(plan))
    for t in range(len(done["groups"]), len(plan)):
        rows = np.isin(y, plan[t])
        if slow is None:
            model.partial_fit(x[rows], y[rows])
        else:
            part = Subset(pool, np.flatnonzero(rows))
            said, head = slow.session(part, np.unique(y[rows], return_inverse=True)[1], x[rows], t, progress)
            model.partial_fit(said, y[rows], head=head)
            met = np.flatnonzero(np.isin(truth, np.concatenate(plan[: t + 1])))
            z[met] = slow.said(Subset(tested, met))
            if progress is not None:
                progress.begin("session", len(plan))
        tests = [np.flatnonzero(np.isin(truth, group)) for group in plan[: t + 1]]
        hits = [model.predict(z[at]) == truth[at] if len(at) else np.zeros(0) for at in tests]
        done["matrix"].append([float(h.mean()) if len(h) else None for h in hits])
        done["seen"].append(float(np.concatenate(hits).mean()))
        done["groups"].append(plan[t])
        _keep(folder / STATE, model, done, slow)
        if progress is not None:
            progress.show(t + 1, {"": f"all classes met {100 * done['seen'][-1]:.1f} %"})
    if slow is not None:
        slow.save(done["groups"])
    size = sum(p.stat().st_size for p in (folder / STATE).iterdir())
    result = {"data": source.name, "method": method, **done, **_summary(done), "state_bytes": size}
    result["encoder_learned"] = slow is not None
    run.write_json(folder / "continual.json", result)
    run.add(folder, versions=versions())
    if progress is not None:
        progress.end()
    return result


def _learner(method: str) -> type[Any]:
    def found(name: str) -> type[Any] | None:
        module = catalogue.load(name)
        own = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
        return next((v for v in own if issubclass(v, BaseEstimator) and hasattr(v, "partial_fit")), None)

    if (kind := found(method)) is None:
        able = [catalogue.slug(n) for n in catalogue.names() if n.startswith(("assess.", "continual.")) and found(n)]
        raise RequestError(f"{method!r} does not learn in sessions; these do: {', '.join(able)}.")
    return kind


def _planned(classes: Sequence[str], groups: int | Sequence[int], seed: int) -> list[list[str]]:
    """The classes of each session, in an order that follows from the seed."""
    order = np.random.default_rng(mix(seed, "sessions")).permutation(np.array(classes))
    sizes = [len(p) for p in np.array_split(order, groups)] if isinstance(groups, int) and groups > 0 else groups
    if isinstance(sizes, int) or min(sizes, default=0) < 1 or sum(sizes) != len(classes):
        raise RequestError(f"Sessions of {groups} classes were asked for, and there are {len(classes)} classes in all.")
    return [part.tolist() for part in np.split(order, np.cumsum(sizes)[:-1])]


def _keep(at: Path, model: Any, done: Mapping[str, Any], slow: SlowLearner | None) -> None:
    """All that was learned: arrays of the estimator, its rest as JSON, and the weights of an encoder that learned on."""
    learned = {k: v for k, v in vars(model).items() if k.endswith("_") or k == "n_features_in_"}
    arrays = {k: torch.tensor(v) for k, v in learned.items() if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"}
    rest = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in learned.items() if k not in arrays}
    tensors = {"learned.safetensors": arrays} | ({} if slow is None else {ENCODER: slow.encoder.state_dict()})
    write_folder(at, tensors, {"state.json": {"learned": rest, "done": done}})


def _restore(at: Path, model: Any, slow: SlowLearner | None) -> dict[str, Any]:
    verify(at)
    state: dict[str, Any] = json.loads((at / "state.json").read_text())
    for name, value in load_file(at / "learned.safetensors").items():
        setattr(model, name, value.numpy())
    for name, value in state["learned"].items():
        setattr(model, name, np.array(value) if isinstance(value, list) else value)
    if slow is not None:
        slow.encoder.load_state_dict(load_file(at / ENCODER))
    done: dict[str, Any] = state["done"]
    return done


def _summary(done: Mapping[str, Any]) -> dict[str, float]:
    matrix, last = done["matrix"], done["matrix"][-1]
    lost = [
        max(row[s] for row in matrix[s:] if row[s] is not None) - last[s]
        for s in range(len(last) - 1)
        if last[s] is not None
    ]
    return {
        "average": float(np.mean(done["seen"])),
        "last": done["seen"][-1],
        "forgetting": float(np.mean(lost)) if lost else 0.0,
    }
