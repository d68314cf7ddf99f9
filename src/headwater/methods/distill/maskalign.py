"""MaskAlign: a student that sees some patches matches what a frozen teacher, who sees all, says of those same patches.

corrupt   most patches are left out; those that the teacher looks at tend to stay
encode    student: the seen patches alone; teacher: the whole picture
predict   a linear map of a learned mix of all the student's layers, for each layer of the teacher that is aimed at
target    the teacher's tokens at the seen places and its class token, each standardised

Nothing is reconstructed and there is no mask token. The teacher is the encoder of a run, or hf:CHECKPOINT; with none
given it is the student as it was before its first step, which is enough to try things out and teaches little.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Input, Loss, Mask, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.encoders import TokenEncoder, only_tokens
from headwater.parts.frozen import Frozen, looked_at
from headwater.parts.losses import masked_mean, standardise_tokens
from headwater.parts.masks import MaskSampler, WeightedMask
from headwater.parts.tokens import take
from headwater.parts.transformer import Tap
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Stare at What You See: Masked Image Modeling without Reconstruction",
    year=2022,
    arxiv="2211.08887",
    differs="there are heads and rows of the mixing matrix only for the layers aimed at (the authors' others get no gradient); "
    "the student has a class token, and drop path of 0.1, only where its configuration says so; a teacher without a class "
    "token shows what matters by the mean attention of all its tokens; the teacher normalises pictures as it learned to, "
    "whichever it is; the student's last norm, which gets no gradient, is kept as it began.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`teacher`: a run or encoder folder, or hf:CHECKPOINT. `top`: how many of its last layers are aimed at.
    `mix`: layers of the student are mixed by a learned matrix; otherwise each aims at the teacher's of the same number."""

    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    mask: WeightedMask | MaskSampler = WeightedMask(ratio=0.7)
    teacher: str = ""
    top: int = 5
    mix: bool = True

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder], teacher: Encoder | None = None) -> "MaskAlign":
        student = only_tokens(encoders, "MaskAlign")
        if not isinstance(student, TokenEncoder):
            raise RequestError(f"MaskAlign mixes the layers of a transformer, and a {type(student).__name__} is none.")
        return MaskAlign(self, student, teacher or student)


SMALL = Config(top=2, mask=WeightedMask(ratio=0.5))
TINY = Config(view=Crop(16), top=2)


class MaskAlign(Method):
    tokens = True
    modalities = ("image",)

    def __init__(self, config: Config, encoder: TokenEncoder, teacher: Encoder) -> None:
        super().__init__()
        self.config, self.encoder, self.teacher = config, encoder, Frozen(teacher)
        encoder.trunk.norm.requires_grad_(False)  # the layers are taken before it
        seen, told = encoder.config.trunk.depth, self.teacher.layered().config.trunk.depth
        top = min(config.top, told)
        if not config.mix and seen != told:
            raise RequestError(
                f"MaskAlign: mix=False needs a student as deep as its teacher; they have {seen} and {told}."
            )
        start = torch.eye(seen)[-top:] + 0.01 if seen == told else torch.full((top, seen), 1 / seen)
        self.weights = nn.Parameter(start) if config.mix else None
        self.heads = nn.ModuleList(nn.Linear(encoder.dim, teacher.dim) for _ in range(top))
        self.n_class = min(1, encoder.n_prefix, self.teacher.layered().n_prefix)  # a class token that both have

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid, grid = tokenizer.valid(x), tokenizer.grid(x)
        taps = self.teacher.trace(self.teacher.sized(x, tokenizer))
        rule, n = self.config.mask, self.teacher.layered().n_prefix
        if isinstance(rule, WeightedMask):
            mask = rule.pick(looked_at(taps[-1], n, valid), step.rng, valid)
        else:
            mask = rule(len(x), grid, step.rng, valid)
        counted = None
        if valid is not None:
            counted = torch.cat([valid.new_ones(len(valid), self.n_class), valid.gather(1, mask.keep)], 1)
        pairs = zip(self.guess(x, mask), self.target(taps, mask), strict=True)
        errors = [2 * F.smooth_l1_loss(guess, target, reduction="none").mean(-1) for guess, target in pairs]
        return Loss(masked_mean(torch.stack(errors).mean(0), counted, step.gather))

    def guess(self, x: Input, mask: Mask) -> list[Float[Tensor, "b q d"]]:
        """What the student says for each layer aimed at, of the class token and the seen patches in the order of `mask.keep`."""
        q = self.encoder.n_prefix
        layers = [tap.out for tap in self.encoder.trace(x, mask.keep)]
        own = torch.stack([torch.cat([out[:, : self.n_class], out[:, q:]], 1) for out in layers])
        mixed = own[-len(self.heads) :] if self.weights is None else torch.einsum("ts,sbnd->tbnd", self.weights, own)
        return [head(out) for head, out in zip(self.heads, mixed, strict=True)]

    def target(self, taps: list[Tap], mask: Mask) -> list[Float[Tensor, "b q e"]]:
        q = self.teacher.layered().n_prefix
        told = [standardise_tokens(tap.out) for tap in taps[-len(self.heads) :]]
        return [torch.cat([out[:, : self.n_class], take(out[:, q:], mask.keep)], 1) for out in told]
