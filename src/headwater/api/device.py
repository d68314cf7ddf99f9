"""Where work is done."""

import torch

from headwater.core.errors import RequestError, unknown
from headwater.engine.distributed import join


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one; under torchrun each process takes its own."""
    if name == "auto":
        return (
            torch.device("cuda", join().rank % torch.cuda.device_count())
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:0"]) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: torch finds no GPU here; use --device cpu.")
    return device
