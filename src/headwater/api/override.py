"""`path.to.field=value` on any tree of frozen dataclasses, dictionaries and tuples; no flag is ever written by hand."""

from ast import literal_eval
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from headwater.core.errors import RequestError, spelled, unknown


def override(tree: Any, edits: Iterable[str]) -> Any:
    """The tree with each `path=value` applied. Raises RequestError for a path or a value that does not fit."""
    for edit in edits:
        path, equals, text = edit.partition("=")
        if not equals or not path:
            raise RequestError(f"--set {edit!r}: expected path.to.field=value, such as fit.optimiser.rate=1e-3.")
        tree = _set(tree, path.split("."), text, edit)
    return tree


def flat(tree: Any, prefix: str = "") -> list[str]:
    """One `path=value` line per leaf: what run.json, `show` and the golden files hold."""
    parts = _parts(tree)
    if parts is None:
        return [f"{prefix}={tree!r}"]
    kind = [f"{prefix}:{type(tree).__name__}"] if is_dataclass(tree) and prefix else []
    return kind + [line for name, part in parts.items() for line in flat(part, f"{prefix}.{name}".lstrip("."))]


def _parts(node: Any) -> dict[str, Any] | None:
    """The named parts of a node, or None for a leaf. A tuple of parts is numbered; a tuple of values is a leaf."""
    if is_dataclass(node):
        return {f.name: getattr(node, f.name) for f in fields(node)}
    if isinstance(node, Mapping):
        return dict(node)
    if isinstance(node, tuple) and any(is_dataclass(v) for v in node):
        return {str(i): v for i, v in enumerate(node)}
    return None


def _set(node: Any, path: list[str], text: str, edit: str) -> Any:
    head, *rest = path
    parts = _parts(node)
    if parts is None:
        raise RequestError(f"--set {edit}: {node!r} is a value and has no field {head!r}.")
    names = {spelled(name): name for name in parts}
    name = names.get(spelled(head))
    if name is None:
        raise unknown(f"field of {type(node).__name__} (--set {edit})", head, names)
    old = parts[name]
    new = _set(old, rest, text, edit) if rest else _parse(text, old, edit)
    if isinstance(node, Mapping):
        return {**node, name: new}
    if isinstance(node, tuple):
        changed = tuple(new if str(i) == name else v for i, v in enumerate(node))
        return changed
    try:
        return replace(node, **{name: new})
    except RequestError as error:
        raise RequestError(f"--set {edit}: {error}") from error
    except (TypeError, ValueError) as error:
        raise RequestError(f"--set {edit}: {type(node).__name__} does not take {name}={new!r} ({error}).") from error


def _parse(text: str, old: Any, edit: str) -> Any:
    if _parts(old) is not None:
        raise RequestError(
            f"--set {edit}: this is a {type(old).__name__} with fields {', '.join(_parts(old) or ())}; set one of those."
        )
    try:
        new = literal_eval(text)
    except (ValueError, SyntaxError):
        new = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(old, float) and type(new) is int:
        new = float(new)
    if isinstance(old, tuple) and isinstance(new, list):
        new = tuple(new)
    if isinstance(old, tuple) and isinstance(new, tuple) and old and all(isinstance(v, float) for v in old):
        new = tuple(float(v) if isinstance(v, int) else v for v in new)
    if old is not None and type(new) is not type(old):
        raise RequestError(f"--set {edit}: expected {_article(type(old).__name__)} such as {old!r}; got {text!r}.")
    return new


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
