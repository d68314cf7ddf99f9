"""Teachers that are done with learning: what they say, layer by layer, and where they look."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Input
from headwater.core.verbs import Encoder
from headwater.parts.encoders import TokenEncoder
from headwater.parts.tokens import GridTokenizer, Tokenizer
from headwater.parts.transformer import Tap


class Frozen(nn.Module):
    """A copy of any encoder that gets no gradient and always answers as in evaluation, whatever becomes of the rest."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **named: Any) -> Any:
        return self.encoder(*args, **named)

    @torch.no_grad()
    def trace(self, x: Input) -> list[Tap]:
        """What each of its blocks says; prefix tokens come first."""
        return self.layered().trace(x)

    def layered(self) -> TokenEncoder:
        """The encoder, whose layers can be looked into. Raises RequestError for one whose cannot."""
        if not isinstance(self.encoder, TokenEncoder):
            raise RequestError(
                f"The teacher is a {type(self.encoder).__name__}, and its layers cannot be aimed at; one made of transformer "
                "blocks can, such as a ViT trained here, or hf: with the id of a ViT, DINO, DINOv2 or CLIP."
            )
        return self.encoder

    def sized(self, x: Input, student: Tokenizer) -> Input:
        """Pictures at the size at which the teacher's patches are as many as the student's (bicubic). Raises RequestError
        where no size does."""
        teacher = self.layered().tokenizer
        if not isinstance(teacher, GridTokenizer) or not isinstance(student, GridTokenizer):
            raise RequestError(
                "Teacher and student need a grid of patches of pictures each, so that theirs can be the same."
            )
        patch = teacher.config.patch
        if patch == student.config.patch:
            return x
        if not isinstance(x, Tensor):
            raise RequestError(
                f"Pictures of unequal sizes need a teacher with the student's patches; its own are {patch}."
            )
        size = [n * p for n, p in zip(student.grid(x), patch, strict=True)]
        return F.interpolate(x.float(), size=size, mode="bicubic", align_corners=False)


def looked_at(tap: Tap, n_prefix: int, valid: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n"]:
    """How much attention each token gets from the class token, mean over heads; where there is none, from all tokens."""
    product = tap.q @ tap.k.mT * tap.q.shape[-1] ** -0.5
    if valid is not None:
        real = torch.cat([valid.new_ones(len(valid), n_prefix), valid], 1)
        product = product.masked_fill(~real[:, None, None], -torch.inf)
    weight = product.softmax(-1).mean(1)[..., n_prefix:]
    if n_prefix:
        return weight[:, 0]
    if valid is None:
        return weight.mean(1)
    return (weight * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
