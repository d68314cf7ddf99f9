"""What methods that predict features share: a narrow transformer that is asked about hidden places."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headwater.parts.positions import sincos
from headwater.parts.tokens import take
from headwater.parts.transformer import TransformerConfig


class LatentPredictor(nn.Module):
    """From the features of seen tokens of width `dim`, those at other places (I-JEPA; Assran et al., 2023)."""

    def __init__(self, config: TransformerConfig, dim: int) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Linear(dim, config.dim), nn.Linear(config.dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(config.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.trunk = config.build()

    def forward(
        self,
        seen: Float[Tensor, "b k d"],
        context: Int[Tensor, "b k"],
        asked: Int[Tensor, "b t m"],
        places: Float[Tensor, "#b n r"],
        valid: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b tm d"]:
        """What stands at t sets of m places each; no set knows which others are asked about.

        `context` numbers the seen tokens; what is not `valid` is not attended to.
        """
        b, t, m = asked.shape
        table = sincos(places, self.mask_token.shape[0]).expand(b, -1, -1).to(seen.dtype)
        known = self.narrow(seen) + take(table, context)
        mask = (self.mask_token + take(table, asked.flatten(1))).view(b * t, m, -1)
        real = None
        if valid is not None:
            at = valid.gather(1, context).repeat_interleave(t, 0), valid.gather(1, asked.flatten(1)).view(b * t, m)
            real = torch.cat(at, 1)
        said = self.trunk(torch.cat([known.repeat_interleave(t, 0), mask], 1), real)[:, -m:]
        out: Tensor = self.widen(said)
        return out.view(b, t * m, -1)
