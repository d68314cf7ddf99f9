"""The command that carries encoders elsewhere: export."""

from typing import Annotated, Any

import typer

from headwater.cli.app import Json, Out, app, emit


@app.command()
def export(
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="A run folder, an encoder folder or hf:CHECKPOINT.")],
    out: Out,
    format: Annotated[
        str, typer.Option(help="hf (a folder for transformers), safetensors or onnx; the ending of --out decides.")
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
    """
    from headwater.api.export import export as work

    emit(work(encoder, out, format, data=data or None, model_type=model_type), as_json, _show)


def _show(made: dict[str, Any]) -> None:
    told = {
        "hf": lambda: f"a {made['model_type']} that transformers loads",
        "safetensors": lambda: f"{made['tensors']} tensors",
        "onnx": lambda: f"ONNX; beside the encoder it differs by at most {made['difference']:.1e} of the largest value",
    }[made["format"]]()
    print(f"{made['out']}: {told}")
