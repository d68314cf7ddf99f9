"""A frozen transformer asked by prompts, one for each class, that are new in every block; and where they look."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Features, Input
from headwater.core.verbs import Encoder
from headwater.parts.encoders import TokenEncoder
from headwater.parts.surgery import Adapted
from headwater.parts.tokens import pick
from headwater.parts.transformer import Block, attended


@dataclass(frozen=True, kw_only=True)
class PromptedConfig:
    """The encoder `of` with a prompt for each of `classes` in every block."""

    of: Any
    classes: int
    dropout: float = 0.1

    @property
    def tokenizer(self) -> Any:
        return self.of.tokenizer

    def build(self) -> "Prompted":
        return Prompted(self.of.build(), self.classes, self.dropout)


class Prompts(Adapted):
    """All that is new: the prompts, and one scorer for all classes."""

    def __init__(self, depth: int, classes: int, dim: int, bound: float) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(depth, classes, dim).uniform_(-bound, bound))
        self.weight, self.bias = nn.Parameter(torch.randn(dim) / math.sqrt(dim)), nn.Parameter(torch.zeros(()))

    def merged(self) -> "Prompts":
        """Itself: tokens cannot be folded into weights."""
        return self


class Prompted(Encoder):
    """What it pools are the scores of the classes; its tokens are those of the frozen encoder's last block, prompts being by."""

    base: TokenEncoder

    def __init__(self, base: Encoder, classes: int, dropout: float) -> None:
        super().__init__()
        self.base, self.modality, self.dim, self.dropout = plain(base), base.modality, classes, dropout
        patch = next(w.numel() // base.dim for w in self.base.tokenizer.parameters() if w.ndim > 1)
        self.new = Prompts(len(self.blocks), classes, base.dim, math.sqrt(6 / (patch + base.dim)))

    @property
    def blocks(self) -> list[Block]:
        return [b for b in self.base.trunk.get_submodule("blocks").children() if isinstance(b, Block)]

    def forward(self, x: Input, keep: Int[Tensor, "b k"] | None = None) -> Features:
        sequence, mask, valid = self.asked(x, keep)
        out = self._normed(self.blocks[-1](sequence, mask, None))
        rest = self.base.summarise(out[:, self.dim :], valid)
        return Features(rest.tokens, self.scores(out), rest.prefix, valid)

    def asked(self, x: Input, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What enters the last block, prompts first, with its mask; and which tokens are valid. After every block before it
        the prompts are taken away, and others put in their place."""
        tokens = self.base.embed(x)
        tokens = tokens if keep is None else pick(tokens, keep)
        seen, valid, _, _ = self.base.entering(tokens, x, keep is None)
        mask = None if valid is None else attended(torch.cat([valid.new_ones(len(seen), self.dim), valid], 1))
        *before, _ = self.blocks
        for block, prompts in zip(before, self.new.prompts, strict=False):
            seen = block(self._with(prompts, seen), mask, None)[:, self.dim :]
        return self._with(self.new.prompts[-1], seen), mask, tokens.valid

    def scores(self, out: Float[Tensor, "b n d"]) -> Float[Tensor, "b c"]:
        return out[:, : self.dim] @ self.new.weight + self.new.bias

    def _normed(self, x: Tensor) -> Tensor:
        out: Tensor = self.base.trunk.get_submodule("norm")(x)
        return out

    def _with(self, prompts: Tensor, seen: Tensor) -> Tensor:
        prompts = F.dropout(prompts, self.dropout, self.training).to(seen.dtype)
        return torch.cat([prompts.expand(len(seen), -1, -1), seen], 1)

    @torch.no_grad()
    def maps(self, x: Input) -> Float[Tensor, "b c h n"]:
        """How much each class's prompt attends to each token in the last block, head by head; the rest of it goes to prompts
        and prefix tokens."""
        sequence, mask, _ = self.asked(x)
        tap = self.blocks[-1].trace(sequence, mask, None)
        product = tap.q[:, :, : self.dim] @ tap.k.mT * tap.q.shape[-1] ** -0.5
        product = product if mask is None else product.masked_fill(~mask, -torch.inf)
        return product.softmax(-1)[..., self.dim + self.base.n_prefix :].transpose(1, 2)

    @torch.no_grad()
    def blurred(self, x: Input, classes: Int[Tensor, " b"], heads: Bool[Tensor, "b h"]) -> Float[Tensor, "b c"]:
        """The scores when the prompt of one class per sample attends evenly, to everything, in these heads of the last block."""
        return self._blurred(self.asked(x), classes, heads)

    def _blurred(self, at: tuple[Tensor, Tensor | None, Tensor | None], classes: Tensor, heads: Tensor) -> Tensor:
        sequence, mask, _ = at
        block = self.blocks[-1]
        tap = block.trace(sequence, mask, None)
        rows = F.one_hot(classes, sequence.shape[1]).bool()[:, None, :, None] & heads[:, :, None, None]
        q = tap.q.masked_fill(rows, 0)  # whose product with every key is the same
        return self.scores(self._normed(block.after(sequence, q, tap.k, tap.v, mask)))

    @torch.no_grad()
    def ranked(self, x: Input, classes: Int[Tensor, " b"]) -> Int[Tensor, "b h"]:
        """The heads by how much the class of each sample needs them, the most needed first: heads are blurred one by one, each
        time the one without which the class stays likeliest."""
        at, each = self.asked(x), torch.arange(len(classes), device=classes.device)
        heads = self.blocks[-1].attention.heads
        gone = torch.zeros(len(classes), heads, dtype=torch.bool, device=classes.device)
        order = list[Tensor]()
        for _ in range(heads):
            left = torch.stack([self._likely(at, classes, gone, h) for h in range(heads)], 1)
            order.append(left.masked_fill(gone, -1).argmax(1))
            gone[each, order[-1]] = True
        return torch.stack(order[::-1], 1)

    def _likely(self, at: Any, classes: Tensor, gone: Tensor, head: int) -> Tensor:
        heads = gone.clone()
        heads[:, head] = True
        return self._blurred(at, classes, heads).softmax(1).gather(1, classes[:, None])[:, 0]


def plain(base: Encoder) -> TokenEncoder:
    """Frozen. Raises RequestError for an encoder between whose blocks no tokens can be put."""
    if not isinstance(base, TokenEncoder):
        raise RequestError(
            f"Prompts are put before the tokens of every block, and this {type(base).__name__} has none; an encoder made of "
            "plain transformer blocks does, such as a ViT trained here, or hf: with the id of a ViT, DINO, DINOv2 or CLIP."
        )
    trunk = base.config.transformer
    for name, is_so in (
        ("rotary", trunk.rotary),
        ("causal", trunk.causal),
        ("relative", base.config.relative != "none"),
    ):
        if is_so:
            raise RequestError(
                f"Prompts have no place among the tokens, which an encoder with {name} attention asks for."
            )
    base.requires_grad_(False)
    return base
