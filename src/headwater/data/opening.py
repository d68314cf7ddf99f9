"""`open`: whatever a user has becomes a Source, or an error that says what was expected."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from headwater.core.errors import RequestError, spelled, unknown
from headwater.data import (
    annotated,
    archive,
    array,
    audio,
    builtin,
    curated,
    dataset,
    graph,
    index,
    paths,
    pieces,
    shards,
    table,
    text,
    ts,
)
from headwater.data.gathering import chosen, endings, files
from headwater.data.pairs import settled
from headwater.data.readers import ENDINGS, reader_for
from headwater.data.source import Source
from headwater.data.stores import Disk, Remote
from headwater.parts.modalities import MODALITIES

ACCEPTED = (
    "a folder, a glob, a .txt list, a .zip or .tar or several, a table (.csv .tsv .parquet .arrow .feather), "
    "an array (.npy .npz), a URL, or a built-in set"
)

# what opens a single file: (place, path, labels, name) -> source
Opener = Callable[[Disk | Remote, str, str | None, str], Source]

# (modality, ending) -> what opens such a file where the user names the modality; elsewhere `_file` decides
AS: Mapping[tuple[str, str], Opener] = {
    **{("text", end): text.open_lines for end in ("txt", "md", "jsonl", "ndjson")},
    **{("text", end): text.open_column for end in table.ENDINGS},
    **{("series", end): pieces.open_table for end in table.ENDINGS},
    **{("graph", end): graph.open_edges for end in table.ENDINGS},
    ("graph", "json"): graph.open_graph,
}

# what opens a single file with an ending that is nothing else
ALONE: Mapping[str, Opener] = {
    "ts": ts.open_ts,
    "graphml": graph.open_graph,
    "gml": graph.open_graph,
    "gexf": graph.open_graph,
    "jsonl": paths.open_lines,
    "ndjson": paths.open_lines,
}


def open(
    what: Any,
    *,
    labels: str | None = None,
    name: str | None = None,
    modality: str | None = None,
    reading: Mapping[str, Any] | None = None,
    annotations: str | None = None,
    masks: str | None = None,
    columns: paths.Columns | None = None,
    missing: bool = False,
) -> Source:
    """Opens data of any accepted form; `docs/data.md` lists them.

    labels     a column of a table; or for files "labels.csv" or "labels.csv:column"
    name       what messages and reports call the data
    modality   what to read the data as, where files or arrays could be several things; a path may say it too, as in
               "video:clips/"
    annotations  boxes on the pictures of a folder: a COCO file, "instances.json", or a folder of VOC files
    masks      a folder of PNG files, each with the stem of its picture and the number of a class per pixel
    reading    how to read it, where not as the data suggest: {"rate": 16000, "seconds": 5.0} of sound (of an array, the
               rate that it is at), {"window": 512, "stride": 256} of series; the page of each modality names them
    columns    of a table, which column holds which modality: {"image": "file", "text": "caption"}, {"table": [...]}
    missing    of pairs: items that lack a modality stay, and batches say which is present
    Raises RequestError where there is nothing to open, or nothing in it can be read.
    """
    if annotations is not None or masks is not None:
        if not isinstance(what, str | os.PathLike):
            raise RequestError("Annotations and masks go with a folder of pictures, given by its path.")
        pictures = _opened(what, None, name, modality or "image")
        source: Source = annotated.annotate(pictures, labels, annotations, masks)
    elif columns is not None:
        source = paths.open_named(what, labels, name, columns)
    else:
        source = _opened(what, labels, name, modality)
    asked = dict(reading or {})
    if isinstance(source, array.Memory | array.Mapped) and source.modalities == ("audio",):
        source = audio.sounding(source, asked)
    for field in asked:
        if not any(field in source.reading(kind) for kind in source.modalities):
            kinds = " or ".join(MODALITIES[kind].plural for kind in source.modalities)
            raise unknown(f"way of reading {kinds}", field, {f for m in source.modalities for f in source.reading(m)})
    for kind in source.modalities:
        if mine := {field: value for field, value in asked.items() if field in source.reading(kind)}:
            source = source.conform(kind, mine)
    source = settled(source, missing) if missing or not isinstance(what, Source) else source
    if isinstance(what, Source):
        return source
    told = {"labels": labels, "name": name, "modality": modality, "reading": reading, "annotations": annotations}
    source.address = curated.address(what, told | {"masks": masks, "columns": columns, "missing": missing})
    return source


def _opened(what: Any, labels: str | None, name: str | None, modality: str | None) -> Source:
    if isinstance(what, Source):
        _no_labels(labels, what.name)
        return what
    if modality is not None and modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    if isinstance(what, str | os.PathLike):
        path, first = os.fspath(what), os.fspath(what).partition(":")[0]
        if first in MODALITIES and not os.path.exists(path):
            path, modality = path[len(first) + 1 :], first
        return _by_name(path, labels, name, modality)
    if isinstance(what, pa.Table):
        return table.from_table(what, labels, name or "table")
    if type(what).__module__.partition(".")[0] == "datasets":
        return dataset.from_hugging_face(what, labels, name or "Hugging Face data set")
    if isinstance(what, np.ndarray) and what.dtype.kind in "UO" and all(isinstance(each, str) for each in what.flat):
        what = what.ravel().tolist()
    if isinstance(what, np.ndarray | Tensor):
        _no_labels(labels, name or "array")
        return array.from_arrays(what, None, name or "array", modality=modality)
    if isinstance(what, list) and what and all(isinstance(each, str | os.PathLike) for each in what):
        return _several([os.fspath(each) for each in what], labels, name, modality)
    if isinstance(what, tuple) and len(what) == 2:
        _no_labels(labels, name or "arrays")
        return array.from_arrays(what[0], what[1], name or "arrays", modality=modality)
    if graph.is_graph(what) or (isinstance(what, list) and what and all(map(graph.is_graph, what))):
        return graph.from_objects(what if isinstance(what, list) else [what], labels, name or "graphs")
    if hasattr(what, "__len__") and hasattr(what, "__getitem__") and not isinstance(what, list | dict | tuple):
        _no_labels(labels, name or type(what).__name__)
        return dataset.Items(what, name or type(what).__name__)
    raise RequestError(
        f"Data of type {type(what).__name__} cannot be opened; expected {ACCEPTED}, an array, a tensor, (x, y), "
        f"an Arrow table, or a torch or Hugging Face data set."
    )


def _several(given: list[str], labels: str | None, name: str | None, modality: str | None) -> Source:
    """Shards, or files in the order given, none of which may be missing."""
    if "://" in given[0] or any(index.ending(each) in archive.ENDINGS for each in given):
        some = shards.named(given)
        assert some is not None
        return shards.open_shards(*some, labels, name or f"{len(given)} archives", modality)
    at = [os.path.abspath(os.path.expanduser(each)) for each in given]
    if missing := [each for each in at if not os.path.isfile(each)]:
        raise RequestError(f"{len(missing)} of {len(at)} files listed do not exist, such as {missing[0]}.")
    root = os.path.commonpath([os.path.dirname(each) for each in at])
    names = pa.array([os.path.relpath(each, root) for each in at], pa.large_string())
    called = name or f"{len(at)} files"
    return files(Disk(), root, names, {}, labels, called, called, modality)


def _no_labels(given: str | None, name: str) -> None:
    if given is not None:
        raise RequestError(
            f"labels={given!r} names a column or a labels file; {name} has neither (arrays take labels as (x, y))."
        )


def _by_name(what: str, asked: str | None, name: str | None, modality: str | None) -> Source:
    if (several := shards.named(what)) is not None:
        return shards.open_shards(*several, asked, name or what, modality)
    if "://" in what and not what.startswith("file://"):
        return _remote(what, asked, name, modality)
    at = os.path.expanduser(what.removeprefix("file://"))
    if manifest := curated.found(at):
        return curated.open_manifest(manifest, open, asked, name)
    if spelled(at) in builtin.BUILTINS:
        _no_labels(asked, at)
        source = builtin.BUILTINS[spelled(at)](name or spelled(at))
        if os.path.exists(at):
            source.notes += (f"{at} is also a file here; this is the built-in set, ./{at} is the file.",)
        return source
    if os.path.isdir(at):
        found = index.folder(at, ENDINGS)
        called = name or os.path.basename(os.path.realpath(at)) + "/"
        root, rest = os.path.realpath(at), found.facts["others"]
        opened = files(Disk(), root, found.table["name"], rest, asked, called, at, modality)
        if "image" in opened.modalities:
            opened.notes += annotated.hints(root, found.table["name"], rest)
        return opened
    if os.path.isfile(at):
        return _file(Disk(), os.path.abspath(at), asked, name or os.path.basename(at), modality)
    if glob.has_magic(at):
        root = os.path.abspath(_before_magic(at))
        others: Counter[str] = Counter()
        matches = (os.path.relpath(p, root) for p in glob.iglob(at, recursive=True) if os.path.isfile(p))
        return files(Disk(), root, chosen(matches, others), others, asked, name or what, at, modality)
    raise builtin.missing(what, at)


def _before_magic(pattern: str) -> str:
    parts = Path(pattern).parts
    return os.path.join("", *parts[: next(i for i, p in enumerate(parts) if glob.has_magic(p))]) or "."


def _file(place: Disk | Remote, at: str, asked: str | None, name: str, modality: str | None) -> Source:
    end = index.ending(at)
    if modality is not None and (modality, end) in AS:
        return AS[modality, end](place, at, asked, name)
    if end in archive.PACKED and not at.lower().endswith(".nii.gz"):
        raise RequestError(
            f"{at} is packed as a whole and cannot be read at random; unpack it to a .tar, .zip or folder first."
        )
    itself = modality is not None and reader_for({end: 1}, modality) is not None
    if end in (table.ENDINGS if modality is None else paths.ENDINGS) and not itself:
        return paths.open_table(place, at, asked, name, modality)
    if end in ALONE:
        return ALONE[end](place, at, asked, name)
    if end in archive.ENDINGS:
        return shards.open_shards(place, [at], asked, name, modality)
    if end in array.ENDINGS:
        _no_labels(asked, name)
        if isinstance(place, Remote):
            raise RequestError(f"Array files are read from this machine only; copy {place.url(at)} here first.")
        return array.from_file(at, name, modality)
    root = os.path.dirname(at)
    if end == "txt" and modality != "text":
        return _list(place, at, root, asked, name, modality)
    if reader_for({end: 1}, modality) is not None:
        names = pa.array([os.path.basename(at)], pa.large_string())
        return files(place, root, names, {}, asked, name, at, modality)
    raise RequestError(
        f"The file {at} ends in .{end}{' and cannot be read as ' + modality if modality else ''}; expected {ACCEPTED}."
    )


def _list(place: Disk | Remote, at: str, root: str, asked: str | None, name: str, modality: str | None) -> Source:
    try:
        lines = place.read(at).decode().splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"The list {at} is not text in UTF-8 ({error}).") from error
    names = index.names_of(index.chunks(s for line in lines if (s := line.strip())))
    if not len(names):
        raise RequestError(f"The list {at} names no files.")
    if pc.all(pc.is_in(endings(names), value_set=pa.array(sorted(archive.ENDINGS), pa.large_string()))).as_py():
        return shards.open_shards(place, [os.path.join(root, n) for n in names.to_pylist()], asked, name, modality)
    return files(place, root, names, {}, asked, name, at, modality)


def _remote(what: str, asked: str | None, name: str | None, modality: str | None) -> Source:
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
            return _file(place, at, asked, called, modality)
        else:
            raise RequestError(f"There is nothing at {what}.")
    except OSError as error:
        raise RequestError(f"The address {what} cannot be opened: {error}.") from error
    names = chosen((p[len(root) :].lstrip("/") for p in found), others)
    return files(place, root, names, others, asked, called if glob.has_magic(at) else called + "/", what, modality)


def builtins() -> tuple[str, ...]:
    """The names of the built-in sets."""
    return tuple(builtin.BUILTINS)
