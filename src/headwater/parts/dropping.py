"""Dropout put into an encoder from outside, for as long as it is wanted: where it is the augmentation, it belongs to the
method and not to the encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.parts.encoders import TokenEncoder, TokenwiseEncoder
from headwater.parts.seq2seq import EncoderBlock
from headwater.parts.transformer import Block


@dataclass(frozen=True)
class Dropout:
    """`rate`: of the numbers that the embedding hands on, and of those that attention and the MLP of each block add.
    `heads`: of whole heads of attention (Zhou et al., 2020, DropHead). What is left is scaled up, so that means stay.
    """

    rate: float = 0.1
    heads: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.rate < 1 and 0 <= self.heads < 1):
            raise RequestError(f"Dropout: rates lie in [0, 1); got rate={self.rate} and heads={self.heads}.")

    @contextmanager
    def within(self, encoder: TokenwiseEncoder, rng: Rng) -> Iterator[None]:
        """While this lasts, each pass of the encoder draws its own dropout from `rng`; none where it does not train.
        Raises RequestError for an encoder that is not a transformer."""
        inner = blocks(encoder)
        handles: list[RemovableHandle] = []
        if encoder.training and self.heads:
            handles += [b.attention.out.register_forward_pre_hook(self._heads(b.attention.heads, rng)) for b in inner]
        if encoder.training and self.rate:
            entrance = encoder.input_norm if isinstance(encoder, TokenEncoder) else encoder.tokenizer.embed
            outs = [part for b in inner for part in (b.attention.out, b.mlp)]
            handles += [module.register_forward_hook(self._numbers(rng)) for module in (entrance, *outs)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _numbers(self, rng: Rng) -> Any:
        return lambda module, given, out: dropped(out, self.rate, rng, out.shape[1:])

    def _heads(self, n: int, rng: Rng) -> Any:
        return lambda module, given: dropped(given[0].unflatten(2, (n, -1)), self.heads, rng, (1, n, 1)).flatten(2)


def blocks(encoder: TokenwiseEncoder) -> list[Any]:
    """The blocks of a transformer. Raises RequestError for an encoder that has none."""
    found = [module for module in encoder.modules() if isinstance(module, Block | EncoderBlock)]
    if not found:
        raise RequestError(f"Dropout is put into the blocks of a transformer; {type(encoder).__name__} has none.")
    return found


def dropped(x: Float[Tensor, "b ..."], rate: float, rng: Rng, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Of each sample zero with probability `rate`: its numbers where `shape` is theirs, all along the axes where it has 1."""
    return x * (rng.rand(len(x), *shape) >= rate) / (1 - rate)
