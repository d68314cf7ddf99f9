"""The catalogue is the file system: one module per published idea, named by its path. Nothing is registered.

`systems.tsv` lists the published systems that Headwater is to hold. One runs when a module of its name is there.
"""

import csv
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from types import ModuleType

import headwater.methods
from headwater.core.errors import RequestError, spelled, unknown
from headwater.core.verbs import Method
from headwater.parts.surgery import Tuning

PREFIX, CLAIMS = "headwater.methods.", "headwater.claims."


@dataclass(frozen=True)
class System:
    """A published system: `folder` is where it lives or is to live, `runs` whether it is there."""

    slug: str
    folder: str
    modality: str
    year: int
    title: str
    runs: bool


@cache
def systems() -> tuple[System, ...]:
    """All published systems, those that run and those that are planned."""
    there = {spelled(short(n)) for n in names()}
    with (files("headwater") / "systems.tsv").open() as file:
        rows = [*csv.DictReader(file, delimiter="\t")]
    return tuple(
        System(r["slug"], r["folder"], r["modality"], int(r["year"]), r["title"], spelled(r["slug"]) in there)
        for r in rows
    )


@cache
def names() -> tuple[str, ...]:
    """Full names such as `reconstruct.mae`, sorted."""
    found = pkgutil.walk_packages(headwater.methods.__path__, PREFIX)
    return tuple(sorted(m.name.removeprefix(PREFIX) for m in found if not m.ispkg))


def load(name: str) -> ModuleType:
    """The module of a method by its full name or the last part: 'reconstruct.mae' or 'mae'. Hyphens are underscores.

    Raises RequestError for a name that is none, and for a system that is planned and does not run yet.
    """
    wanted = spelled(name)
    for full in names():
        if wanted in (spelled(full), spelled(short(full))):
            return import_module(PREFIX + full)
    for system in systems():
        if wanted == spelled(system.slug):
            raise RequestError(f"{system.slug} ({system.title}, {system.year}) is planned and does not run yet.")
    raise unknown("method", name, [spelled(short(n)) for n in names()])


def claim(name: str) -> ModuleType | None:
    """The module with the claim of a method, if there is one."""
    wanted = CLAIMS + short(load(name).__name__)
    return import_module(wanted) if find_spec(wanted) else None


def claims() -> list[str]:
    """The full names of all methods with a claim."""
    return [n for n in names() if find_spec(CLAIMS + short(n))]


def method_class(module: ModuleType) -> type[Method] | None:
    """The class that learns by gradient, if the module has one; what an adapter learns by is none of its own."""
    return None if adapter_class(module) else next((v for v in _own(module) if issubclass(v, Method)), None)


def adapter_class(module: ModuleType) -> type[Tuning] | None:
    """The class that changes encoders, if the module has one."""
    return next((v for v in _own(module) if issubclass(v, Tuning)), None)


def _own(module: ModuleType) -> list[type]:
    return [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]


def methods() -> list[str]:
    """The full names of all that learn by gradient."""
    return [n for n in names() if method_class(load(n)) is not None]


def short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def slug(name: str) -> str:
    """A system as it is published and asked for: `ecg-jepa` of `distill.ecg_jepa`."""
    return short(name).replace("_", "-")


def folder(name: str) -> str:
    return name.split(".", 1)[0]
