"""The command that chooses data: curate."""

from typing import Annotated, Any

import typer

from headwater.cli import show as shown
from headwater.cli.app import DATA_HELP, Device, Json, Labels, Out, Seed, Set, Workers, app, emit, live
from headwater.cli.reading import Read, opened
from headwater.core.errors import RequestError


@app.command()
def curate(
    method: Annotated[
        str, typer.Argument(help="What chooses: near-duplicates, balanced, active-outliers, climb or krr-st.")
    ],
    data: Annotated[str, typer.Option("--data", "-d", help=f"A folder that embed wrote, or raw data: {DATA_HELP}")],
    out: Out,
    keep: Annotated[
        str,
        typer.Option(
            help="How many items, such as 1000, or which share of them, such as 0.5; empty: as the method has it."
        ),
    ] = "",
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            "-e",
            help="Whose features are compared; empty: values as they are. For krr-st: the teacher.",
        ),
    ] = "",
    labels: Labels = None,
    target: Annotated[str, typer.Option(help="For climb: the data that count, on which each trial is measured.")] = "",
    proxy: Annotated[str, typer.Option(help="For climb: the method by which a trial pre-trains.")] = "mae",
    steps: Annotated[int, typer.Option(help="For climb: steps of a trial.", min=1)] = 100,
    read: Read = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Choose which data to learn from, and write a manifest that pretrain --data takes, and a report with pictures.

    Examples:

    headwater curate near-duplicates --data photos/ --out runs/photos-once

    headwater curate balanced --data vectors/ --keep 10000 --out runs/photos-even

    headwater curate climb --data corpus/ --target wanted/ --keep 100000 --out runs/mixed

    headwater curate krr-st --data photos/ --encoder runs/photos --keep 1000 --out runs/few

    headwater pretrain krr-st --data runs/few --out runs/from-few

    headwater pretrain mae --data runs/photos-even --out runs/photos
    """
    from headwater.api.curate import curate as work

    source, labels = opened(data, labels, read)
    made = work(
        method,
        source,
        keep=_budget(keep),
        out=out,
        encoder=encoder or None,
        labels=labels,
        target=target or None,
        proxy=proxy,
        steps=steps,
        seed=seed,
        device=device,
        workers=workers,
        set=set or (),
        progress=live(),
    )
    emit({**made.facts, "out": out}, as_json, _show)


def _budget(text: str) -> int | float | None:
    if not text:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise RequestError(f"--keep {text!r}: expected a number of items, or a share between 0 and 1.") from error


def _show(made: dict[str, Any]) -> None:
    shown.print_unreadable(made)
    if "error" in made:
        told = f"error {100 * made['error']:.1f} % of the variance, with as many real ones {100 * made['error_of_real']:.1f} %"
        print(
            f"{made['kept']:,} samples made from {made['pool']:,} of {made['name']} in {made['seconds']:.1f} s: {told}."
        )
        print(f"Samples: {made['out']}    Page: {made['out']}/report.html")
        print(f"Next: headwater pretrain krr-st --data {made['out']} --out RUN")
        return
    pool, seconds = f"{made['kept']:,} of {made['pool']:,} items of {made['name']}", f"in {made['seconds']:.1f} s"
    if "mixture" in made:
        print(f"{made['draws']:,} draws from {pool}, mixed as {len(made['losses'])} trials suggest, {seconds}.")
    else:
        print(f"{pool} kept {seconds}.")
    print(f"Manifest: {made['out']}    Page: {made['out']}/report.html")
