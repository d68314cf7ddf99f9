"""Tables from CSV, Parquet, Arrow and Feather files.

Numbers and truth values become one float32 column each, missing cells NaN. A column of at most 100 different words holds
the number of its word. A date becomes three columns: days since 1970, the month and the day of the week. Everything else
is left out and named in the notes. Tables that name files, or hold them, are read by `paths`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet as pq
import torch

from headwater.core.errors import RequestError, unknown
from headwater.data.index import cache, ending, replace
from headwater.data.labels import LABEL_COLUMNS, Labels, encode
from headwater.data.rows import Rows
from headwater.data.source import digest
from headwater.data.stores import Disk, Remote

ENDINGS = frozenset({"csv", "tsv", "parquet", "pq", "arrow", "feather", "ipc"})
LINES = frozenset({"jsonl", "ndjson"})  # an object per line; texts unless they name files
FEW = 100  # different words a column may hold to become a category
EXACT = 1 << 24  # float32 holds every whole number up to this


def arrow_table(at: str, place: Disk | Remote, words: bool = False) -> pa.Table:
    """The whole file as Arrow; memory-mapped where the format allows. `words` keeps CSV cells as they are written."""
    local = isinstance(place, Disk)
    try:
        if ending(at) in ("csv", "tsv"):
            return _csv(place.read(at), words)
        if ending(at) in LINES:
            return pa.json.read_json(pa.BufferReader(place.read(at)))
        if ending(at) in ("parquet", "pq"):
            return pq.read_table(at if local else pa.BufferReader(place.read(at)))
        source = pa.memory_map(at) if local else pa.BufferReader(place.read(at))
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The table {at} cannot be read ({error}).") from error


def parsed(data: bytes) -> pa.Table:
    """A small table from its bytes. Raises RequestError for what is none."""
    try:
        return pq.read_table(pa.BufferReader(data)) if data[:4] == b"PAR1" else _csv(data, False)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the table cannot be read ({error})") from error


def _csv(data: bytes, words: bool) -> pa.Table:
    header = data.split(b"\n", 1)[0]
    delimiter = max(",;\t", key=lambda c: header.count(c.encode()))
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in data)
    convert = pa.csv.ConvertOptions(strings_can_be_null=True)
    if words:
        names = pa.csv.open_csv(pa.BufferReader(data), parse_options=parse).schema.names
        convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pa.csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)


def loaded(place: Disk | Remote, at: str) -> pa.Table:
    """The whole file as Arrow, large cells of files in them left on disk."""
    if isinstance(place, Disk) and ending(at) in ("parquet", "pq"):
        try:
            schema = pq.read_schema(at)
        except (pa.ArrowInvalid, OSError) as error:
            raise RequestError(f"The table {at} cannot be read ({error}).") from error
        encoded_in = [f.name for f in schema if encoded(f.type)]
        if encoded_in:
            return _mapped(at, encoded_in[0])
    return arrow_table(at, place)


def encoded(kind: pa.DataType) -> bool:
    """Whether cells of this type hold files, as bytes or as a struct with a field of bytes."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _mapped(at: str, column: str) -> pa.Table:
    """A Parquet file with large cells, copied once to an uncompressed Arrow file in the cache, whose rows can be read
    at random without decoding their neighbours. Read into memory where the cache cannot be written."""
    aside = cache() / f"{digest(at, Disk().stamp(at), column)}.arrow"

    def write(path: Any) -> None:
        file = pq.ParquetFile(at)
        with pa.ipc.new_file(str(path), file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=256):
                writer.write_batch(batch)

    for _ in range(2):
        try:
            return pa.ipc.open_file(pa.memory_map(str(aside))).read_all()
        except (OSError, pa.ArrowInvalid):
            try:
                replace(aside, write)
            except OSError:
                break
    return pq.read_table(at)


def label_column(table: pa.Table, column: str, at: str) -> Labels:
    if column not in table.column_names:
        raise unknown(f"column of {at}", column, table.column_names)
    return encode(table[column], f"The column {column}")


def from_table(table: pa.Table, labels: str | None, name: str, at: str = "") -> Rows:
    """Rows of a table. `labels` names the column that is not an input but the label."""
    twice = {c for c in table.column_names if table.column_names.count(c) > 1}
    if twice:
        raise RequestError(f"The table {name} has more than one column named {', '.join(sorted(twice))}.")
    if not table.num_rows:
        raise RequestError(f"The table {name} has no rows.")
    made = None if labels is None else label_column(table, labels, name)
    columns: list[np.ndarray] = []
    names: list[str] = []
    words: dict[str, list[str]] = {}
    left: list[str] = []
    notes: list[str] = []
    for column in table.column_names:
        if column == labels:
            continue
        parts, why = columns_of(column, table[column])
        for part, values, kinds in parts:
            columns.append(values)
            names.append(part)
            if kinds:
                words[part] = kinds
        if why:
            left.append(f"{column} ({why})")
        elif pa.types.is_integer(table[column].type) and _largest(table[column]) > EXACT:
            notes.append(f"The column {column} holds whole numbers above {EXACT}, which float32 rounds.")
        if labels is None and column.lower() in LABEL_COLUMNS:
            notes.append(f"The column {column} is an input here; labels={column!r} would make it the label.")
    if not columns:
        raise RequestError(f"The table {name} has no column of numbers or of a few words: {', '.join(left)}.")
    if left:
        notes.append(f"Columns left out: {', '.join(left)}.")
    matrix = torch.from_numpy(np.stack(columns, axis=1))
    return Rows(name, matrix, names, words, made, at, tuple(notes), left)


def _largest(column: pa.ChunkedArray) -> int:
    ends: dict[str, int | None] = pc.min_max(column).as_py()
    return max(abs(end or 0) for end in ends.values())


MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
MONTHS += ["August", "September", "October", "November", "December"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def columns_of(name: str, column: pa.ChunkedArray) -> tuple[list[tuple[str, np.ndarray, list[str]]], str]:
    """The float32 columns made of one column: name, values and, for categories, words; and why it is left out, if it is."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if number or pa.types.is_boolean(kind):
        numbers = column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column
        return [(name, _floats(numbers), [])], ""
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        days = column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64())
        parts = [
            (f"{name} (days)", _floats(pc.divide(days, 86_400e6)), list[str]()),
            (f"{name} (month)", _floats(pc.month(column)) - 1, MONTHS),
            (f"{name} (weekday)", _floats(pc.day_of_week(column)), DAYS),
        ]
        return parts, ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = sorted(pc.unique(column.drop_null()).to_pylist())
        if not words:
            return [], "empty"
        if len(words) > FEW:
            return [], f"{len(words)} different words"
        return [(name, _floats(pc.index_in(column, value_set=pa.array(words, kind))), words)], ""
    return [], "empty" if pa.types.is_null(kind) else str(kind)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
