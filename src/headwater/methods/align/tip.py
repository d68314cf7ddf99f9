"""TIP: a picture and the row of a table about it meet, match, and fill in each other's gaps.

corrupt   cells of the row are dealt from other rows; and, apart from that, half of them are hidden
encode    each modality with its own encoder, then the row's tokens look at the picture's
predict   unit vectors of both; whether a row and a picture belong together; what stood in the hidden cells
target    the other half of the pair; which halves were put together; the data

A cell that is missing is treated as a hidden one: nothing looks at it, and a learned vector stands for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Features, Loss, Step
from headwater.core.verbs import Encoder, Method, Paper, values
from headwater.parts.crossdecoder import CrossDecoder
from headwater.parts.encoders import TokenwiseEncoder
from headwater.parts.heads import mlp
from headwater.parts.losses import info_nce
from headwater.parts.negatives import hard_negatives
from headwater.parts.tablecells import Restorer, chosen, dealt
from headwater.parts.tokens import Normalise, TableTokenizer
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import Crop, View
from headwater.parts.views.kit import ViewKit

PAPER = Paper(
    title="TIP: Tabular-Image Pre-training for Multimodal Classification with Incomplete Data",
    year=2024,
    arxiv="2407.07582",
    differs="the mean of a row's tokens stands for its class token unless the encoder has one; a hidden or missing cell is "
    "not looked at by its own token either, which keeps it by the residual alone, and columns are told apart by sines and "
    "by biases of their own; a linear map stands before the fusion, and every block of it has a norm of the picture's "
    "tokens; pictures are always augmented, and gently, since cells may measure them; cells are dealt from the rows of the "
    "batch, the row's own among them; what is missing while learning is never a target; evaluation takes each encoder "
    "alone (`fused` gives the joint vector, `filled` the gaps), and there is no ensemble of classifiers.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    deal  the share of cells dealt from other rows where row and picture are compared
    hide  the share of columns hidden where they are restored
    """

    view: View = Crop(128, (0.6, 1.0))
    deal: float = 0.3
    hide: float = 0.5
    projection: int = 128
    temperature: float = 0.1
    fusion: TransformerConfig = TransformerConfig(dim=512, depth=4, heads=8)

    def viewed(self, kit: ViewKit) -> "Config":
        return replace(self, view=kit.weak)

    def build(self, encoders: Mapping[str, Encoder]) -> "TIP":
        row = encoders.get("table")
        if {*encoders} != {"image", "table"} or not isinstance(row, TokenwiseEncoder):
            got = ", ".join(f"{m}: {type(e).__name__}" for m, e in encoders.items())
            raise RequestError(f"TIP takes an encoder of images and one of table rows made of tokens; got {got}.")
        return TIP(self, encoders["image"], row)


SMALL = Config(projection=64, fusion=TransformerConfig(dim=64, depth=2, heads=4))
TINY = Config(view=Crop(16, (0.8, 1.0)), projection=8, fusion=TransformerConfig(dim=16, depth=1, heads=2))


class TIP(Method):
    together = 2
    modalities = ("image", "table")

    def __init__(self, config: Config, image: Encoder, table: TokenwiseEncoder) -> None:
        super().__init__()
        assert isinstance(table.tokenizer, TableTokenizer)
        wide = config.fusion.dim
        self.config, self.image, self.table = config, image, table
        self.special = nn.Parameter(torch.zeros(table.dim))
        nn.init.trunc_normal_(self.special, std=0.02)
        self.project = nn.ModuleDict({m: mlp(e.dim, e.dim, config.projection) for m, e in self.encoders().items()})
        self.look = nn.Sequential(nn.Linear(image.dim, wide), nn.LayerNorm(wide))
        self.read = nn.Linear(table.dim, wide)
        self.fusion = CrossDecoder(config.fusion)
        self.belong = nn.Linear(wide, 2)
        self.restore = Restorer(wide, table.tokenizer.counts)

    def encoders(self) -> dict[str, Encoder]:
        return {"image": self.image, "table": self.table}

    def loss(self, batch: Batch, step: Step) -> Loss:
        table = values(batch.x["table"])
        seen = self.image(self.config.view(batch.x["image"], step.rng))
        row = self.row(dealt(table, self.config.deal, step))
        a, b = self.project["image"](seen.pooled), self.project["table"](row.pooled)
        contrast = info_nce(a, b, 1 / self.config.temperature, step.gather)
        match = self.matching(seen, row, F.normalize(a, dim=1), F.normalize(b, dim=1), step)
        hidden = chosen(table, self.config.hide, step.rng)
        told = self.fusion(self.columns(self.row(table.masked_fill(hidden, torch.nan))), self.look(seen.tokens))
        restored = self.restore(told[:, 1:], table, self.normalise(), hidden, step.gather)
        parts = {"contrast": contrast, "match": match, "restored": restored}
        return Loss(torch.stack([*parts.values()]).mean(), metrics={k: v.detach() for k, v in parts.items()})

    def normalise(self) -> Normalise:
        assert isinstance(self.table.tokenizer, TableTokenizer)
        return self.table.tokenizer.normalise

    def row(self, table: Float[Tensor, "b n"]) -> Features:
        """The features of rows: nothing looks at a missing cell, and `special` stands there."""
        return self.table(table, hidden=table.isnan(), stand_in=self.special)

    def columns(self, row: Features) -> Float[Tensor, "b k w"]:
        """What the fusion reads of rows: what sums each up, then one token per column."""
        out: Tensor = self.read(torch.cat([row.pooled[:, None], row.tokens], 1))
        return out

    def matching(
        self, seen: Features, row: Features, a: Float[Tensor, "b p"], b: Float[Tensor, "b p"], step: Step
    ) -> Float[Tensor, ""]:
        """True pairs, pictures with a wrong row, and rows with a wrong picture: which are true? Wrong ones are drawn from
        everyone's, the likelier the more alike they look."""
        rows, pictures = self.columns(row), self.look(seen.tokens)
        heat = 1 / self.config.temperature
        other_rows = hard_negatives(heat * a @ step.gather(b).T, step.rng)
        other_pictures = hard_negatives(heat * b @ step.gather(a).T, step.rng)
        wrong_rows, wrong_pictures = step.gather(rows)[other_rows], step.gather(pictures)[other_pictures]
        both = self.fusion(torch.cat([rows, wrong_rows, rows]), torch.cat([pictures, pictures, wrong_pictures]))
        true = torch.arange(len(both), device=both.device) < len(rows)
        return F.cross_entropy(self.belong(both[:, 0]), true.long())

    @torch.no_grad()
    def fused(self, batch: Batch) -> Float[Tensor, "b w"]:
        """The joint vector of each picture and its row, whatever cells the row lacks."""
        rows = self.columns(self.row(values(batch.x["table"])))
        return self.fusion(rows, self.look(self.image(batch.x["image"]).tokens))[:, 0]

    @torch.no_grad()
    def filled(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The rows with a guess in every missing cell, from their other cells and their pictures."""
        table = values(batch.x["table"])
        both = self.fusion(self.columns(self.row(table)), self.look(self.image(batch.x["image"]).tokens))
        return torch.where(table.isnan(), self.restore.cells(both[:, 1:], self.normalise()), table)
