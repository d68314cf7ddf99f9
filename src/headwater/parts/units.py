"""Maps of scores in units of their own, brought to one by what they say of samples that are in order."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.parts.conformal import threshold


class MapUnits(nn.Module):
    """The mean of m maps, each with two quantiles of its values on good samples at 0 and at 0.1 (EfficientAD, 2023).

    `ends` holds the two of each map; `alarm` is the largest value of a joined map from which on a sample is called wrong, and
    `promised` the share of good samples that will be, at most.
    """

    ends: Tensor
    alarm: Tensor
    promised: Tensor

    def __init__(self, m: int, quantiles: tuple[float, float]) -> None:
        super().__init__()
        self.quantiles = quantiles
        self.register_buffer("ends", torch.tensor([[0.0, 1.0]] * m))
        self.register_buffer("alarm", torch.tensor(torch.inf))
        self.register_buffer("promised", torch.tensor(0.0))

    def forward(self, maps: Float[Tensor, "m b h w"]) -> Float[Tensor, "b h w"]:
        low, high = self.ends.T.reshape(2, -1, 1, 1, 1)
        return (0.1 * (maps - low) / (high - low).clamp(min=1e-12)).mean(0)

    @torch.no_grad()
    def settle(self, maps: Float[Tensor, "m b h w"], rate: float) -> None:
        """Take the quantiles of these good maps, and a threshold that calls wrong a share of `rate` of good samples, or the
        least share that so few can promise."""
        q = np.quantile(maps.flatten(1).cpu().numpy(), self.quantiles, axis=1).T
        self.ends = torch.tensor(q, dtype=torch.float32, device=maps.device)
        worst = self(maps).flatten(1).amax(1).double().cpu().numpy()
        lowest, promised = threshold(-worst, rate)
        self.alarm = torch.tensor(-lowest, dtype=torch.float32, device=maps.device)
        self.promised = torch.tensor(promised, dtype=torch.float32, device=maps.device)
