"""The commands that put questions to encoders: compare, study."""

from typing import Annotated, Any

import typer

from headwater.cli import show as shown
from headwater.cli.app import DATA_HELP, Device, Json, Seed, Set, Workers, app, emit, live
from headwater.cli.reading import Read, opened
from headwater.core.errors import RequestError


@app.command()
def compare(
    encoders: Annotated[list[str], typer.Argument(help="Run folders, encoder folders or hf:CHECKPOINT, two or more.")],
    data: Annotated[list[str], typer.Option("--data", "-d", help=f"{DATA_HELP} As often as there are data sets.")],
    out: Annotated[str, typer.Option("--out", "-o", help="A new folder, for compare.html and compare.json.")],
    labels: Annotated[
        list[str] | None, typer.Option(help="A CSV file of labels or a column: one for all data sets, or one for each.")
    ] = None,
    read: Read = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="Of linear, knn, naive-bayes, few-shot, fine-tune, retrieval, ood, corruption and calibration; all by default."
        ),
    ] = "",
    draws: Annotated[int, typer.Option(help="Label draws of few-shot.", min=1)] = 5,
    steps: Annotated[int, typer.Option(help="Optimiser steps of fine-tuning.", min=1)] = 100,
    test: Annotated[float, typer.Option(help="Share to test on.", min=0.01, max=0.9)] = 0.28,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Run encoders through the same tasks on your labelled data, and say which leads by how much (Battle of the Backbones).

    Writes one page to look at and one JSON. An encoder that fails is told, and stops no other.

    Example: headwater compare runs/mae runs/dino hf:checkpoints/vit --data photos/ --data digits --out runs/comparison
    """
    from headwater.api.compare import compare as work
    from headwater.api.gauntlet import KINDS
    from headwater.report.comparison import lines

    given = labels or []
    if len(given) not in (0, 1, len(data)):
        raise RequestError(
            f"--labels was given {len(given)} times for {len(data)} data sets; give it once, or once for each."
        )
    named = [given[0] if len(given) == 1 else given[i] if given else None for i in range(len(data))]
    sources = [opened(d, name, read) for d, name in zip(data, named, strict=True)]
    result = work(
        encoders,
        [source for source, _ in sources],
        out=out,
        labels=[name for _, name in sources],
        tasks=[t.strip() for t in tasks.split(",") if t.strip()] or tuple(KINDS),
        draws=draws,
        steps=steps,
        test=test,
        seed=seed,
        device=device,
        workers=workers,
        progress=live(),
    )

    def show(made: dict[str, Any]) -> None:
        print("\n".join([*lines(made), f"Page: {out}/compare.html"]))

    emit(result, as_json, show)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study by name: shortcut-foundations.")],
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder", "-e", help="An encoder of pictures to ask, as often as there are; none asks model families."
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="A new folder for study.json and study.png.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between them.")] = "0,1,2",
    device: Device = "auto",
    workers: Workers = 2,
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Put the question of a study to model families, or to your encoders; a table, a figure and a sentence answer.

    Examples:

    headwater study shortcut-foundations --out runs/shortcuts

    headwater study shortcut-foundations -e runs/photos -e hf:checkpoints/vit --set "cues.predictivity=(0.8,0.9)"
    """
    from headwater.api.study import study as work

    given = shown.numbers(seeds, "--seeds")
    more = {"device": device, "workers": workers, "set": set or (), "progress": live()}
    emit(work(name, encoder or (), out=out or None, seeds=given, **more), as_json, _show_study)


def _show_study(made: dict[str, Any]) -> None:
    wide = max(len(r["learner"]) for r in made["rows"])
    print(f"{'':<{wide}}   ratio   shortcut bias   accuracy   by seed")
    for row in made["rows"]:
        each = ", ".join(f"{v:+.3f}" for v in row["by_seed"])
        told = f"{row['ratio']:7g}   {row['bias']:+13.3f}   {100 * row['accuracy']:6.1f} %   {each}"
        print(f"{row['learner']:<{wide}} {told}")
    print(made["verdict"])
