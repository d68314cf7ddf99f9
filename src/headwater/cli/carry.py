"""The commands that carry encoders further: export to other programs, continual learning of classes."""

from typing import Annotated, Any

import typer

from headwater.cli import show as shown
from headwater.cli.app import Data, Device, Json, Labels, Out, Seed, Set, Workers, app, emit, live
from headwater.cli.reading import Read, opened


@app.command()
def export(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder, an encoder folder or hf:CHECKPOINT.")],
    out: Out,
    format: Annotated[
        str,
        typer.Option(
            help="hf (a folder for transformers), safetensors, onnx or peft (LoRA); the ending of --out decides."
        ),
    ] = "",
    data: Annotated[
        str, typer.Option("--data", "-d", help="For ONNX: data to try it on, where the input has no known size.")
    ] = "",
    model_type: Annotated[
        str, typer.Option(help="For hf: which model of transformers, where several can express the encoder.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write an encoder for other programs: a folder that transformers loads, safetensors, or ONNX proved equal to it.

    Examples:

    headwater export --encoder runs/photos --out photos.onnx

    headwater export --encoder hf:checkpoints/swin --out swin.safetensors

    headwater export --encoder runs/photos-lora --format peft --out photos-lora-peft
    """
    from headwater.api.export import export as work

    emit(work(encoder, out, format, data=data or None, model_type=model_type), as_json, _show)


def _show(made: dict[str, Any]) -> None:
    told = {
        "hf": lambda: f"a {made['model_type']} that transformers loads",
        "peft": lambda: f"{made['maps']} corrections that peft loads, for {made['model_type'] or 'the encoder itself'}",
        "safetensors": lambda: f"{made['tensors']} tensors",
        "onnx": lambda: f"ONNX; beside the encoder it differs by at most {made['difference']:.1e} of the largest value",
    }[made["format"]]()
    print(f"{made['out']}: {told}")


@app.command()
def continual(
    method: Annotated[str, typer.Argument(help="What learns in sessions: nmc, dis-vs-gen, teen, fetril or slca.")],
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder or an encoder folder.")],
    data: Data,
    out: Out,
    sessions: Annotated[
        str, typer.Option(help="How many sessions, or the number of classes in each, such as 5,1,1,1,1,1.")
    ] = "5",
    labels: Labels = None,
    read: Read = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole session.")] = False,
    add: Annotated[
        bool, typer.Option("--add", help="One more session for the learner in --out, of new classes.")
    ] = False,
    device: Device = "auto",
    workers: Workers = 2,
    set: Set = None,
    as_json: Json = False,
) -> None:
    """Learn classes that arrive in sessions, keeping no old data, and say what is forgotten.

    With slca the encoder learns on too, slowly (--set slow=0 leaves it as it is), and is written to OUT/encoder.

    Examples:

    headwater continual fetril --encoder runs/photos --data photos/ --sessions 5 --out runs/photos-sessions

    headwater continual fetril --encoder runs/photos --data more/ --out runs/photos-sessions --add
    """
    from headwater.api.sessions import sessions as work

    source, labels = opened(data, labels, read)
    counts = shown.numbers(sessions, "--sessions")
    result = work(
        method,
        encoder,
        source,
        out=out,
        groups=counts[0] if len(counts) == 1 else counts,
        labels=labels,
        seed=seed,
        device=device,
        workers=workers,
        resume=resume,
        add=add,
        set=set or (),
        progress=live(),
    )
    emit({**result, "out": out}, as_json, _show_sessions)


def _show_sessions(made: dict[str, Any]) -> None:
    print(f"{made['data']}: accuracy in % after each session, on the classes of each and on all met")
    for t, (row, seen) in enumerate(zip(made["matrix"], made["seen"], strict=True), 1):
        cells = "".join(f"{100 * v:7.1f}" if v is not None else "      -" for v in row)
        print(f"  {t:3}{cells}{' ' * 7 * (len(made['seen']) - t)}   all {100 * seen:.1f}")
    print(
        f"average {100 * made['average']:.1f}, last {100 * made['last']:.1f}, forgetting {100 * made['forgetting']:.1f} points; "
        f"{made['state_bytes']:,} bytes kept in {made['out']}/state"
    )
    if made["encoder_learned"]:
        print(f"Encoder, which learned on: {made['out']}/encoder")
