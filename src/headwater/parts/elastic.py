"""Networks within a network: any width and depth of a transformer, made of its first channels and some of its blocks.

From POA (Zhang et al., 2024): a head keeps its width, so a narrower network has fewer of them; what enters a linear map is
scaled by full / narrow width, as if channels left out were like those kept. The scale is folded into the weights here, so
that a sub-network is an ordinary one.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder
from headwater.parts.encoders import TokenEncoder
from headwater.parts.positions import sincos
from headwater.parts.tokens import GridTokenizerConfig, coordinates
from headwater.parts.transformer import Transformer, TransformerConfig


@dataclass(frozen=True, order=True)
class Slice:
    width: int
    depth: int


def check_elastic(encoder: Encoder, who: str) -> TokenEncoder:
    """An encoder that can be cut. Raises RequestError for what has parts that this does not know how to cut."""
    if not isinstance(encoder, TokenEncoder):
        raise RequestError(f"{who} cuts transformers such as --encoder vit-small; got a {type(encoder).__name__}.")
    c = encoder.config
    odd = {
        f"tokens of {type(c.tokenizer).__name__.removesuffix('TokenizerConfig')}": c.tokenizer.__class__
        is not GridTokenizerConfig,
        f"position={c.position}": c.position == "sequence",
        f"relative={c.relative}": c.relative != "none",
        "a norm of its inputs": c.input_norm,
        "a norm of what it pools": bool(c.pool_norm),
        "attention pooling": c.pool == "attention",
        "gated layers": c.transformer.activation == "swiglu",
    }
    if any(odd.values()):
        raise RequestError(
            f"{who} cuts networks out of plain vision transformers such as --encoder vit-small; its encoder has "
            f"{' and '.join(what for what, there in odd.items() if there)}."
        )
    return encoder


def slices(trunk: TransformerConfig, least: tuple[float, float]) -> list[Slice]:
    """All widths in steps of a head and all depths, from these shares of the whole on; the whole comes last.

    Raises RequestError where there is nothing but the whole.
    """
    narrow, shallow = (max(1, math.ceil(n * share)) for n, share in zip((trunk.heads, trunk.depth), least, strict=True))
    head = trunk.dim // trunk.heads
    found = [Slice(h * head, d) for h in range(narrow, trunk.heads + 1) for d in range(shallow, trunk.depth + 1)]
    if len(found) < 2:
        raise RequestError(
            f"least={least} of an encoder with {trunk.heads} heads and {trunk.depth} blocks leaves no network smaller than "
            "the whole; expected shares below 1."
        )
    return found


def rounds(all_of: Sequence[Slice], often: int, draw: random.Random) -> list[int]:
    """The numbers of all but the whole, in random order: the narrowest and the shallowest `often` times each (and so both
    together often²), falling linearly to once."""

    def weight(value: int, values: Sequence[int]) -> float:
        low, high = min(values), max(values)
        return often - (often - 1) * (value - low) / max(1, high - low)

    widths, depths = [s.width for s in all_of], [s.depth for s in all_of]
    times = [round(weight(s.width, widths) * weight(s.depth, depths)) for s in all_of]
    order = [i for i, n in enumerate(times[:-1]) for _ in range(n)]
    draw.shuffle(order)
    return order


class Walk(nn.Module):
    """Whose turn it is: through all slices but the whole in random order, then in another. Part of a method's state."""

    order: Tensor
    at: Tensor

    def __init__(self, among: Sequence[Slice], often: int) -> None:
        super().__init__()
        self.slices, self.often = among, often
        first = random.Random(int(torch.randint(2**62, ())))  # drawn as initial weights are
        self.register_buffer("order", torch.tensor(rounds(among, often, first)))
        self.register_buffer("at", torch.tensor(0))

    def now(self) -> Slice:
        return self.slices[int(self.order[self.at])]

    def go_on(self, draw: random.Random) -> None:
        at = (int(self.at) + 1) % len(self.order)
        if at == 0:
            self.order.copy_(torch.tensor(rounds(self.slices, self.often, draw)))
        self.at.fill_(at)


def kept_blocks(depth: int, n: int) -> list[int]:
    """n of `depth` blocks, evenly spread: the first and, if there are two or more, the last."""
    return [k * (depth - 1) // max(1, n - 1) for k in range(n)]


def narrowed(trunk: TransformerConfig, to: Slice) -> TransformerConfig:
    return replace(trunk, dim=to.width, depth=to.depth, heads=to.width * trunk.heads // trunk.dim)


@cache
def _shell(config: TransformerConfig) -> Transformer:
    with torch.device("meta"):
        return config.build()


def weights(trunk: Transformer, to: Slice) -> dict[str, Tensor]:
    """The weights of the sub-network, as functions of those of the whole."""
    own: dict[str, Tensor] = dict(trunk.named_parameters())
    blocks, found = kept_blocks(trunk.config.depth, to.depth), dict[str, Tensor]()
    for name, shell in _shell(narrowed(trunk.config, to)).named_parameters():
        kind, *rest = name.split(".")
        there = ".".join([kind, str(blocks[int(rest[0])]), *rest[1:]]) if kind == "blocks" else name
        w = own[there]
        if ".qkv." in name:  # queries, keys and values are cut each for itself
            w = w.unflatten(0, (3, -1))[:, : to.width].flatten(0, 1)
        w = w[tuple(slice(n) for n in shell.shape)]
        found[name] = w * (own[there].shape[1] / w.shape[1]) if w.ndim == 2 else w
    return found


def encode(
    encoder: TokenEncoder,
    to: Slice,
    x: Input,
    hidden: Bool[Tensor, "b n"] | None = None,
    stand_in: Float[Tensor, " d"] | None = None,
) -> Features:
    """What the sub-network makes of an input. Gradients go to its part of the encoder's own weights."""
    tokens = encoder.embed(x, hidden, stand_in)
    vectors, valid, place, _ = encoder.entering(tokens, x, whole=True)
    assert isinstance(encoder.trunk, Transformer)
    shell = _shell(narrowed(encoder.trunk.config, to)).train(encoder.training)
    out = functional_call(shell, weights(encoder.trunk, to), (vectors[..., : to.width], valid, place))
    return encoder.summarise(out, tokens.valid)


@torch.no_grad()
def extract(encoder: TokenEncoder, to: Slice, grid: tuple[int, ...] = ()) -> TokenEncoder:
    """The sub-network as an encoder of its own. Fixed sines become a table of their first channels, for inputs of `grid`
    patches: those of a narrow network would differ from the first ones of a wide network."""
    config, sines = encoder.config, encoder.config.position == "sincos"
    if sines and not grid:
        raise RequestError("A slice of an encoder with fixed sines needs the grid of patches that it will see.")
    made = replace(config, trunk=narrowed(check_elastic(encoder, "A slice").config.transformer, to))
    out = replace(made, position="learned", grid=grid).build() if sines else made.build()
    assert isinstance(encoder.trunk, Transformer)
    found = {f"trunk.{name}": w for name, w in weights(encoder.trunk, to).items()}
    own = encoder.state_dict()
    if sines:
        own["table.table"] = sincos(coordinates(grid, "cpu"), encoder.dim)[None]
    for name, shell in out.state_dict().items():
        found.setdefault(name, own[name][tuple(slice(n) for n in shell.shape)] if shell.ndim else own[name])
    out.load_state_dict({name: w.clone() for name, w in found.items()})
    return out.train(encoder.training)


def widened(x: Float[Tensor, "*b w"], dim: int) -> Float[Tensor, "*b d"]:
    """Features of a sub-network for a linear map made for the whole: scaled, and zero where channels are left out."""
    return nn.functional.pad(x * (dim / x.shape[-1]), (0, dim - x.shape[-1]))
