"""Labels: from the names of folders, from a file of names and labels, from any column of values."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import RequestError, spelled, unknown

FILE_COLUMNS = ("file", "path", "name", "id", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "target", "category")
MOST = 100  # whole numbers with more distinct values than this are targets to regress, not classes


@dataclass(frozen=True)
class Labels:
    """Class indices int64 [n] with -1 for none, or targets float64 [n] with NaN for none (then `classes` is empty)."""

    values: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def encode(values: pa.Array | pa.ChunkedArray | np.ndarray, what: str, targets: bool = True) -> Labels:
    """Words, truth values and whole numbers (of at most 100 kinds) become classes in sorted order; other numbers are
    targets to regress, unless `targets` is False. `what` names the column in messages."""
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not (number or pa.types.is_boolean(column.type) or _words(column.type)):
        raise RequestError(f"Labels must be words or numbers; {what} holds {column.type}.")
    kinds = pc.unique(column.drop_null())
    kinds = kinds.take(pc.sort_indices(kinds))
    if number and targets:
        numbers = kinds.to_numpy(zero_copy_only=False)
        if len(kinds) > MOST or (numbers != np.floor(numbers)).any():
            found = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            return Labels(found.astype(np.float64), (), (f"{what} holds numbers: targets to regress, not classes.",))
    if pa.types.is_floating(kinds.type) and not (kinds.to_numpy() % 1).any():
        names = [str(int(k)) for k in kinds.to_pylist()]
    else:
        names = [str(k) for k in kinds.to_pylist()]
    at = pc.fill_null(pc.index_in(column, value_set=kinds), -1)  # `kinds` holds no null, so null matches nothing
    return Labels(at.to_numpy(zero_copy_only=False).astype(np.int64), tuple(names))


def _words(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def from_folders(names: pa.Array | pa.ChunkedArray) -> Labels | None:
    """The folder each file stands in, at the first level where the paths part; None with fewer than two folders.

    Files that stand beside those folders have no label.
    """
    if not len(names):
        return None
    rest = names
    while True:
        first = pc.replace_substring_regex(rest, r"^([^/]*)/.*$", r"\1")
        inside = pc.match_substring(rest, "/")
        kinds = pc.unique(first.filter(inside))
        if len(kinds) >= 2:
            return encode(pc.if_else(inside, first, pa.scalar(None, first.type)), "the folders", targets=False)
        if len(kinds) == 0 or not pc.all(inside).as_py():
            return None
        rest = pc.utf8_slice_codeunits(rest, len(kinds[0].as_py()) + 1)


def from_file(request: str, root: str, names: pa.Array | pa.ChunkedArray) -> Labels:
    """`request` is "labels.csv" or "labels.csv:column"; the file is looked for here, then in `root`.

    Rows name files by relative path, with or without ending, or by the bare name where that is unique.
    """
    from headwater.data.stores import Disk
    from headwater.data.table import ENDINGS, arrow_table

    at, column = request, None
    if spelled(Path(request).suffix)[1:] not in ENDINGS and ":" in request:
        at, _, column = request.rpartition(":")
    candidates = [Path(at), Path(root) / at]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise RequestError(f"The labels file {at!r} is neither here nor in {root or 'the data'}.")
    table = arrow_table(str(path), Disk(), words=True)
    known = {spelled(c): c for c in reversed(table.column_names)}
    keys = next((known[c.replace("_", "-")] for c in FILE_COLUMNS if c.replace("_", "-") in known), None)
    if keys is None:
        raise RequestError(
            f"The labels file {path} needs a column named file, path, name or id; "
            f"it has {', '.join(table.column_names)}."
        )
    if column is None:
        column = next((known[c] for c in LABEL_COLUMNS if c in known), None)
        if column is None:
            raise RequestError(
                f"The labels file {path} needs a column named label, class or target, or say labels='{at}:column'; "
                f"it has {', '.join(table.column_names)}."
            )
    elif column not in table.column_names:
        raise unknown(f"column of {path}", column, table.column_names)
    return _matched(table[keys].cast(pa.large_string()), _typed(table[column]), names, str(path))


def _typed(column: pa.ChunkedArray) -> pa.Array:
    """A column read as words, as numbers if all of it are numbers."""
    words = column.combine_chunks()
    if not _words(words.type):
        return words
    words = pc.if_else(pc.equal(words, ""), pa.scalar(None, words.type), words)
    for kind in (pa.int64(), pa.float64()):
        try:
            return words.cast(kind)
        except pa.ArrowInvalid:
            continue
    return words


def _matched(keys: pa.ChunkedArray, values: pa.Array, names: pa.Array | pa.ChunkedArray, path: str) -> Labels:
    keys = pc.replace_substring_regex(keys.combine_chunks(), r"^\./", "")
    best: tuple[int, pa.Array, int] | None = None
    for base in (False, True):
        for stem in (False, True):
            mine, theirs = _shortened(names, base, stem), _shortened(keys, base, stem)
            if len(pc.unique(theirs)) < len(theirs) or len(pc.unique(mine)) < len(mine):
                continue
            found = pc.index_in(mine, value_set=theirs)
            hits = len(found) - found.null_count
            if best is None or hits > best[0]:
                best = hits, found, len(theirs) - hits
    if best is None:
        raise RequestError(f"The labels file {path} names a file more than once.")
    hits, found, lost = best
    if not hits:
        raise RequestError(
            f"The labels file {path} names none of the files; it has {keys[0].as_py() if len(keys) else 'no rows'!r}, "
            f"the data {names[0].as_py()!r}."
        )
    made = encode(
        values.take(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found), f"The labels file {path}"
    )
    notes = list(made.notes)
    if lost:
        notes.append(f"{path} names {lost} files that do not exist.")
    if len(names) - hits:
        notes.append(f"{len(names) - hits} files have no row in {path} and no label.")
    return Labels(made.values, made.classes, tuple(notes))


def _shortened(names: pa.Array | pa.ChunkedArray, base: bool, stem: bool) -> pa.Array | pa.ChunkedArray:
    if base:
        names = pc.replace_substring_regex(names, r"^.*/", "")
    return pc.replace_substring_regex(names, r"\.[^./]*$", "") if stem else names
