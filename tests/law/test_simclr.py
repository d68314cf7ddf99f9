import torch
import torch.nn.functional as F
from torch import nn

from headwater.core.types import Batch
from headwater.methods.agree import simclr
from headwater.parts.views import CentreCrop
from tests.small import batch, convnet, step


class SameForAll(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_ones(len(x), 8)


def build(**changes: object) -> simclr.SimCLR:
    torch.manual_seed(0)
    return simclr.Config(view=CentreCrop(16, 1.0), hidden=16, out=8, **changes).build({"image": convnet()}).eval()


def test_the_loss_is_that_of_each_view_among_all_others():
    method = build(temperature=0.3)
    pictures = batch().x["image"]
    z = F.normalize(method.head(method.encoder(pictures).pooled), dim=1)
    same = torch.cat([z, z])  # the view changes nothing, so both views have these features
    total = 0.0
    for i in range(16):
        scores = torch.stack([same[i] @ same[j] / 0.3 for j in range(16) if j != i])
        partner = same[i] @ same[(i + 8) % 16] / 0.3
        total += (scores.logsumexp(0) - partner) / 16
    torch.testing.assert_close(method(batch(), step()).value, total)


def test_a_head_that_says_the_same_of_everything_costs_exactly_chance():
    method = build()
    method.head = SameForAll()
    out = method(batch(), step())
    torch.testing.assert_close(out.value, out.metrics["chance"])


def test_the_two_views_are_drawn_independently():
    torch.manual_seed(0)
    method = simclr.TINY.build({"image": convnet()})
    seen: list[torch.Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    method(batch(), step())
    first, second = seen[0].chunk(2)
    assert len(seen) == 1 and (first - second).abs().amax((1, 2, 3)).min() > 0.05


def test_a_series_serves_as_well():
    from headwater.parts.convnet import ResNetConfig
    from headwater.parts.views import Jitter

    encoder = ResNetConfig(modality="series", channels=2, rank=1, widths=(8, 16), depths=(1, 1), stem_stride=1).build()
    method = simclr.Config(view=Jitter(0.1), hidden=16, out=8).build({"series": encoder})
    assert method(Batch({"series": torch.randn(4, 2, 32)}), step()).value.isfinite()
