"""LoRA: leave every chosen linear map as it is and learn a low-rank correction beside it.

    before    y = W x + b
    after     y = W x + b + (alpha / rank) U D x      with D: rank × in, U: out × rank, U = 0 at the start

Only D and U train. `weights` and `restore` save and load them alone; `merge` adds the correction to W, after which the
encoder has its old architecture and costs nothing more to run.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Adapter, Encoder, Paper

PAPER = Paper(
    title="LoRA: Low-Rank Adaptation of Large Language Models",
    year=2021,
    arxiv="2106.09685",
    differs="by default every attention map is corrected, not the queries and values alone, and a fused map of "
    "queries, keys and values is one map with one correction; no dropout before the correction.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`where` names linear maps by the last part of their module name, such as `qkv`."""

    rank: int = 8
    alpha: float = 16.0
    where: tuple[str, ...] = ("qkv", "out")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RequestError(f"LoRA: rank must be at least 1; got {self.rank}.")

    def build(self) -> "LoRA":
        return LoRA(self)


SMALL = Config(rank=4, alpha=8.0)
TINY = Config(rank=2, alpha=4.0)


class LowRank(nn.Module):
    """A linear map and its correction."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        like = base.weight
        self.down = nn.Parameter(torch.empty(rank, base.in_features, dtype=like.dtype, device=like.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, dtype=like.dtype, device=like.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        out: Tensor = self.base(x) + self.scale * (x @ self.down.T @ self.up.T)
        return out


class LoRA(Adapter):
    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder, changed in place. Raises RequestError when it has no linear map of the names asked for."""
        config = self.config
        linear = {n: m for n, m in encoder.named_modules() if isinstance(m, nn.Linear)}
        hits = [n for n in linear if n.rpartition(".")[2] in config.where]
        if not hits:
            known = ", ".join(sorted({n.rpartition(".")[2] for n in linear})) or "none"
            raise RequestError(
                f"LoRA found no linear map named {' or '.join(config.where)} in this {type(encoder).__name__}; "
                f"the linear maps it has are named: {known} (--set where=...)."
            )
        encoder.requires_grad_(False)
        for name in hits:
            _replace(encoder, name, LowRank(linear[name], config.rank, config.alpha / config.rank))
        return encoder


def weights(encoder: Encoder) -> dict[str, Tensor]:
    """The new weights alone, by name: all there is to keep of a fine-tuned encoder beside the one it came from."""
    return {
        f"{name}.{leaf}": weight.detach()
        for name, module in _corrected(encoder)
        for leaf, weight in module.named_parameters(recurse=False)
    }


@torch.no_grad()
def restore(encoder: Encoder, saved: Mapping[str, Tensor]) -> None:
    """Put saved new weights into an encoder adapted alike. Raises RequestError when names or shapes differ."""
    here = weights(encoder)
    wrong = sorted(here.keys() ^ saved.keys()) or [n for n in here if here[n].shape != saved[n].shape]
    if wrong:
        raise RequestError(
            f"These LoRA weights belong to an encoder adapted otherwise: {wrong[0]} "
            f"{'differs in shape' if here.keys() == saved.keys() else 'is not in both'} ({len(wrong)} such)."
        )
    for name, weight in here.items():
        weight.copy_(saved[name])


@torch.no_grad()
def merge(encoder: Encoder) -> Encoder:
    """Fold every correction into its map, in place: the same function with the architecture it had before."""
    for name, module in list(_corrected(encoder)):
        module.base.weight += module.scale * module.up @ module.down
        _replace(encoder, name, module.base)
    return encoder


def _corrected(encoder: Encoder) -> Iterator[tuple[str, LowRank]]:
    return ((n, m) for n, m in encoder.named_modules() if isinstance(m, LowRank))


def _replace(encoder: Encoder, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, module)
