"""The commands that work on data: demo, doctor, pretrain, embed, predict, evaluate, adapt. Each calls one verb of the library."""

import json
from typing import Annotated

import typer

from headwater.cli import predictions
from headwater.cli import show as shown
from headwater.cli.app import BatchSize, Data, Device, Json, Labels, Out, Seed, Set, Workers, app, emit, live, say
from headwater.cli.reading import Read, opened


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

    emit(work(out, seed=seed, say=say(as_json)), as_json, lambda result: None)


@app.command()
def doctor(data: Data, labels: Labels = None, read: Read = None, workers: Workers = 2, as_json: Json = False) -> None:
    """Look at data before spending time on it: what is in it, what is broken, what its statistics are.

    Example: headwater doctor --data photos/
    """
    from headwater.api.doctor import doctor as work

    source, labels = opened(data, labels, read)
    diagnosis = work(source, labels=labels, workers=workers)
    emit(json.loads(diagnosis.to_json()), as_json, lambda _: print("\n".join(diagnosis.lines())))


@app.command()
def pretrain(
    method: Annotated[str, typer.Argument(help="A method by name; `headwater list` shows them.")],
    data: Data,
    out: Out,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            "-e",
            help="An architecture such as vit-small/16; the default suits the data. Or a run or hf:CHECKPOINT to go on from.",
        ),
    ] = "",
    go_on: Annotated[
        str, typer.Option(help="A finished run of the same method, to go on with its heads and settings too.")
    ] = "",
    labels: Labels = None,
    read: Read = None,
    holdout: Annotated[
        float, typer.Option(help="Share of the data never seen; `evaluate` tests on just that.", min=0.0, max=0.9)
    ] = 0.0,
    vocabulary: Annotated[
        int, typer.Option(help="For texts: learn so many pieces of words from them first; 0 reads bytes.")
    ] = 0,
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

    source, labels = opened(data, labels, read)
    run = work(
        method,
        source,
        out=out,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        encoder=encoder,
        go_on=go_on,
        labels=labels,
        holdout=holdout,
        vocabulary=vocabulary,
        device=device,
        precision=precision,
        workers=workers,
        resume=resume,
        set=set or (),
        progress=live(),
    )
    result = shown.run_summary(run)
    emit(result, as_json, shown.print_run)
    if not run.outcome.done:
        raise typer.Exit(1)


@app.command()
def embed(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    out: Out,
    labels: Labels = None,
    read: Read = None,
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
    source, labels = opened(data, labels, read)
    vectors = work(
        encoder,
        source,
        out=out,
        labels=labels,
        batch_size=batch_size,
        dtype="float16" if dtype == "float16" else "float32",
        device=device,
        workers=workers,
        progress=live(),
    )
    result = {"out": out, "items": len(vectors), "dim": int(vectors.shape[1]), "dtype": dtype}
    emit(result, as_json, lambda r: print(f"{r['items']:,} vectors of {r['dim']} in {out}"))


@app.command()
def predict(
    run: Annotated[str, typer.Option("--encoder", "-e", help="A run folder.")],
    data: Data,
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="A .parquet or .csv file, for boxes a .json; forecasts and boxes are drawn beside it."
        ),
    ],
    read: Read = None,
    steps: Annotated[int, typer.Option(help="Forecasts: only so many steps.", min=0)] = 0,
    back: Annotated[
        int, typer.Option(help="Forecasts: begin so many steps before the end, where the truth is known.", min=0)
    ] = 0,
    season: Annotated[int, typer.Option(help="Forecasts: the season in steps; found by itself where not given.")] = 0,
    keep: Annotated[int, typer.Option(help="Boxes: the best so many of each picture; 0 means 30.", min=0)] = 0,
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Write what a method predicts: forecasts of series, boxes on pictures, what is wrong with them, classes of anything.

    Examples:

    headwater predict --encoder runs/ttm --data demand.csv --out forecast.parquet

    headwater predict --encoder runs/detector --data photos/ --out boxes.json

    headwater predict --encoder runs/efficientad --data new/ --out scores.csv
    """
    from headwater.api.predict import predict as work

    source, _ = opened(data, None, read)
    asked = {"steps": steps, "back": back, "season": season, "keep": keep}
    made = work(run, source, out=out, **asked, device=device, workers=workers)
    emit(predictions.facts(made, out), as_json, predictions.show)


@app.command()
def evaluate(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    labels: Labels = None,
    read: Read = None,
    labels_per_class: Annotated[
        str, typer.Option(help="Label budgets, separated by commas; for numbers as labels, in tens.")
    ] = "1,5,10,all",
    baselines: Annotated[str, typer.Option(help="Of raw, pca, random and scratch.")] = "raw,pca,random,scratch",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Another encoder, such as a public one (hf:CHECKPOINT). Repeat for more."),
    ] = None,
    draws: Annotated[int, typer.Option(help="Label draws per budget.", min=1)] = 5,
    test: Annotated[
        float, typer.Option(help="Share to test on, unless the run held out its own.", min=0.01, max=0.9)
    ] = 0.28,
    seed: Annotated[int | None, typer.Option(help="Of the split and the draws; the run's own by default.")] = None,
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Say whether pre-training helped on this data: few labels, many labels, and against what.

    Examples:

    headwater evaluate --encoder runs/photos --data photos/ --labels photos.csv

    headwater evaluate --encoder runs/photos --data photos/ --labels photos.csv --against hf:checkpoints/dinov2
    """
    from headwater.api.evaluate import evaluate as work

    source, labels = opened(data, labels, read)
    result = work(
        encoder,
        source,
        labels=labels,
        labels_per_class=shown.budgets(labels_per_class),
        baselines=[b for b in baselines.split(",") if b],
        against=against or (),
        draws=draws,
        test=test,
        seed=seed,
        device=device,
        workers=workers,
        progress=live(),
    )
    emit(result, as_json, shown.print_evaluation)


@app.command()
def adapt(
    method: Annotated[str, typer.Argument(help="An adapter by name, such as lora.")],
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    out: Out,
    labels: Labels = None,
    read: Read = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 128,
    seed: Seed = 0,
    device: Device = "auto",
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Fit an encoder to labelled data by training a few new weights; compared with a probe and full fine-tuning.

    Examples:

    headwater adapt lora --encoder runs/mae --data digits --out runs/mae-lora --set adapter.rank=4

    headwater adapt finetune --encoder runs/mae --data digits --out runs/mae-tuned --set adapter.freeze=2
    --set fit.optimiser.layer_decay=0.75 --set fit.patience=5
    """
    from headwater.api.adapt import adapt as work

    source, labels = opened(data, labels, read)
    result = work(
        method,
        encoder,
        source,
        out=out,
        labels=labels,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        set=set or (),
        progress=live(),
    )
    emit({**result, "out": out}, as_json, shown.print_adaptation)
