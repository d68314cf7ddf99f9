"""Encoders as one file for other programs: plain safetensors, and ONNX that is proved to say what the encoder says."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headwater.core.errors import RequestError, WorkError
from headwater.core.types import Features, Graph, Input, Ragged
from headwater.core.verbs import Encoder

TOLERANCE = 1e-4  # the largest difference, in units of the largest value
OUTPUTS = ("tokens", "pooled")


def safetensors(encoder: Encoder, about: Mapping[str, Any], at: Path) -> None:
    """All weights under our names; `about` stands in the file's metadata as JSON, under "headwater"."""
    state = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
    save_file(state, at, {"format": "pt", "headwater": json.dumps(about)})


def onnx(encoder: Encoder, samples: Sequence[Input], about: Mapping[str, Any], at: Path) -> float:
    """Write `at` and run it beside the encoder on every one of `samples`; returns the largest difference found, in units
    of the largest value.

    The first sample, of two items, shapes the file; only the batch, and for texts the length, may change. Raises
    WorkError, and leaves no file, where the encoder cannot be written or the file says anything else than it.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  what torch writes ONNX with
    except ImportError as error:
        raise RequestError("Writing ONNX needs onnxscript and onnxruntime: pip install 'headwater[onnx]'") from error
    first = samples[0]
    if isinstance(first, Graph):
        raise RequestError("An encoder of graphs cannot be written as ONNX: its input is no tensor; write safetensors.")
    encoder = encoder.eval().cpu()
    ragged = isinstance(first, Ragged)
    module, given = (_OfRagged(encoder) if ragged else _OfTensor(encoder)), _inputs(first)
    free = torch.export.Dim.DYNAMIC
    shapes: tuple[Any, ...] = ({0: free, 1: free}, {0: free}) if ragged else ({0: free},)
    try:
        with _quiet(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            program = torch.onnx.export(
                module,
                tuple(given.values()),
                dynamo=True,
                input_names=[*given],
                output_names=[*OUTPUTS],
                dynamic_shapes=shapes,
                verbose=False,
                external_data=False,
            )
        assert program is not None
        program.model.metadata_props["headwater"] = json.dumps(about)
        program.save(at)
    except Exception as error:  # the exporter raises whatever its many passes raise
        at.unlink(missing_ok=True)
        raise WorkError(
            f"This {type(encoder).__name__} cannot be written as ONNX ({str(error).strip().partition(chr(10))[0][:300]})."
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(at), providers=["CPUExecutionProvider"])
        return max(_difference(session, encoder, sample) for sample in samples)
    except WorkError:
        at.unlink(missing_ok=True)
        raise
    except Exception as error:
        at.unlink(missing_ok=True)
        raise WorkError(
            f"onnxruntime cannot run the ONNX file that torch wrote ({error}). Nothing is left of it."
        ) from error


class _OfTensor(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: Features = self.encoder(x)
        return found.tokens, found.pooled


class _OfRagged(_OfTensor):
    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        found: Features = self.encoder(Ragged(x, length))
        return found.tokens, found.pooled


def _inputs(x: Input) -> dict[str, Tensor]:
    return {"x": x} if isinstance(x, Tensor) else {"x": x.values, "length": x.extent}


def _difference(session: Any, encoder: Encoder, x: Input) -> float:
    with torch.inference_mode():
        want: Features = encoder(x)
    found = session.run(list(OUTPUTS), {name: value.numpy() for name, value in _inputs(x).items()})
    worst = 0.0
    for name, told, value in zip(OUTPUTS, found, (want.tokens, want.pooled), strict=True):
        told = torch.from_numpy(told)
        if told.shape != value.shape:
            raise WorkError(
                f"The ONNX file gives {name} of shape {tuple(told.shape)}, the encoder {tuple(value.shape)}."
            )
        apart = (told - value).abs()
        if name == "tokens" and want.valid is not None:  # what stands on padding means nothing
            apart, value = apart[want.valid], value[want.valid]
        share = float(apart.max() / value.abs().max().clamp(min=1e-12))
        if not share <= TOLERANCE:
            raise WorkError(
                f"The ONNX file does not say what the encoder says: {name} of a batch of {len(value)} differ by {share:.2g} of "
                f"the largest value ({TOLERANCE:g} is allowed). Nothing is left of it."
            )
        worst = max(worst, share)
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notices about libraries that are not installed and about its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
