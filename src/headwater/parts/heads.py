"""Small trainable maps on top of an encoder, thrown away after pre-training."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.parts.prototypes import class_sums


def mlp(*sizes: int, last_norm: bool = False) -> nn.Sequential:
    """Linear maps of the given sizes with batch norm and ReLU between them.

    `last_norm` ends in a batch norm without weights, as SimCLR's second version does.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        last = b is sizes[-1] and len(layers) == 3 * (len(sizes) - 2)
        layers += [nn.Linear(a, b, bias=last and not last_norm)]
        if not last:
            layers += [nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
    if last_norm:
        layers.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*layers)


class DINOHead(nn.Module):
    """Three linear maps with GELU, L2 normalisation, then prototypes of length one (Caron et al., 2021).

    `norm` puts a batch norm before each GELU. The features of a fresh transformer hardly differ between samples; with
    it their differences reach the prototypes all the same, and a short run does not begin at a uniform answer.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int, norm: bool = False) -> None:
        super().__init__()
        between = [[nn.BatchNorm1d(hidden), nn.GELU()] if norm else [nn.GELU()] for _ in range(2)]
        self.body = nn.Sequential(
            nn.Linear(dim, hidden), *between[0], nn.Linear(hidden, hidden), *between[1], nn.Linear(hidden, bottleneck)
        )
        for layer in self.body:
            if isinstance(layer, nn.Linear):
                # the paper's 0.02 suits its width of 2048; in a narrow head it would leave less signal than bias
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck) / bottleneck**0.5)

    def forward(self, x: Float[Tensor, "*b d"], frozen: bool = False) -> Float[Tensor, "*b k"]:
        """The cosine with every prototype. While `frozen`, these get a gradient of zero: DDP waits for one of each."""
        prototypes = F.normalize(self.prototypes, dim=-1)
        if frozen:
            prototypes = prototypes.detach() + 0 * prototypes
        rows = self.body(x.reshape(-1, x.shape[-1]))
        return F.linear(F.normalize(rows, dim=-1), prototypes).view(*x.shape[:-1], -1)


class DINOHeads(nn.Module):
    """A DINO head for samples and one for patches; or one for both, as in iBOT (Zhou et al., 2021)."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int, shared: bool, norm: bool) -> None:
        super().__init__()
        self.sample = DINOHead(dim, hidden, bottleneck, prototypes, norm)
        self.patch = None if shared else DINOHead(dim, hidden, bottleneck, prototypes, norm)

    def forward(
        self, pooled: Float[Tensor, "v d"], patches: Float[Tensor, "b m d"], frozen: bool = False
    ) -> tuple[Float[Tensor, "v k"], Float[Tensor, "b m k"]]:
        return self.sample(pooled, frozen), (self.patch or self.sample)(patches, frozen)


class CosineHead(nn.Module):
    """The cosine of centred features with a vector per class, times `scale`: nearest class means without their lengths
    (Wang et al., 2019)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.tensor(scale))

    @classmethod
    def of_means(cls, x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int, scale: float = 10.0) -> "CosineHead":
        """With the mean of each class's features. Raises RequestError for a class without a sample."""
        sums, counts = class_sums(x, y, classes)
        if (counts == 0).any():
            raise RequestError(f"{int((counts == 0).sum())} of {classes} classes have no sample to take a mean of.")
        head, centre = cls(x.shape[1], classes, scale), x.double().mean(0)
        head.centre.copy_(centre)
        head.vectors.data.copy_(sums / counts[:, None] - centre)
        return head

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return self.scale * F.normalize(x - self.centre, dim=1) @ F.normalize(self.vectors, dim=1).T
