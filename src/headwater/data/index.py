"""The names of millions of files in one Arrow array, kept in a memory-mapped file so that the next start is instant.

An index is a table with JSON beside it. It lies under ~/.cache/headwater/index (or $HEADWATER_CACHE/index), is written
aside and renamed into place, and carries a checksum: a damaged one is built anew. A cache that cannot be written is
done without. A folder's index holds while no directory in it has changed its modification time, which is when files
are added, removed or renamed.
"""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError
from headwater.data.source import digest

HEAD = 64  # bytes before the Arrow data: the checksum, and room so that the data stay aligned
CHUNK = 65536  # names collected in Python before they move into Arrow
SETTLED = 2.0  # seconds; a directory changed later than that may change again within the clock's tick


@dataclass(frozen=True)
class Index:
    """`table` holds one row per item, column "name" first; `facts` what else was found, as JSON can hold it."""

    table: pa.Table
    facts: dict[str, Any]


def cache() -> Path:
    """Where indexes and converted tables lie."""
    root = os.environ.get("HEADWATER_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "headwater") / "index"


def kept(key: str, valid: Callable[[dict[str, Any]], bool], build: Callable[[], tuple[Index, bool]]) -> Index:
    """The index stored under `key` while `valid(facts)`; else what `build` makes, stored if it says that it may be."""
    path = cache() / f"{digest(key)}.index"
    found = _load(path)
    if found is not None and found.facts.get("key") == key and valid(found.facts):
        return found
    made, lasting = build()
    if lasting:
        _store(path, Index(made.table, made.facts | {"key": key}))
    return made


def _load(path: Path) -> Index | None:
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        body = whole.slice(HEAD)
        if blake2b(memoryview(body), digest_size=HEAD).digest() != whole[:HEAD].to_pybytes():
            return None
        table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
        return Index(table, json.loads(table.schema.metadata[b"facts"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _store(path: Path, index: Index) -> None:
    sink = pa.BufferOutputStream()
    table = index.table.replace_schema_metadata({"facts": json.dumps(index.facts)})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue()

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            file.write(blake2b(memoryview(body), digest_size=HEAD).digest())
            file.write(memoryview(body))

    try:
        replace(path, write)
    except OSError:
        return  # a full disk or a read-only home costs the next start some seconds, nothing else


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Has `write` make a file beside `path` and renames it into place, so that no half-written file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".aside")
    os.close(handle)
    try:
        write(Path(aside))
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def names_of(batches: Iterable[list[str]]) -> pa.Array:
    """Names in Arrow, from lists short enough for Python."""
    try:
        return pa.chunked_array([pa.array(b, pa.large_string()) for b in batches], pa.large_string()).combine_chunks()
    except UnicodeEncodeError as error:
        raise RequestError(f"A file name is not valid UTF-8: {error.object!r}. Rename it.") from error


def chunks(names: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most CHUNK names."""
    batch: list[str] = []
    for name in names:
        batch.append(name)
        if len(batch) == CHUNK:
            yield batch
            batch = []
    yield batch


def ending(name: str) -> str:
    """ "png" of "a/b.PNG"; "" without one."""
    base = name.rpartition("/")[2]
    return base.rpartition(".")[2].lower() if "." in base else ""


def folder(root: str, endings: frozenset[str]) -> Index:
    """The files below `root` with one of `endings`, by path relative to it, sorted. Hidden files are passed over.

    `facts["others"]` counts the files with other endings.
    """
    root = os.path.realpath(root)

    def valid(facts: dict[str, Any]) -> bool:
        try:
            return all(os.stat(os.path.join(root, d)).st_mtime_ns == at for d, at in facts["directories"].items())
        except OSError:
            return False

    def build() -> tuple[Index, bool]:
        others: Counter[str] = Counter()
        directories: dict[str, int] = {}
        found = names_of(chunks(_walk(root, endings, others, directories)))
        ordered = found.take(pc.sort_indices(found))
        facts = {"directories": directories, "others": dict(others)}
        settled = max(directories.values()) < (time.time() - SETTLED) * 1e9
        return Index(pa.table({"name": ordered}), facts), settled

    return kept(f"folder:{root}:{sorted(endings)}", valid, build)


def _walk(root: str, endings: frozenset[str], others: Counter[str], directories: dict[str, int]) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    todo = [""]
    while todo:
        prefix = todo.pop()
        at = os.path.join(root, prefix)
        try:
            facts = os.stat(at)
            if (facts.st_dev, facts.st_ino) in seen:  # a link back up would never end
                continue
            seen.add((facts.st_dev, facts.st_ino))
            directories[prefix] = facts.st_mtime_ns
            with os.scandir(at) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or name == "__MACOSX":
                        continue
                    if entry.is_dir():
                        todo.append(f"{prefix}{name}/")
                    elif (end := ending(name)) in endings:
                        yield f"{prefix}{name}"
                    else:
                        others[end] += 1
        except PermissionError as error:
            raise RequestError(f"The folder {at} cannot be read: permission denied.") from error
