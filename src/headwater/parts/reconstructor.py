"""An autoencoder that must say a map of features of the whole picture through a narrow code: it knows what goes with what."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

END = 8  # positions a side, at most, of the last map before the code


class WholePicture(nn.Module):
    """Strided convolutions to one position of `width` channels, then convolutions between bilinear enlargements.

    size, side  of the picture, and of the map to say, which has `dim` channels
    """

    def __init__(self, channels: int, dim: int, size: int, side: int, width: int, dropout: float) -> None:
        super().__init__()
        layers, held, now = list[nn.Module](), channels, size
        for wide in (width // 2, width // 2, width, width, width):
            if now <= END:
                break
            layers += [nn.Conv2d(held, wide, 4, 2, 1), nn.ReLU()]
            held, now = wide, now // 2
        self.encoder = nn.Sequential(*layers, nn.Conv2d(held, width, now))
        steps = [max(1, size // 2**k - (k % 2 == 0 or k == 1)) for k in (6, 5, 4, 3, 2, 1)]
        self.sides = [*steps, side]
        self.decoder = nn.ModuleList(nn.Conv2d(width, width, 4, padding=2) for _ in steps)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, dim, 3, padding=1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        code = self.encoder(x)
        for side, conv in zip(self.sides, self.decoder, strict=False):
            code = self.dropout(F.relu(conv(F.interpolate(code, (side, side), mode="bilinear"))))
        out: Tensor = self.last(F.interpolate(code, (self.sides[-1],) * 2, mode="bilinear"))
        return out
