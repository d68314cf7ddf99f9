"""The application, the options that commands share, and how they print."""

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="headwater",
    help="Learn representations from unlabelled data of any kind, and carry them to every task downstream.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DATA_HELP = (
    "A folder, glob, list (.txt), archive (.zip, .tar), table (.csv, .parquet), array (.npy, .npz), URL, "
    "or a built-in such as digits."
)
Data = Annotated[str, typer.Option("--data", "-d", help=DATA_HELP)]
Labels = Annotated[
    str | None, typer.Option(help="A CSV file of labels (file.csv or file.csv:column), or a column of the table.")
]
Out = Annotated[str, typer.Option("--out", "-o", help="The folder to write.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option(help="Threads that decode.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples per step, over all processes.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="path.to.field=value; `headwater show METHOD` lists the fields.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]


def emit(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun one process speaks for all
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


def live() -> Any:
    from headwater.engine.log import Progress

    return Progress()


def say(as_json: bool) -> Callable[[str], None]:
    stream = sys.stderr if as_json else sys.stdout
    return lambda line: print(line, file=stream, flush=True)
