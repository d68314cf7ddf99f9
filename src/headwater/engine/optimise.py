"""AdamW with the field's parameter groups, and SGD with a slow encoder."""

from dataclasses import dataclass

import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Method
from headwater.parts.layers import depths


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """`rate` is reached after the warm-up share of the run and then falls along half a cosine to `final_rate`.

    Weight decay spares vectors and scalars (norms, biases, temperatures, tokens) and tables of tokens and positions.
    `layer_decay`: the rate of each layer is that of the next one times this, the last one, heads included, having `rate` itself.
    """

    rate: float = 1e-3
    final_rate: float = 0.0
    warmup: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise RequestError(f"AdamW.rate must be positive; got {self.rate}.")
        if not 0 < self.layer_decay <= 1:
            raise RequestError(f"AdamW.layer_decay lies above 0 and is 1 at most; got {self.layer_decay}.")

    def build(self, method: Method) -> torch.optim.AdamW:
        """A group says under "scale" what its rate is of that of the schedule; the first has all of it."""
        params = [
            {"params": some, "weight_decay": decay, "scale": scale}
            for decay, weights in zip((self.weight_decay, 0.0), groups(method), strict=True)
            for scale, some in self._layers(method, weights)
        ]
        params.sort(key=lambda group: -group["scale"])  # type: ignore[operator]
        # the fused kernel updates all weights in one call, on the CPU too
        return torch.optim.AdamW(params, lr=self.rate, betas=self.betas, fused=True)

    def _layers(self, method: Method, weights: list[nn.Parameter]) -> list[tuple[float, list[nn.Parameter]]]:
        if self.layer_decay == 1:
            return [(1.0, weights)]
        deep, names = depths(method), {p: n for n, p in method.named_parameters()}
        last, layers = max(deep.values()), dict[int, list[nn.Parameter]]()
        for weight in weights:
            layers.setdefault(deep[names[weight]], []).append(weight)
        return [(self.layer_decay ** (last - i), layers[i]) for i in sorted(layers, reverse=True)]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum; the rate falls from `rate` along half a cosine to `final_rate`. `slow`: the
    rate of the encoders' weights is this share of it."""

    rate: float = 0.01
    final_rate: float = 0.0
    warmup: float = 0.0
    weight_decay: float = 5e-4
    momentum: float = 0.9
    slow: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.slow < 0:
            raise RequestError(f"SGD needs a rate above 0 and a slow of 0 or more; got {self.rate} and {self.slow}.")

    def build(self, method: Method) -> torch.optim.SGD:
        encoders = {p for encoder in method.encoders().values() for p in encoder.parameters()}
        trained = [p for p in method.parameters() if p.requires_grad]
        params = [
            {"params": [p for p in trained if (p in encoders) == slow], "scale": self.slow if slow else 1.0}
            for slow in (False, True)
        ]
        return torch.optim.SGD(params, lr=self.rate, momentum=self.momentum, weight_decay=self.weight_decay)


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
