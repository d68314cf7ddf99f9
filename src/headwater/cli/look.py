"""The commands that look at what is there: list, show, reproduce, report, verify-resume."""

from typing import Annotated

import typer

from headwater.cli import show as shown
from headwater.cli.app import Data, Json, Seed, Set, app, emit


@app.command(name="list")
def list_(
    folder: Annotated[str, typer.Argument(help="One folder of the catalogue, such as distill.")] = "",
    matrix: Annotated[bool, typer.Option("--matrix", help="Which method learns from which kind of data.")] = False,
    planned: Annotated[bool, typer.Option("--planned", help="The published systems that do not run yet.")] = False,
    as_json: Json = False,
) -> None:
    """List the methods: the name, the year and the idea in one sentence; or, with --matrix, what learns from what."""
    if matrix:
        from headwater.api.matrix import matrix as table

        emit({"rows": table()}, as_json, shown.print_matrix)
        return
    if planned:
        emit(shown.planned(folder), as_json, shown.print_planned)
        return
    result = shown.catalogue_lines(folder)
    emit(result, as_json, shown.print_catalogue)


@app.command()
def show(
    method: Annotated[str, typer.Argument(help="A method by name.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Show the recipe for this data instead of the published one.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show a method: idea, paper, what differs from it, every field that --set can change, and measured numbers."""
    result = shown.method(method, data)
    emit(result, as_json, shown.print_method)


@app.command()
def reproduce(
    method: Annotated[str, typer.Argument(help="A method by name.")],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between them.")] = "0,1,2",
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Take the mechanism away: then the claim must not hold.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-run the central claim of a method's paper at the size of a laptop, in minutes.

    Exit code 1 where it does not hold (with --ablate: where it does).

    Example: headwater reproduce rotnet
    """
    from headwater.api.reproduce import reproduce as work

    found = work(method, shown.numbers(seeds, "--seeds"), ablate=ablate)
    emit({k: found[k] for k in shown.CLAIM_KEYS} if as_json else found, as_json, shown.print_claim)
    if found["holds"] == ablate:
        raise typer.Exit(1)


@app.command()
def report(run: Annotated[str, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Write the page of a run again (report.html), from what its folder holds now."""
    from pathlib import Path

    from headwater.report.page import render

    path = render(Path(run))
    emit({"report": str(path)}, as_json, lambda r: print(r["report"]))


@app.command(name="verify-resume")
def verify_resume(
    method: Annotated[str, typer.Argument(help="A method by name.")],
    data: Data = "digits",
    steps: Annotated[int, typer.Option(help="Steps of the run to kill.", min=4)] = 40,
    kills: Annotated[int, typer.Option(help="How often to kill it.", min=1)] = 2,
    seed: Seed = 0,
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Prove that a killed run resumes to the same bits: kill one for real, and compare it with one left alone.

    Example: headwater verify-resume dino --data digits
    """
    from dataclasses import asdict

    from headwater.api.verify import verify_resume as work

    proof = work(method, data, steps=steps, kills=kills, seed=seed, set=set or ())
    emit(asdict(proof), as_json, shown.print_proof)
    if not proof.same:
        raise typer.Exit(1)
