"""Distilling pictures: a few made-up ones, with the vectors that go with them, in a file that `hw.open` reads."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from headwater.api import run
from headwater.api.device import pick_device
from headwater.api.encoders import Pretrained, load, prepare, suited
from headwater.api.override import flat, override
from headwater.api.pool import RECORD, Curated, budget_of, claimed
from headwater.api.recipe import kit_for
from headwater.core.errors import RequestError
from headwater.core.rng import Rng, mix
from headwater.core.types import Input
from headwater.data import open as open_data
from headwater.data.array import from_arrays
from headwater.data.curated import address, write_manifest
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.artefact import versions
from headwater.engine.log import Progress
from headwater.methods.curate.krr_st import QUICK, Distillation
from headwater.parts.views.compose import View
from headwater.report.curation import PICTURE, Story, render
from headwater.report.pictures import views_picture

FILE = "distilled.npz"
SIDE = 64  # pixels of samples made from larger pictures
FEW = 5000  # items below which the settings for small sets are taken
HELD, MEASURED = 512, 2048  # items that the search never sees, at most; items that the moments of the vectors come from
SHOWN = 8


@dataclass(frozen=True)
class Teacher:
    """Pictures as the samples are, [b c side side] in [0, 1], and what the encoder says of them in deviations."""

    pretrained: Pretrained
    side: int
    device: torch.device
    mean: Tensor
    std: Tensor
    bad: dict[str, str] = field(default_factory=dict)

    def seen(self, x: Input) -> Tensor:
        x = prepare(x, {"size": (self.side, self.side)})
        assert isinstance(x, Tensor)
        x = x.to(self.device)
        return x.float() / 255 if x.dtype == torch.uint8 else x.float()

    @torch.no_grad()
    def vectors(self, x: Tensor) -> Tensor:
        made = self.pretrained.encoder.eval().to(self.device)(self.pretrained.prepare(x)).pooled.float()
        return (made - self.mean) / self.std

    def first(self, source: Source, n: int, workers: int) -> tuple[Tensor, Tensor]:
        """The pictures of the first n items that can be read, or of fewer if there are no more, and their vectors."""
        loader, parts, found = Loader(source, min(256, n), workers=workers), list[Tensor](), 0
        for _, batch in loader.ordered(range(len(source))):
            parts.append(self.seen(batch.x["image"]))
            found += len(parts[-1])
            if found >= n:
                break
        self.bad.update(loader.bad)
        x = torch.cat(parts)[:n]
        return x, torch.cat([self.vectors(some) for some in x.split(256)])


def distilled(
    data: Any,
    keep: int | float | None,
    out: str | Path | None,
    encoder: Any,
    labels: str | None,
    seed: int,
    device: str,
    workers: int,
    set: Sequence[str],
    progress: Progress | None,
) -> Curated:
    """`keep` samples made from the pictures of `data` with `encoder` as the teacher; `hw.curate("krr-st", ...)`.

    `out` gets distilled.npz, which `pretrain("krr-st", ...)` learns from, and a manifest of it: `x` [m c h w] and `targets`
    [m d], which are the teacher's vectors less their `mean`, in units of their `std`, over the data.
    """
    if encoder is None or keep is None:
        raise RequestError("krr-st needs a teacher (encoder) and the number of samples to make (keep).")
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    source = suited(open_data(data, labels=labels), pretrained)
    if pretrained.modality != "image":
        raise RequestError(f"krr-st distils pictures; the encoder reads {pretrained.modality}.")
    size = budget_of(keep, len(source))
    assert size is not None
    method: Distillation = override(QUICK if len(source) < FEW else Distillation(), set)
    order = np.random.default_rng(mix(seed, "held")).permutation(len(source))
    held, rest = np.split(order, [min(HELD, max(1, len(source) // 5))])
    if size > len(rest):
        raise RequestError(
            f"A budget of {size:,} samples is above the pool, {len(rest):,} items beside those that it is measured on."
        )
    folder = None if out is None else Path(out)
    if folder is not None:
        claimed(folder)
    started, where = time.monotonic(), pick_device(device)
    teacher, view = _teacher(pretrained, Subset(source, rest[:MEASURED]), where, workers)
    first, vectors = teacher.first(Subset(source, rest), size, workers)
    if len(first) < size:
        raise RequestError(f"A budget of {size:,} samples is above the pool, {len(first):,} items that can be read.")
    loader = Loader(Subset(source, np.sort(rest)), min(method.batch, len(rest)), seed=seed, workers=workers)
    stream = iter(loader(0))

    def batches(step: int) -> tuple[Tensor, Tensor]:
        real = teacher.seen(next(stream).x["image"])
        real = teacher.seen(view(real, Rng(mix(seed, "view", step), where))) if method.augment else real
        return real, teacher.vectors(real)

    if progress is not None:
        progress.begin("step", method.steps)
    x, y = method.distil(first, vectors, batches, Rng(mix(seed, "krr-st")), tell=_teller(progress))
    if progress is not None:
        progress.end()
    real, truth = teacher.first(Subset(source, held), len(held), workers)
    errors = [method.error(*s, real, truth, Rng(mix(seed, "fresh"))) for s in ((x, y), (first, vectors))]
    told = {
        "method": "krr-st",
        "settings": flat(method),
        "seed": seed,
        "name": source.name,
        "pool": len(source),
        "kept": len(x),
        "unreadable": [list(pair) for pair in sorted({**teacher.bad, **loader.bad}.items())],
        "error": errors[0],
        "error_of_real": errors[1],
        "teacher": pretrained.digest,
        "seconds": round(time.monotonic() - started, 2),
        "versions": versions(),
    }
    none = np.zeros(0, np.int64)
    if folder is None:
        return Curated(none, from_arrays(x.cpu(), None, f"{source.name}, distilled", targets=y.cpu()), told)
    made = {"x": x, "targets": y, "mean": teacher.mean, "std": teacher.std}
    np.savez(folder / FILE, **{name: values.cpu().numpy() for name, values in made.items()})
    _write(folder, x.cpu(), first.cpu(), told)
    return Curated(none, open_data(folder), told, folder)


def _teacher(pretrained: Pretrained, some: Source, where: torch.device, workers: int) -> tuple[Teacher, View]:
    facts = some.spec["image"]
    same = facts["size"] is not None and facts["size"][0] == facts["size"][1] <= SIDE
    side = facts["size"][0] if same else SIDE
    plain = Teacher(pretrained, side, where, torch.zeros((), device=where), torch.ones((), device=where))
    _, vectors = plain.first(some, len(some), workers)
    if not vectors.isfinite().all():
        raise RequestError("The teacher's vectors hold NaN or infinity.")
    teacher = replace(plain, mean=vectors.mean(0), std=vectors.std(0).clamp(min=1e-6))
    return teacher, kit_for("image", {**facts, "size": (side, side)}).weak


def _teller(progress: Progress | None) -> Any:
    def tell(step: int, loss: Tensor) -> None:
        if progress is not None and (step % 10 == 9 or step == 0):
            progress.show(step + 1, {"error": f"{float(loss):.4f}"})

    return tell


def _write(folder: Path, x: Tensor, first: Tensor, told: dict[str, Any]) -> None:
    at = str((folder / FILE).absolute())
    ids = [str(i) for i in range(len(x))]
    table = pa.table({"position": pa.array(np.arange(len(x))), "id": ids, "path": [at] * len(x)})
    write_manifest(folder, {**told, "data": address(at, {}), "pool": len(x)}, table)
    run.write_json(folder / RECORD, told)
    n = min(SHOWN, len(x))
    views_picture([("a real one", first[:n]), ("what became of it", x[:n])], folder / PICTURE)
    words = (
        f"{len(x):,} samples made from {told['pool']:,} items. Networks that never saw them predict the teacher on held-out "
        f"items with an error of {100 * told['error']:.1f} % of its variance; with real ones {100 * told['error_of_real']:.1f} %."
    )
    render(folder, Story(told, [], drawn=True, words=words))
