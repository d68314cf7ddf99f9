"""MP3: tell where each patch of a sample stands, when no patch is told and only some may be looked at.

corrupt   no positions go in; a random share of the patches is kept from being attended to, in every layer
encode    all patches: each asks, and only those of the context answer
predict   one logit per position, linear in each token
target    the position of each patch
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.encoders import TokenEncoder, only_tokens
from headwater.parts.losses import masked_mean
from headwater.parts.masks import RandomMask, where_hidden
from headwater.parts.views import CentreCrop, Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="Position Prediction as an Effective Pretraining Strategy",
    year=2022,
    arxiv="2207.07611",
    differs="made from the paper's description, as no code of the authors is known; the share of 0.75 and the set-up for "
    "speech are (unverified); the encoder stays without positions afterwards, where the paper also adds fresh ones to "
    "fine-tune; no position loss beside fine-tuning (unverified); keys outside the context are masked, not left out, which "
    "gives the same numbers.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`ratio` of the patches stay outside the context. `positions`: the most patches that a sample may have."""

    view: View = Crop(224, (0.2, 1.0), kind="bicubic")
    ratio: float = 0.75
    positions: int = 196

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "MP3":
        encoder = only_tokens(encoders, "MP3")
        if not isinstance(encoder, TokenEncoder) or not placeless(encoder):
            raise RequestError(
                "MP3 asks for positions, so its encoder must not be told them: a plain transformer without positions of "
                "any kind and without class tokens, such as --encoder nope-micro."
            )
        return MP3(self, encoder)


SMALL = Config(ratio=0.5, positions=256)
TINY = Config(view=CentreCrop(16, 1.0), ratio=0.5, positions=64)


def placeless(encoder: TokenEncoder) -> bool:
    config = encoder.config
    trunk = config.transformer
    told = config.position != "none" or config.relative != "none" or trunk.rotary or trunk.causal
    return not told and not encoder.n_prefix


class MP3(Method):
    tokens = True
    modalities = ("image", "audio")
    begins: ClassVar[Mapping[str, str]] = {"image": "nope-micro", "audio": "nope-micro/frames"}

    def __init__(self, config: Config, encoder: TokenEncoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.norm = nn.LayerNorm(encoder.dim)
        self.place = nn.Linear(encoder.dim, config.positions)

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = self.config.view(batch.x[self.encoder.modality], step.rng)
        tokenizer = self.encoder.tokenizer
        valid, context = tokenizer.valid(x), None
        if self.config.ratio:
            mask = RandomMask(self.config.ratio)(len(x), tokenizer.grid(x), step.rng, valid)
            context = ~where_hidden(mask)
        logits = self.logits(x, context)
        n = logits.shape[1]
        place = torch.arange(n, device=logits.device).expand(len(logits), -1)
        error = F.cross_entropy(logits.mT, place, reduction="none")
        hit = (logits.argmax(-1) == place).to(error.dtype)
        metrics = {"accuracy": masked_mean(hit, valid, step.gather), "chance": torch.tensor(math.log(n))}
        return Loss(masked_mean(error, valid, step.gather), metrics)

    def logits(self, x: Input, context: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n n"]:
        """Where each patch may stand. All look, and only at those of the context; None: at all."""
        tokens = self.encoder.embed(x)
        n = tokens.x.shape[1]
        if n > self.config.positions:
            raise RequestError(
                f"MP3 tells {self.config.positions} positions apart, and the input has {n} patches: "
                f"--set method.positions={n}."
            )
        known = [seen for seen in (context, tokens.valid) if seen is not None]
        seen = torch.stack(known).all(0) if known else None
        said: Tensor = self.place(self.norm(self.encoder.trunk(self.encoder.input_norm(tokens.x), seen)))
        return said[..., :n]
