"""CLIP: two encoders of two modalities put the members of a pair at the same place.

    corrupt   little: a random view of the pictures, nothing for the text
    encode    each modality with its own encoder
    predict   one linear map per modality into a shared space
    target    the other half of the pair, against those of every other sample of the batch

Afterwards a class is described in words: `classifier` makes a vector of its prompts, to be compared with `embed`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Input, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper
from headwater.parts.losses import info_nce
from headwater.parts.ragged import rows
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit
from headwater.parts.views.missing import whole

PAPER = Paper(
    title="Learning Transferable Visual Models From Natural Language Supervision",
    year=2021,
    arxiv="2103.00020",
    differs="a random resized crop of at least 0.9 of the picture instead of a square crop of the resized picture; "
    "weights start as the encoders' own do, and the patch map of the image tower has a bias; the causal text tower "
    "read at its end token, the layer norm before the image tower and the quick GELU belong to the encoders given.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`view` changes the modality `viewed_modality`; the other one is read as it is."""

    view: View = Crop(224, (0.9, 1.0), flip=0.0, kind="bicubic")
    viewed_modality: str = "image"
    dim: int = 512
    temperature: float = 0.07
    max_scale: float = 100.0

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "CLIP":
        if len(encoders) != 2:
            raise RequestError(
                f"CLIP pairs two modalities; got {len(encoders)}: {', '.join(sorted(encoders)) or 'none'}."
            )
        if self.viewed_modality not in encoders:
            raise RequestError(
                f"CLIP: viewed_modality is {self.viewed_modality!r}, the data has {' and '.join(sorted(encoders))} "
                f"(--set method.viewed_modality={min(encoders)})."
            )
        return CLIP(self, encoders)


SMALL = Config(dim=64)
TINY = Config(view=Crop(16, (0.9, 1.0)), dim=8)


class CLIP(Method):
    """Samples that lack one of the two modalities take no part in the loss."""

    together = 2
    missing = True

    def __init__(self, config: Config, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.config = config
        self.towers = nn.ModuleDict(encoders)
        self.maps = nn.ModuleDict({m: nn.Linear(e.dim, config.dim, bias=False) for m, e in encoders.items()})
        for linear in self.maps.values():
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    def encoders(self) -> dict[str, Encoder]:
        return {m: e for m, e in self.towers.items() if isinstance(e, Encoder)}

    def loss(self, batch: Batch, step: Step) -> Loss:
        x = dict(batch.x)
        x[self.config.viewed_modality] = self.config.view(x[self.config.viewed_modality], step.rng)
        both = whole(batch)
        a, b = (self._paired(m, x[m], both) for m in self.towers)
        scale = self.log_scale.exp()
        n = torch.tensor(len(step.gather(a.detach()))) if both is None else step.gather(both).sum().clamp(min=1)
        value = info_nce(a, b, scale, step.gather, counted=both)
        return Loss(value, metrics={"scale": scale.detach(), "chance": n.float().log()})

    def _paired(self, modality: str, x: Input, both: Bool[Tensor, " b"] | None) -> Float[Tensor, "b d"]:
        """`embed`, of the chosen samples alone: what stands in for the missing ones must not touch batch statistics."""
        if both is None or not both.any():
            return self.embed(modality, x)
        found = self.embed(modality, rows(x, both))
        return found.new_zeros(len(both), found.shape[1]).index_put((both,), found)

    @torch.no_grad()
    def after_step(self, step: Step, carry: Mapping[str, Tensor]) -> None:
        self.log_scale.clamp_(max=math.log(self.config.max_scale) - 1e-6)  # exp(log 100) rounds to more than 100

    def embed(self, modality: str, x: Input) -> Float[Tensor, "b d"]:
        """Unit vectors in the shared space; their products are cosines."""
        return F.normalize(self.maps[modality](self.towers[modality](x).pooled), dim=-1)

    @torch.no_grad()
    def predict(self, batch: Batch, step: Step) -> Float[Tensor, "b b"]:
        """Logits: row i says which sample's second modality belongs to the first modality of sample i; a sample that
        lacks it gets minus infinity."""
        (first, second) = self.towers
        logits = self.log_scale.exp() * self.embed(first, batch.x[first]) @ self.embed(second, batch.x[second]).T
        return logits if batch.present is None else logits.masked_fill(~batch.present[second], -torch.inf)

    @torch.no_grad()
    def classifier(self, modality: str, prompts: Sequence[Input]) -> Float[Tensor, "k d"]:
        """One unit vector per class, from its prompts (the class name put into several templates), to compute once.

        `prompts[c]` is a batch of the prompts of class c in `modality`. Each is normalised, then their mean is. The
        cosines of what `embed` makes of the other modality with these rows are the zero-shot scores.
        """
        return F.normalize(torch.stack([self.embed(modality, p).mean(0) for p in prompts]), dim=-1)
