"""`--read`: how the data of a command are opened, where a path alone does not say it."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from headwater.core.errors import RequestError

Read = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        help="How to open the data, where the path does not say it; as often as needed. annotations=FILE, masks=FOLDER, "
        "columns.image=COLUMN, columns.table=COLUMN,COLUMN, modality=video, missing=true, or a way of reading such as "
        "rate=16000 or window=512.",
    ),
]
WORDS = ("annotations", "masks", "modality", "name")


def opened(data: str, labels: str | None, read: Sequence[str] | None) -> tuple[Any, str | None]:
    """The data and labels to give to a verb: as they came, or opened as `read` asks, labels included.

    Raises RequestError where a pair is not `name=value`, or what `hw.open` raises.
    """
    if not read:
        return data, labels
    from headwater.data import open as open_data

    asked: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    reading: dict[str, Any] = {}
    for pair in read:
        name, given, value = pair.partition("=")
        if not (name and given and value):
            raise RequestError(
                f"--read {pair!r}: expected name=value, such as --read masks=labels/ or --read rate=16000."
            )
        if name in WORDS:
            asked[name] = value
        elif name == "missing":
            asked[name] = _told(value)
            if not isinstance(asked[name], bool):
                raise RequestError(f"--read {pair!r}: expected true or false.")
        elif name.startswith("columns."):
            columns[name.removeprefix("columns.")] = value.split(",") if "," in value else value
        else:
            reading[name] = _told(value)
    return open_data(data, labels=labels, columns=columns or None, reading=reading or None, **asked), None


def _told(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
