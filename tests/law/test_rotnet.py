import math

import numpy as np
import pytest
import torch

from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.methods.pretext import rotnet
from headwater.parts.views import CentreCrop, rotations
from tests.small import batch, convnet, step, vit


def by_transposes(x: np.ndarray, k: int) -> np.ndarray:
    """The paper's recipe for one picture [h, w]."""
    if k == 1:
        return np.flipud(x.T)
    if k == 2:
        return np.fliplr(np.flipud(x))
    return np.flipud(x).T if k == 3 else x


def test_turns_are_those_of_the_paper_and_move_pixels_only():
    x = torch.rand(3, 2, 5, 5)
    turned, turns = rotations(x)
    assert turns.tolist() == [0, 1, 2, 3] * 3
    for i in range(3):
        for k in range(4):
            copy = turned[4 * i + k]
            assert np.array_equal(copy[0].numpy(), by_transposes(x[i, 0].numpy(), k))
            assert torch.equal(copy.flatten(1).sort().values, x[i].flatten(1).sort().values)


def test_four_quarter_turns_are_none():
    x = torch.rand(2, 1, 4, 4)
    turned = x
    for _ in range(4):
        turned = rotations(turned)[0][1::4]
    assert torch.equal(turned, x)


def test_pictures_must_be_square():
    with pytest.raises(RequestError, match="square"):
        rotations(torch.rand(2, 3, 4, 6))


@pytest.mark.parametrize("make", [vit, convnet])
def test_a_symmetric_picture_gives_its_turn_away_to_nobody(make):
    torch.manual_seed(0)
    method = rotnet.Config(view=CentreCrop(16, 1.0)).build({"image": make()}).eval()
    x = torch.rand(4, 3, 16, 16)
    even = rotations(x)[0].unflatten(0, (4, 4)).mean(1)
    torch.nn.init.normal_(method.head.weight)
    logits = method.head(method.encoder(rotations(even)[0]).pooled).unflatten(0, (4, 4))
    torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))
    assert method(Batch({"image": even}), step()).value >= math.log(4) - 1e-6


def test_untrained_it_guesses():
    torch.manual_seed(0)
    out = rotnet.TINY.build({"image": convnet()})(batch(32), step())
    assert float(out.value.detach()) == pytest.approx(math.log(4), abs=0.25)
    assert float(out.metrics["chance"]) == pytest.approx(math.log(4))


def test_all_four_turns_of_every_picture_are_in_the_batch():
    method = rotnet.Config(view=CentreCrop(16, 1.0)).build({"image": convnet()})
    seen: list[torch.Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    method(batch(), step())
    assert torch.equal(seen[0], rotations(batch().x["image"])[0])
