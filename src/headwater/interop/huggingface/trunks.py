"""What the families of vision transformers share: how they name the parts of a block, and the rules between those and ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.interop.huggingface.family import Changed, Family, Parted, Rule, Same, Stacked
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.transformer import Activation, TransformerConfig

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "relu": "relu",
}


@dataclass(frozen=True)
class Names:
    """What a family calls its parts; `{i}` stands for the number of a block, and the names after it are within a block.

    bias_q, bias_v  biases that have names of their own, where the keys have none
    """

    block: str = "encoder.layer.{i}."
    q: str = "attention.attention.query"
    k: str = "attention.attention.key"
    v: str = "attention.attention.value"
    bias_q: str = "attention.attention.query.bias"
    bias_v: str = "attention.attention.value.bias"
    out: str = "attention.output.dense"
    norm1: str = "layernorm_before"
    norm2: str = "layernorm_after"
    gate: str = ""
    up: str = "intermediate.dense"
    down: str = "output.dense"
    scale1: str = ""
    scale2: str = ""
    norm: str = "layernorm"
    positions: str = "embeddings.position_embeddings"
    patches: str = "embeddings.patch_embeddings.projection"


OLD = Names()  # those of ViT, which most families kept


def both(ours: str, theirs: str) -> list[Rule]:
    return [Same(f"{ours}.{end}", f"{theirs}.{end}") for end in ("weight", "bias")]


def blocks(names: Names, trunk: TransformerConfig) -> list[Rule]:
    """Every weight of every block."""
    out: list[Rule] = []
    for i in range(trunk.depth):
        ours, theirs = f"trunk.blocks.{i}.", names.block.format(i=i)
        for end in ("weight", "bias") if trunk.qkv_bias is True else ("weight",):
            parts = tuple(f"{theirs}{part}.{end}" for part in (names.q, names.k, names.v))
            out.append(Stacked(f"{ours}attention.qkv.{end}", parts))
        if trunk.qkv_bias == "qv":
            out += [
                Same(f"{ours}attention.bias_{p}", theirs + n) for p, n in (("q", names.bias_q), ("v", names.bias_v))
            ]
        if trunk.activation == "swiglu":
            for end in ("weight", "bias"):
                out.append(Stacked(f"{ours}mlp.0.{end}", tuple(f"{theirs}{p}.{end}" for p in (names.gate, names.up))))
        else:
            out += both(f"{ours}mlp.0", theirs + names.up)
        parts = (names.out, names.norm1, names.norm2, names.down)
        for mine, other in zip(("attention.out", "norm1", "norm2", "mlp.2"), parts, strict=True):
            out += both(ours + mine, theirs + other)
        if trunk.layer_scale:
            out += [Same(f"{ours}scale{n}.gamma", theirs + s) for n, s in ((1, names.scale1), (2, names.scale2))]
    return out


def patches(theirs: str, channels: int, sides: tuple[int, ...]) -> Changed:
    """A convolution [d c p p] (of clips [d c t p p]) is our linear map [d, p p c]."""
    axes = range(len(sides))

    def to_ours(w: Tensor) -> Tensor:
        return w.permute(0, *(a + 2 for a in axes), 1).flatten(1).contiguous()

    def to_theirs(w: Tensor) -> Tensor:
        return w.view(len(w), *sides, channels).permute(0, len(sides) + 1, *(a + 1 for a in axes)).contiguous()

    return Changed("tokenizer.embed.weight", theirs, to_ours, to_theirs)


def prefix(*theirs: str) -> Parted:
    """Their class token [1 1 d] and, where there are any, other tokens [1 n d] are our prefix, one below the other."""
    return Parted(
        ("prefix",),
        theirs,
        lambda t: [torch.cat([x[0] for x in t])],
        lambda o: [o[0][None, :1], *([o[0][None, 1:]] if len(theirs) > 1 else [])],
    )


def positions(theirs: str, placed: int = 1) -> Parted:
    """Their one table begins with the positions of `placed` prefix tokens; ours are two."""
    return Parted(
        ("prefix_table", "table.table"),
        (theirs,),
        lambda t: [t[0][0, :placed], t[0][:, placed:]],
        lambda o: [torch.cat([o[0][None], o[1]], 1)],
    )


def activation(config: Mapping[str, Any]) -> Activation:
    name = config.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise RequestError(f"The checkpoint's hidden_act={name!r} is none of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def side(size: tuple[int, ...]) -> int | list[int]:
    """The inverse of `pair`."""
    return size[0] if size[0] == size[1] else [*size]


def ratio(hidden: int, dim: int) -> float:
    """hidden / dim, rounded so that int(dim * ratio) is hidden again."""
    found = hidden / dim
    return found if int(dim * found) == hidden else math.nextafter(found, math.inf)


def sizes(trunk: TransformerConfig) -> dict[str, Any]:
    """What every config.json says of a trunk."""
    return {
        "hidden_size": trunk.dim,
        "num_hidden_layers": trunk.depth,
        "num_attention_heads": trunk.heads,
        "intermediate_size": int(trunk.dim * trunk.mlp_ratio),
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}.get(trunk.activation, "silu"),
        "layer_norm_eps": trunk.eps,
    }


def reads_back(family: Family, made: Mapping[str, Any], a: TokenEncoderConfig) -> bool:
    """Whether the family reads this very encoder from the config.json `made` of it, but for what counts in training alone."""
    t = a.transformer
    t = replace(t, drop_path=0.0, mlp_ratio=ratio(int(t.dim * t.mlp_ratio), t.dim))
    try:
        return bool(family.architecture(made, {}) == replace(a, trunk=t))
    except RequestError:
        return False
