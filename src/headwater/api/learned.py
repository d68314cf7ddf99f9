"""A method as a run leaves it, whole: the heads that forecast or tell classes as well as the encoder.

The folder `method/` of a run holds `weights.safetensors`, `method.json` and their manifest. The file names a method of the
catalogue and kinds of parts out of a closed table; nothing in it is imported or unpickled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file

from headwater.api import catalogue, run
from headwater.core.errors import RequestError
from headwater.core.verbs import Method
from headwater.data.source import Source
from headwater.engine.checkpoint import MANIFEST, verify, write_folder
from headwater.parts import masks, noise_masks, views
from headwater.parts.architectures import KINDS, from_json, to_json

FOLDER, FORMAT = "method", 1


@dataclass(frozen=True)
class Learned:
    """
    method         in evaluation mode, on the CPU
    name           as the catalogue has it
    architectures  of its encoders, by modality
    preprocessing  what must happen to a sample of each modality before its encoder sees it
    provenance     of the run: seed, steps, data, classes
    """

    method: Method
    name: str
    config: Any
    architectures: Mapping[str, Any]
    preprocessing: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any]
    path: Path

    @property
    def digest(self) -> str:
        """The SHA-256 of the weights."""
        return str(json.loads((self.path / MANIFEST).read_text())["weights.safetensors"]["sha256"])


def predicts(method: type[Method] | Method) -> str | None:
    """What the method predicts, of what `predict` knows: forecasts, classes, boxes or anomalies. Besides, it may name
    weights by how their names begin: those that say something class by class (`by_class`), and those that only its training
    needs (`forgotten`)."""
    found: str | None = getattr(method, "predicts", None)
    return found


def classes(method: Method, source: Source) -> list[str]:
    """What the method tells apart in these data; boxes that it finds by itself are objects."""
    return list(source.marked.get("boxes", ("object",)) if method.boxes else source.classes)


def save(
    folder: Path,
    name: str,
    method: Method,
    config: Any,
    architectures: Mapping[str, Any],
    preprocessing: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> Path:
    """Write the folder `method/` of a run, whole or not at all."""
    left = getattr(method, "forgotten", ())
    weights = {k: v for k, v in method.state_dict().items() if not k.startswith(left)}
    text = {
        "format": FORMAT,
        "method": name,
        "config": to_json(config),
        "architectures": {m: to_json(a) for m, a in architectures.items()},
        "preprocessing": {m: dict(p) for m, p in preprocessing.items()},
        "provenance": dict(provenance),
    }
    return write_folder(folder / FOLDER, {"weights.safetensors": weights}, {"method.json": text})


def load(path: str | Path) -> Learned:
    """The method of a run folder, or of its folder `method/`, with bits equal to those saved. Raises RequestError where there
    is none, saying why."""
    at = find(Path(path))
    verify(at)
    text = json.loads((at / "method.json").read_text())
    if text.get("format") != FORMAT:
        raise RequestError(f"{at} has format {text.get('format')}; this version reads format {FORMAT}.")
    module = catalogue.load(text["method"])
    config = from_json(text["config"], kinds(module))
    architectures = {m: from_json(a) for m, a in text["architectures"].items()}
    method = config.build({m: a.build() for m, a in architectures.items()})
    try:
        method.load_state_dict(load_file(at / "weights.safetensors"))
    except RuntimeError as error:
        raise RequestError(f"{at}: the weights do not fit the method that method.json describes.") from error
    name, facts = catalogue.short(module.__name__), text["provenance"]
    return Learned(method.eval(), name, config, architectures, text["preprocessing"], facts, at)


def onward(path: str | Path, module: ModuleType, encoder: str = "") -> Learned:
    """What a run of this very method left, to go on from."""
    found, wanted = load(path), catalogue.short(module.__name__)
    if found.name != wanted:
        raise RequestError(
            f"{path} is a run of {found.name}, and {wanted} cannot go on from its heads; --encoder {path} "
            "takes its encoder alone."
        )
    if encoder:
        raise RequestError(f"go_on={str(path)!r} brings an encoder; encoder={encoder!r} is one too many.")
    return found


def carry(found: Learned, method: Method, classes: Sequence[str] = ()) -> None:
    """The weights of a run, written into a method whose encoder has them already. What the method has beside them stays as
    it is, and so do weights that belong to single classes where `classes` are others than those of the run. Raises
    RequestError where a weight does not fit."""
    alike = list(found.provenance.get("classes", ())) == list(classes)
    own = ("encoder.", *(() if alike else getattr(method, "by_class", ())))
    theirs = {k: v for k, v in found.method.state_dict().items() if not k.startswith(own)}
    ours = method.state_dict()
    for name, value in theirs.items():
        if name not in ours or ours[name].shape != value.shape:
            has = f"of shape {tuple(ours[name].shape)}" if name in ours else "none"
            raise RequestError(
                f"{found.path} holds {name} of shape {tuple(value.shape)}, and this {found.name} has {has}: a run that goes on "
                "keeps its sizes."
            )
    method.load_state_dict({**ours, **theirs})


def find(path: Path) -> Path:
    for at in (path, path / FOLDER):
        if (at / "method.json").is_file():
            return at
    if not (path / run.RUN).is_file():
        raise RequestError(f"{path} is not a run folder (no {run.RUN}), and only runs hold a whole method.")
    name = run.read(path)["method"]
    method = catalogue.method_class(catalogue.load(name))
    if method is None or predicts(method) is None:
        able = [catalogue.slug(n) for n in catalogue.methods() if _able(n)]
        raise RequestError(
            f"{name} predicts nothing: it learns an encoder alone. Of the methods, {', '.join(able)} predict."
        )
    raise RequestError(f"{path} holds no whole method yet: the run has not finished; go on with --resume.")


def _able(name: str) -> bool:
    method = catalogue.method_class(catalogue.load(name))
    return method is not None and predicts(method) is not None


def kinds(module: ModuleType) -> dict[str, type[Any]]:
    """What the configuration of a method may be made of: architectures, views, masks, and the method's own Config."""
    parts = [kind for part in (masks, noise_masks, views) for kind in vars(part).values()]
    found = {k.__name__.removesuffix("Config"): k for k in parts if isinstance(k, type) and is_dataclass(k)}
    return {**found, **KINDS, "": module.Config}
