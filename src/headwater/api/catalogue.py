"""The catalogue is the file system: one module per published idea, named by its path. Nothing is registered."""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

import headwater.methods
from headwater.core.errors import spelled, unknown
from headwater.core.verbs import Method

PREFIX = "headwater.methods."


@cache
def names() -> tuple[str, ...]:
    """Full names such as `reconstruct.mae`, sorted."""
    found = pkgutil.walk_packages(headwater.methods.__path__, PREFIX)
    return tuple(sorted(m.name.removeprefix(PREFIX) for m in found if not m.ispkg))


def load(name: str) -> ModuleType:
    """The module of a method by its full name or the last part: 'reconstruct.mae' or 'mae'. Hyphens are underscores."""
    wanted = spelled(name)
    for full in names():
        if wanted in (spelled(full), spelled(short(full))):
            return import_module(PREFIX + full)
    raise unknown("method", name, [spelled(short(n)) for n in names()])


def method_class(module: ModuleType) -> type[Method] | None:
    """The class that learns by gradient, if the module has one."""
    own = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
    return next((v for v in own if issubclass(v, Method)), None)


def methods() -> list[str]:
    """The full names of all that learn by gradient."""
    return [n for n in names() if method_class(load(n)) is not None]


def short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def folder(name: str) -> str:
    return name.split(".", 1)[0]
