import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.parts.convnet import ConvNeXtConfig, ResNetConfig


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_sizes_are_those_published():
    assert weights(ResNetConfig().build()) == 11_176_512  # ResNet-18 without its classifier
    assert weights(ResNetConfig(depths=(3, 4, 6, 3)).build()) == 21_284_672  # ResNet-34
    wide = {"widths": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3), "bottleneck": True}
    assert weights(ResNetConfig(**wide).build()) == 23_508_032  # ResNet-50
    assert weights(ConvNeXtConfig().build()) == 27_820_128  # ConvNeXt-T


@pytest.mark.parametrize("config", [ResNetConfig, ConvNeXtConfig])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank_gives_tokens_and_their_mean(config, rank):
    net = config(channels=2, rank=rank, widths=(4, 8), depths=(1, 1), stem_stride=1).build()
    out = net(torch.rand(3, 2, *[8] * rank))
    assert out.tokens.shape == (3, 4**rank, 8)  # the second stage halves each axis
    torch.testing.assert_close(out.pooled, net.norm(out.tokens.mean(1)))


@pytest.mark.parametrize("config", [ResNetConfig, ConvNeXtConfig])
def test_channels_that_do_not_match_are_named(config):
    net = config(channels=1, widths=(4,), depths=(1,), stem_stride=1).build()
    with pytest.raises(RequestError, match="made for 1 channels, the input has 3"):
        net(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("config", [ResNetConfig, ConvNeXtConfig])
def test_a_grey_picture_is_seen_in_all_three_colours_alike(config):
    net = config(channels=3, widths=(4,), depths=(1,), stem_stride=1).build().eval()
    net.normalise.set(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.1, 0.2, 0.3]))
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(net(grey).pooled, net(grey.repeat(1, 3, 1, 1)).pooled)
    series = config(channels=3, rank=1, widths=(4,), depths=(1,), stem_stride=1).build()
    with pytest.raises(RequestError, match="made for 3 channels, the input has 1"):
        series(torch.rand(2, 1, 8))


def test_stages_must_be_named_alike():
    with pytest.raises(RequestError, match="widths"):
        ResNetConfig(widths=(4, 8), depths=(1,))


def test_it_cannot_leave_out_tokens():
    net = ResNetConfig(widths=(4,), depths=(1,), stem_stride=1).build()
    with pytest.raises(RequestError, match="vit-tiny"):
        net(torch.rand(2, 3, 8, 8), keep=torch.zeros(2, 1, dtype=torch.long))


def test_bytes_and_floats_are_the_same_picture():
    net = ResNetConfig(widths=(4,), depths=(1,), stem_stride=1).build().eval()
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(net(pixels).pooled, net(pixels.float() / 255).pooled)
