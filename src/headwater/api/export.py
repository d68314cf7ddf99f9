"""`hw.export`: an encoder in the formats of other libraries."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from headwater.api.encoders import HF, Pretrained, load, suited
from headwater.api.override import override
from headwater.core.errors import RequestError, WorkError, unknown
from headwater.core.types import Input, Ragged
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.engine.checkpoint import verify
from headwater.methods.adapt import lora
from headwater.parts.architectures import to_json
from headwater.parts.mixer import MixerConfig
from headwater.parts.tokens import TableTokenizerConfig, TextTokenizerConfig
from headwater.parts.wrapped import WrappedConfig

FORMATS = ("hf", "safetensors", "onnx", "peft")
BATCHES = (2, 1, 5)  # how many items ONNX is tried with; the first shape the file
LENGTHS = (12, 7, 16)  # and, for texts, tokens


def export(
    encoder: Any, out: str | Path, format: str = "", *, data: Any = None, model_type: str = ""
) -> dict[str, Any]:
    """Write an encoder (a Pretrained, or what `load` takes) for other programs.

    hf           a folder that `transformers` loads (config.json, model.safetensors, preprocessor_config.json), where one
                 of its models can express the encoder; `model_type` chooses among several
    safetensors  one file of all weights under our names, with architecture and preprocessing in its metadata
    peft         a folder that `peft` loads, from the run of `adapt lora`: the corrections alone, for the model of
                 `transformers` that can express the encoder, or where none can for our own; the head is not among them
    onnx         one file of the encoder from prepared values to `tokens` and `pooled`, run beside the encoder and
                 refused where it says anything else; `data` gives the samples, for encoders whose input has no known size

    Without `format` the ending of `out` decides (.onnx, .safetensors; else hf). Returns what was written. Raises
    RequestError for what a format cannot express and WorkError where a check fails; then nothing is left behind.
    """
    at = Path(out)
    format = format or {".onnx": "onnx", ".safetensors": "safetensors"}.get(at.suffix, "hf")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if at.exists():
        raise RequestError(f"{at} exists; give another --out, or remove it.")
    pretrained = encoder if isinstance(encoder, Pretrained) else load(encoder)
    aside = at.with_name(f".writing-{at.name}")
    _clear(aside)
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        if format == "peft":
            made = _peft(encoder, pretrained, aside, model_type)
        else:
            made = _written(pretrained, aside, format, data, model_type)
        aside.rename(at)
    except OSError as error:
        raise WorkError(f"Writing {at} failed: {error.strerror or error}.") from error
    finally:
        _clear(aside)
    return {"out": str(at), "format": format, **made}


def _written(pretrained: Pretrained, at: Path, format: str, data: Any, model_type: str) -> dict[str, Any]:
    from headwater.interop import export as files

    if format == "hf":
        return {"model_type": _folder(pretrained, at, model_type)}
    card = pretrained.card
    about = {
        "modality": pretrained.modality,
        "dim": pretrained.dim,
        "architecture": to_json(card.architecture),
        "preprocessing": dict(card.preprocessing),
    }
    if format == "safetensors":
        files.safetensors(pretrained.encoder, about, at)
        return {"tensors": len(pretrained.encoder.state_dict())}
    return {"difference": files.onnx(pretrained.encoder, _samples(pretrained, data), about, at)}


def _peft(given: Any, adapted: Pretrained, at: Path, model_type: str) -> dict[str, Any]:
    from headwater.interop import peft

    folder = adapted.path.parent / "adapter"
    if isinstance(given, Pretrained) or not (folder / "adapter.json").is_file():
        raise RequestError(
            f"peft's format is for what `adapt lora` left; {adapted.path} has no folder adapter/ beside it."
        )
    verify(folder)
    about = json.loads((folder / "adapter.json").read_text())
    if about["method"] != "lora":
        raise RequestError(
            f"peft's format is written of LoRA, and {adapted.path.parent} is a run of {about['method']}."
        )
    edits = [line for line in about["recipe"] if line.startswith("adapter.")]
    config = override({"adapter": lora.Config()}, edits)["adapter"]
    new = {k.removeprefix("encoder."): v for k, v in load_file(folder / "weights.safetensors").items()}
    names = [k.removesuffix(".down") for k in new if k.endswith(".down")]
    found = [peft.Correction(n, new[f"{n}.down"], new[f"{n}.up"]) for n in names]
    aside, base, kind = at.with_name(at.name + "-model"), str(adapted.card.provenance.get("method", "")), ""
    try:
        kind = _folder(adapted, aside, model_type)
    except RequestError:
        if model_type:
            raise
    else:
        found = peft.counterparts(found, adapted.encoder.state_dict(), aside)
    finally:
        _clear(aside)
    peft.save(found, config.rank, config.alpha, base.removeprefix(HF) if base.startswith(HF) else None, at)
    return {"model_type": kind, "maps": len(found)}


def _folder(pretrained: Pretrained, at: Path, model_type: str) -> str:
    from headwater.interop import huggingface, wrapped

    card = pretrained.card
    wanted = model_type or str(card.provenance.get("model_type", ""))
    if isinstance(card.architecture, WrappedConfig):
        return wrapped.save(pretrained.encoder, card.architecture, card.preprocessing, at)
    written = huggingface.save(pretrained.encoder, card.architecture, card.preprocessing, at, wanted or None)
    again = huggingface.load(at)
    assert again is not None
    found, own = again.encoder.state_dict(), pretrained.encoder.state_dict()
    differing = [k for k, v in own.items() if not torch.equal(found[k], v.cpu())]
    if differing:
        raise WorkError(
            f"Read back, the {written} folder gives another {differing[0]} ({len(differing)} of {len(own)})."
        )
    return written


def _samples(pretrained: Pretrained, data: Any) -> Sequence[Input]:
    """Prepared batches of several sizes, from the data or, where the input's size is known, made up."""
    encoder, card = pretrained.encoder, pretrained.card
    if data is not None:
        source = suited(open_data(data), pretrained)
        if len(source) < max(BATCHES):
            raise RequestError(f"{source.name} has {len(source)} items; trying an ONNX file takes {max(BATCHES)}.")
        loader = Loader(source, max(BATCHES))
        return [pretrained.prepare(next(iter(loader.ordered(range(n))))[1].x[encoder.modality]) for n in BATCHES]
    rng = torch.Generator().manual_seed(0)
    tokenizer = getattr(card.architecture, "tokenizer", None)
    if isinstance(tokenizer, TextTokenizerConfig):
        ids = [
            torch.randint(tokenizer.vocabulary, (b, n), generator=rng) for b, n in zip(BATCHES, LENGTHS, strict=True)
        ]
        return [Ragged(x, torch.randint(1, x.shape[1] + 1, (len(x), 1), generator=rng)) for x in ids]
    size = card.preprocessing.get("size")
    normalise = next((m for n, m in encoder.named_modules() if n.rpartition(".")[2] == "normalise"), None)
    channels = len(normalise.mean) if normalise is not None and hasattr(normalise, "mean") else None
    shape: tuple[int, ...] | None = None
    if pretrained.modality == "image" and size is not None and channels is not None:
        shape = (channels, *size)
    elif isinstance(card.architecture, MixerConfig):
        shape = (card.architecture.channels, card.architecture.length)
    elif isinstance(tokenizer, TableTokenizerConfig) and not tokenizer.categories:
        shape = (tokenizer.columns,)
    if shape is None:
        raise RequestError(
            f"An encoder of {pretrained.modality} does not say how large its input is; give some with --data (data=...)."
        )
    return [torch.rand(b, *shape, generator=rng) for b in BATCHES]


def _clear(at: Path) -> None:
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
