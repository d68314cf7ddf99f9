"""`open`: whatever a user has becomes a Source, or an error that says what was expected."""

import glob
import os
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from headwater.core.errors import RequestError, spelled
from headwater.data import archive, array, builtin, dataset, index, labels, table
from headwater.data.files import IMAGE, FileSource
from headwater.data.labels import Labels
from headwater.data.source import Source
from headwater.data.stores import Disk, Files, Members, Remote, Store

ENDINGS = IMAGE.endings
ACCEPTED = (
    "a folder, a glob, a .txt list, a .zip or .tar, a table (.csv .tsv .parquet .arrow .feather), "
    "an array (.npy .npz), a URL, or a built-in set"
)


def open(what: Any, *, labels: str | None = None, name: str | None = None) -> Source:
    """Opens data of any accepted form; `docs/data.md` lists them.

    labels   a column of a table; or for files "labels.csv" or "labels.csv:column"
    name     what messages and reports call the data
    Raises RequestError where there is nothing to open, or nothing in it can be read.
    """
    if isinstance(what, Source):
        _no_labels(labels, what.name)
        return what
    if isinstance(what, str | os.PathLike):
        return _by_name(os.fspath(what), labels, name)
    if isinstance(what, pa.Table):
        return table.from_table(what, labels, name or "table")
    if type(what).__module__.partition(".")[0] == "datasets":
        return dataset.from_hugging_face(what, labels, name or "Hugging Face data set")
    if isinstance(what, np.ndarray | Tensor):
        _no_labels(labels, name or "array")
        return array.from_arrays(what, None, name or "array")
    if isinstance(what, tuple) and len(what) == 2:
        _no_labels(labels, name or "arrays")
        return array.from_arrays(what[0], what[1], name or "arrays")
    if hasattr(what, "__len__") and hasattr(what, "__getitem__") and not isinstance(what, list | dict | tuple):
        _no_labels(labels, name or type(what).__name__)
        return dataset.Items(what, name or type(what).__name__)
    raise RequestError(
        f"Data of type {type(what).__name__} cannot be opened; expected {ACCEPTED}, an array, a tensor, (x, y), "
        f"an Arrow table, or a torch or Hugging Face data set."
    )


def _no_labels(given: str | None, name: str) -> None:
    if given is not None:
        raise RequestError(
            f"labels={given!r} names a column or a labels file; {name} has neither (arrays take labels as (x, y))."
        )


def _by_name(what: str, asked: str | None, name: str | None) -> Source:
    if "://" in what and not what.startswith("file://"):
        return _remote(what, asked, name)
    at = os.path.expanduser(what.removeprefix("file://"))
    if spelled(at) in builtin.BUILTINS:
        _no_labels(asked, at)
        source = builtin.BUILTINS[spelled(at)](name or spelled(at))
        if os.path.exists(at):
            source.notes += (f"{at} is also a file here; this is the built-in set, ./{at} is the file.",)
        return source
    if os.path.isdir(at):
        found = index.folder(at, ENDINGS)
        called = name or os.path.basename(os.path.realpath(at)) + "/"
        return _files(Disk(), os.path.realpath(at), found.table["name"], found.facts["others"], asked, called, at)
    if os.path.isfile(at):
        return _file(Disk(), os.path.abspath(at), asked, name or os.path.basename(at))
    if glob.has_magic(at):
        root = os.path.abspath(_before_magic(at))
        others: Counter[str] = Counter()
        matches = (os.path.relpath(p, root) for p in glob.iglob(at, recursive=True) if os.path.isfile(p))
        return _files(Disk(), root, _chosen(matches, others), others, asked, name or what, at)
    raise _missing(what, at)


def _missing(what: str, at: str) -> RequestError:
    parent = os.path.dirname(at) or "."
    while not os.path.isdir(parent):
        at, parent = parent, os.path.dirname(parent) or "."
    near = get_close_matches(os.path.basename(at), os.listdir(parent), n=1, cutoff=0.5)
    hint = f" Did you mean {os.path.join(os.path.dirname(at), near[0])}?" if near else ""
    if os.sep in what:
        return RequestError(f"There is no file or folder {what!r}.{hint}")
    set_near = get_close_matches(spelled(what), builtin.BUILTINS, n=1, cutoff=0.5)
    hint += f" Did you mean the built-in set {set_near[0]}?" if set_near else ""
    return RequestError(
        f"There is no file or folder {what!r} and no built-in set of that name.{hint} "
        f"Built in: {', '.join(builtin.BUILTINS)}."
    )


def _before_magic(pattern: str) -> str:
    parts = Path(pattern).parts
    return os.path.join("", *parts[: next(i for i, p in enumerate(parts) if glob.has_magic(p))]) or "."


def _chosen(names: Iterator[str], others: Counter[str]) -> pa.Array:
    """The names of images, sorted; the endings of the rest are counted in `others`."""

    def known() -> Iterator[str]:
        for name in names:
            if index.ending(name) in ENDINGS:
                yield name
            else:
                others[index.ending(name)] += 1

    found = index.names_of(index.chunks(known()))
    return found.take(pc.sort_indices(found))


def _files(
    place: Disk | Remote,
    root: str,
    names: pa.Array | pa.ChunkedArray,
    others: dict[str, int],
    asked: str | None,
    name: str,
    shown: str,
) -> Source:
    if not len(names):
        if not others:
            raise RequestError(f"There are no files in {shown}.")
        seen = ", ".join(f"{n} .{e}" if e else f"{n} without ending" for e, n in Counter(others).most_common(8))
        known = " ".join(f".{e}" for e in sorted(ENDINGS))
        raise RequestError(f"No file in {shown} can be read: there are {seen}; expected {known}.")
    return _read(Files(place, root, names), asked, name, root)


def _read(store: Store, asked: str | None, name: str, root: str, given: Labels | None = None) -> Source:
    if asked is not None:
        given = labels.from_file(asked, root, store.names)
    elif given is None:
        given = labels.from_folders(store.names)
    return FileSource(store, IMAGE, name, given)


def _file(place: Disk | Remote, at: str, asked: str | None, name: str) -> Source:
    end = index.ending(at)
    if end in archive.ENDINGS:
        return _archive(place, at, asked, name)
    if end in table.ENDINGS:
        return table.open_table(place, at, asked, name)
    if end in array.ENDINGS:
        _no_labels(asked, name)
        if isinstance(place, Remote):
            raise RequestError(f"Array files are read from this machine only; copy {place.url(at)} here first.")
        return array.from_file(at, name)
    root = os.path.dirname(at)
    if end == "txt":
        return _list(place, at, root, asked, name)
    if end in ENDINGS:
        return _read(Files(place, root, pa.array([os.path.basename(at)], pa.large_string())), asked, name, root)
    if end in archive.PACKED:
        raise RequestError(
            f"{at} is packed as a whole and cannot be read at random; unpack it to a .tar, .zip or folder first."
        )
    raise RequestError(f"The file {at} ends in .{end}; expected {ACCEPTED}.")


def _list(place: Disk | Remote, at: str, root: str, asked: str | None, name: str) -> Source:
    try:
        lines = place.read(at).decode().splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"The list {at} is not text in UTF-8 ({error}).") from error
    names = index.names_of(index.chunks(s for line in lines if (s := line.strip())))
    if not len(names):
        raise RequestError(f"The list {at} names no files.")
    return _read(Files(place, root, names), asked, name, root)


def _archive(place: Disk | Remote, at: str, asked: str | None, name: str) -> Source:
    members = archive.members(place, at)
    ends = pc.utf8_lower(pc.replace_substring_regex(members["name"], r"^.*?\.([^./]*)$|^.*$", r"\1"))
    chosen = np.flatnonzero(pc.is_in(ends, value_set=pa.array(sorted(ENDINGS), pa.large_string())).to_numpy())
    if not len(chosen):
        others = Counter({e["values"]: e["counts"] for e in pc.value_counts(ends).to_pylist()})
        return _files(place, "", members["name"].slice(0, 0), others, asked, name, at)
    given = archive.beside(place, at, members, chosen)
    return _read(Members(place, at, members.take(pa.array(chosen))), asked, name, os.path.dirname(at), given)


def _remote(what: str, asked: str | None, name: str | None) -> Source:
    import fsspec

    try:
        fs, at = fsspec.core.url_to_fs(what)
    except (ImportError, ValueError) as error:
        raise RequestError(f"The address {what} cannot be opened: {error}.") from error
    place = Remote(fs)
    called = name or what.rstrip("/").rpartition("/")[2]
    others: Counter[str] = Counter()
    try:
        if glob.has_magic(at):
            root = _before_magic(at)
            root = root if at.startswith("/") or not root.startswith("/") else root[1:]
            found = [p for p in fs.glob(at) if fs.isfile(p)]
        elif fs.isdir(at):
            root, found = at.rstrip("/"), fs.find(at)
        elif fs.isfile(at):
            return _file(place, at, asked, called)
        else:
            raise RequestError(f"There is nothing at {what}.")
    except OSError as error:
        raise RequestError(f"The address {what} cannot be opened: {error}.") from error
    names = _chosen((p[len(root) :].lstrip("/") for p in found), others)
    return _files(place, root, names, others, asked, called if glob.has_magic(at) else called + "/", what)


def builtins() -> tuple[str, ...]:
    """The names of the built-in sets."""
    return tuple(builtin.BUILTINS)
