"""SSAST: hide clusters of a spectrogram; pick the right patch for each place among those hidden, and restore it too.

corrupt   clusters of patches, most of them, are replaced by one learned vector; each of the two losses has its own mask
encode    all places, hidden or not
predict   at each hidden place, a vector that should match its patch and no other, and the values themselves
target    the patches of the log-mel spectrogram; negatives come from the same sound alone
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.types import Batch, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.bands import ClusterMask
from headwater.parts.encoders import TokenwiseEncoder, only_tokens
from headwater.parts.losses import masked_mean
from headwater.parts.masks import MaskSampler, where_hidden
from headwater.parts.tokens import take
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="SSAST: Self-Supervised Audio Spectrogram Transformer",
    year=2021,
    arxiv="2110.09784",
    differs="clusters are cut off at the edges of the spectrogram where the authors' run on in the next row, and their side "
    "is drawn per batch, not per sound; positions are fixed sines unless the encoder has a table; class and distillation "
    "tokens only where the encoder has them; log-mel values as the encoder computes them, halved as targets, as the "
    "authors divide by twice the deviation; AdamW with cosine decay instead of Adam halved on plateaus; 400 of 512 patches "
    "hidden (from memory, unverified). Takes the mask of its frame model with mask=RandomMask and an encoder such as "
    "vit-base/frames.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`among`: each patch chooses among guesses, as the authors' code has it, or each guess among patches, as the paper."""

    mask: MaskSampler = ClusterMask(400 / 512, (3, 5))
    among: Literal["guesses", "patches"] = "guesses"
    restore_weight: float = 10.0

    def viewed(self, kit: ViewKit) -> "Config":
        return self  # sounds are pre-trained on as they are

    def build(self, encoders: Mapping[str, Encoder]) -> "SSAST":
        return SSAST(self, only_tokens(encoders, "SSAST"))


SMALL = Config(mask=ClusterMask(0.625, (2, 3)))
TINY = SMALL


class SSAST(Method):
    tokens = True
    modalities = ("audio",)

    def __init__(self, config: Config, encoder: TokenwiseEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        dim, values = encoder.dim, encoder.tokenizer.patch_dim
        self.match, self.restore = (
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, values)) for _ in range(2)
        )
        self.mask_token = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def loss(self, batch: Batch, step: Step) -> Loss:
        said, target, counted = self.hide(batch, step)
        error, hit = contrast(self.match(said), target.nan_to_num(0.0), counted, self.config.among)
        told = masked_mean(error, counted, step.gather)
        accuracy = masked_mean(hit.to(error.dtype), counted, step.gather)
        said, target, counted = self.hide(batch, step)
        error = self.encoder.tokenizer.distance(self.restore(said), target)
        restored = masked_mean(error, counted, step.gather)
        metrics = {"contrast": told.detach(), "restored": restored.detach(), "accuracy": accuracy}
        return Loss(told + self.config.restore_weight * restored, metrics)

    def hide(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """Under a new mask, for each hidden place: its token, its patch, and whether it is real."""
        x, tokenizer = batch.x[self.encoder.modality], self.encoder.tokenizer
        valid = tokenizer.valid(x)
        mask = self.config.mask(len(x), tokenizer.grid(x), step.rng, valid)
        tokens = self.encoder(x, hidden=where_hidden(mask), stand_in=self.mask_token).tokens
        counted = None if valid is None else valid.gather(1, mask.drop)
        return take(tokens, mask.drop), take(self.target(batch), mask.drop), counted

    def target(self, batch: Batch) -> Float[Tensor, "b n p"]:
        return self.encoder.tokenizer.patches(batch.x[self.encoder.modality]) / 2


def contrast(
    guess: Float[Tensor, "b m p"],
    patches: Float[Tensor, "b m p"],
    counted: Bool[Tensor, "b m"] | None,
    among: Literal["guesses", "patches"],
) -> tuple[Float[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """InfoNCE within each sample, by plain products: the error of each choice, and whether it would be the right one."""
    scores = patches @ guess.mT  # of each patch (rows) with each guess (columns)
    scores = scores if among == "guesses" else scores.mT
    if counted is not None:
        scores = scores.masked_fill(~counted[:, None], torch.finfo(scores.dtype).min)
    own = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return F.cross_entropy(scores.mT, own, reduction="none"), scores.argmax(-1) == own
