"""What every family of checkpoints must hold: equal outputs, equal bits on the way back, loadable by `transformers`."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from headwater.core.types import Features
from headwater.interop import huggingface as hf


def relative(found: torch.Tensor, want: torch.Tensor) -> float:
    """The largest error, in units of the largest value."""
    assert found.shape == want.shape
    return float((found - want).abs().max() / want.abs().max())


def written(model: Any, at: Path, processor: Any = None) -> Path:
    """The model with all its weights redrawn, so that no bias is zero and no scale is one, saved as its users do."""
    g = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand(value.shape, generator=g)
                if "running_var" in name
                else value + 0.1 * torch.randn(value.shape, generator=g)
            )
    with contextlib.redirect_stderr(io.StringIO()):
        model.eval().save_pretrained(at)
    if processor is not None:
        processor.save_pretrained(at)
    return at


def round_trip(loaded: hf.Loaded, model: Any, at: Path) -> Any:
    """Export, compare the bits with those that the bare model writes, and load the export with its own class."""
    hf.save(loaded.encoder, loaded.architecture, loaded.preprocessing, at, loaded.model_type)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(at / "bare")
        ours, theirs = load_file(at / "model.safetensors"), load_file(at / "bare" / "model.safetensors")
        for name, value in ours.items():
            assert value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]), name
        again, info = type(model).from_pretrained(at, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"], info
    return again.eval(), info["missing_keys"]


def close(found: Features, tokens: torch.Tensor, pooled: torch.Tensor, at_most: float = 1e-5) -> None:
    assert relative(found.tokens, tokens) <= at_most
    assert relative(found.pooled, pooled) <= at_most
