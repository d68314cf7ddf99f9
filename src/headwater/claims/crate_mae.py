"""CRATE-MAE: layers derived as steps of optimisation fill in what is hidden."""

from dataclasses import replace

import torch

from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import parts, recipe, trained
from headwater.core.rng import Rng
from headwater.core.types import Batch
from headwater.core.verbs import Method, values
from headwater.data import open as open_data
from headwater.data.loader import Loader
from headwater.data.source import Source
from headwater.engine.optimise import AdamW
from headwater.methods.reconstruct.crate_mae import CrateMAE
from headwater.parts.crate import SubspaceAttention
from headwater.parts.masks import RandomMask, where_hidden
from headwater.parts.tokens import take
from headwater.parts.views import CentreCrop


class Deaf(SubspaceAttention):
    """No token hears of another: what attention would say is left out."""

    def mix(self, w: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.out(w.transpose(1, 2).flatten(2))


def silenced(method: Method) -> Method:
    for part in method.modules():
        if isinstance(part, SubspaceAttention):
            part.__class__ = Deaf
    return method


def measure(seed: int, deaf: bool = False) -> Pair:
    """The mean squared error on hidden patches of held-out digits, of the model and of each pixel's mean."""
    pool, test = parts(open_data("digits"), seed)
    plain = CentreCrop(8, 1.0)  # a digit as it is: views smooth it, and the means of pixels would be others
    made = recipe("crate-mae", pool, steps=1000, batch_size=64, view=plain, mask=RandomMask(0.5))
    made = replace(made, fit=replace(made.fit, optimiser=AdamW(rate=1e-3, weight_decay=1e-4)))
    method = trained("crate-mae", pool, seed, made, silenced if deaf else lambda method: method)
    assert isinstance(method, CrateMAE)
    tokenizer = method.encoder.tokenizer
    with torch.inference_mode():
        mean = tokenizer.patches(whole(pool)).mean(0)
        x = values(whole(test))
        mask = method.config.mask(len(x), tokenizer.grid(x), Rng(seed))
        target = take(tokenizer.patches(x), mask.drop)
        seen = method.encoder(x, hidden=where_hidden(mask), stand_in=method.mask_token)
        guess = method.to_patch(take(method.decode(seen), mask.drop))
        return Pair(float((guess - target).square().mean()), float((mean[mask.drop] - target).square().mean()))


def whole(source: Source) -> torch.Tensor:
    _, batch = next(iter(Loader(source, len(source)).ordered(range(len(source)))))
    assert isinstance(batch, Batch)
    return values(batch.x["image"])


CLAIM = Claim(
    paper="With about 30 % of the parameters of ViT-MAE, CRATE-MAE fills in pictures about as well and its features are about as "
    "good, on ImageNet.",
    claim="Held-out digits, half of whose patches are hidden: layers that compress and code sparsely, each with a quarter of the "
    "weights of a transformer's, fill them in far better than each pixel's mean. Weaker than the paper: at this size nothing "
    "is said about features or about ViT-MAE.",
    data="digits",
    metric="mean squared error on hidden patches, in variances",
    direction="lower",
    baseline="each pixel's mean",
    least=0.04,
    measure=measure,
    without="compression towards subspaces: attention, by which tokens hear of each other",
    ablated=lambda seed: measure(seed, deaf=True),
)
