"""AdamW with the field's parameter groups."""

from dataclasses import dataclass

import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Method


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """`rate` is reached after the warm-up share of the run and then falls along half a cosine to `final_rate`.

    Weight decay spares vectors and scalars (norms, biases, temperatures, tokens) and tables of tokens and positions.
    """

    rate: float = 1e-3
    final_rate: float = 0.0
    warmup: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise RequestError(f"AdamW.rate must be positive; got {self.rate}.")

    def build(self, method: Method) -> torch.optim.AdamW:
        decayed, spared = groups(method)
        params = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        # the fused kernel updates all weights in one call, on the CPU too
        return torch.optim.AdamW(params, lr=self.rate, betas=self.betas, fused=True)


def groups(method: Method) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters that weight decay pulls on, and those it spares."""
    spared_names = ("token", "table", "prefix", "position")
    decayed, spared = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        leaf = name.rsplit(".", 1)[-1]
        vector = parameter.ndim < 2 or any(word in leaf for word in spared_names)
        (spared if vector else decayed).append(parameter)
    if not decayed and not spared:
        raise RequestError(f"{type(method).__name__} has nothing to train: no parameter requires a gradient.")
    return decayed, spared
