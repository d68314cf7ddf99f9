"""The commands, thin: each calls one verb of the library and prints what it returns."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import click
import typer

from headwater.cli import show as shown
from headwater.core.errors import RequestError, WorkError

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


@app.command()
def demo(
    out: Out = "runs/demo",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """See what pre-training buys: scikit-learn's 1,797 handwritten digits, end to end, in about two minutes.

    Looks at the data, pre-trains without labels on a part of it, embeds all of it, and measures the encoder on the
    rest against raw pixels, PCA, the untrained network and training from scratch. Ends with a page to look at.
    """
    from headwater.api.demo import demo as work

    _emit(work(out, seed=seed, say=_say(as_json)), as_json, lambda result: None)


@app.command()
def doctor(data: Data, labels: Labels = None, workers: Workers = 2, as_json: Json = False) -> None:
    """Look at data before spending time on it: what is in it, what is broken, what its statistics are.

    Example: headwater doctor --data photos/
    """
    from headwater.api.doctor import doctor as work

    diagnosis = work(data, labels=labels, workers=workers)
    _emit(json.loads(diagnosis.to_json()), as_json, lambda _: print("\n".join(diagnosis.lines())))


@app.command()
def pretrain(
    method: Annotated[str, typer.Argument(help="A method by name; `headwater list` shows them.")],
    data: Data,
    out: Out,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    encoder: Annotated[
        str, typer.Option(help="An architecture such as vit-small/16 or resnet-18; the default suits the data.")
    ] = "",
    labels: Labels = None,
    holdout: Annotated[
        float, typer.Option(help="Share of the data never seen; `evaluate` tests on just that.", min=0.0, max=0.9)
    ] = 0.0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    workers: Workers = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, to the same bits.")] = False,
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Learn an encoder from data without labels.

    Examples:

    headwater pretrain simclr --data digits --out runs/digits

    headwater pretrain mae --data photos/ --out runs/photos --steps 5000 --set method.mask.ratio=0.6
    """
    from headwater.api.pretrain import pretrain as work

    run = work(
        method,
        data,
        out=out,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        encoder=encoder,
        labels=labels,
        holdout=holdout,
        device=device,
        precision=precision,
        workers=workers,
        resume=resume,
        set=set or (),
        progress=_progress(),
    )
    result = shown.run_summary(run)
    _emit(result, as_json, shown.print_run)
    if not run.outcome.done:
        raise typer.Exit(1)


@app.command()
def embed(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    out: Out,
    labels: Labels = None,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Write a vector for every item, as sharded Parquet (id, path, label, vector). Called again, it goes on.

    Example: headwater embed --encoder runs/photos --data photos/ --out photos.parquet
    """
    from headwater.api.embed import embed as work
    from headwater.core.errors import unknown

    if dtype not in ("float16", "float32"):
        raise unknown("dtype", dtype, ["float16", "float32"])
    vectors = work(
        encoder,
        data,
        out=out,
        labels=labels,
        batch_size=batch_size,
        dtype="float16" if dtype == "float16" else "float32",
        device=device,
        workers=workers,
        progress=_progress(),
    )
    result = {"out": out, "items": len(vectors), "dim": int(vectors.shape[1]), "dtype": dtype}
    _emit(result, as_json, lambda r: print(f"{r['items']:,} vectors of {r['dim']} in {out}"))


@app.command()
def evaluate(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    labels: Labels = None,
    labels_per_class: Annotated[str, typer.Option(help="Label budgets, separated by commas.")] = "1,5,10,all",
    baselines: Annotated[str, typer.Option(help="Of raw, pca, random and scratch.")] = "raw,pca,random,scratch",
    draws: Annotated[int, typer.Option(help="Label draws per budget.", min=1)] = 5,
    test: Annotated[
        float, typer.Option(help="Share to test on, unless the run held out its own.", min=0.01, max=0.9)
    ] = 0.28,
    seed: Annotated[int | None, typer.Option(help="Of the split and the draws; the run's own by default.")] = None,
    device: Device = "cpu",
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Say whether pre-training helped on this data: few labels, many labels, and against what.

    Example: headwater evaluate --encoder runs/photos --data photos/ --labels photos.csv
    """
    from headwater.api.evaluate import evaluate as work

    result = work(
        encoder,
        data,
        labels=labels,
        labels_per_class=shown.budgets(labels_per_class),
        baselines=[b for b in baselines.split(",") if b],
        draws=draws,
        test=test,
        seed=seed,
        device=device,
        workers=workers,
        progress=_progress(),
    )
    _emit(result, as_json, shown.print_evaluation)


@app.command()
def adapt(
    method: Annotated[str, typer.Argument(help="An adapter by name, such as lora.")],
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    out: Out,
    labels: Labels = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 128,
    seed: Seed = 0,
    device: Device = "auto",
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Fit an encoder to labelled data by training a few new weights; compared with a probe and full fine-tuning.

    Example: headwater adapt lora --encoder runs/mae --data digits --out runs/mae-lora --set adapter.rank=4
    """
    from headwater.api.adapt import adapt as work

    result = work(
        method,
        encoder,
        data,
        out=out,
        labels=labels,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        set=set or (),
        progress=_progress(),
    )
    _emit({**result, "out": out}, as_json, shown.print_adaptation)


@app.command(name="list")
def list_(
    folder: Annotated[str, typer.Argument(help="One folder of the catalogue, such as distill.")] = "",
    as_json: Json = False,
) -> None:
    """List the methods: the name, the year and the idea in one sentence."""
    result = shown.catalogue_lines(folder)
    _emit(result, as_json, shown.print_catalogue)


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
    _emit(result, as_json, shown.print_method)


@app.command()
def report(run: Annotated[str, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Write the page of a run again (report.html), from what its folder holds now."""
    from pathlib import Path

    from headwater.report.page import render

    path = render(Path(run))
    _emit({"report": str(path)}, as_json, lambda r: print(r["report"]))


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
    _emit(asdict(proof), as_json, shown.print_proof)
    if not proof.same:
        raise typer.Exit(1)


def _emit(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


def _progress() -> Any:
    from headwater.engine.log import Progress

    return Progress()


def _say(as_json: bool) -> Callable[[str], None]:
    stream = sys.stderr if as_json else sys.stdout
    return lambda line: print(line, file=stream, flush=True)


def main() -> None:
    """Exit code 0: done. 1: the work failed. 2: the request was wrong."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except RequestError as error:
        _fail(str(error), 2)
    except WorkError as error:
        _fail(str(error), 1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", 1)
    except BrokenPipeError:
        sys.exit(0)


def _fail(message: str, code: int) -> None:
    print(f"headwater: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
