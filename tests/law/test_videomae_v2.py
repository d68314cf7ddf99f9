"""VideoMAE V2: tubes hidden from the encoder, running cells from the decoder; without the latter VideoMAE, exactly."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask, Step
from headwater.interop.huggingface.trunks import OLD
from headwater.methods.reconstruct import videomae_v2
from headwater.parts.cell_masks import RunningCellMask
from headwater.parts.encoders import TokenEncoder
from headwater.parts.masks import TubeMask, hide, where_hidden
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views.block import BoxCrop
from tests.small import TRUNK, batch, clips, step

GRID = (8, 14, 14)


def build(**changes: object) -> videomae_v2.VideoMAEV2:
    torch.manual_seed(0)
    return replace(videomae_v2.TINY, **changes).build({"video": clips()})


def test_the_published_masks_leave_160_tokens_to_encode_and_784_to_decode():
    config = videomae_v2.Config()
    mask = config.mask(3, GRID, Rng(0))
    assert mask.keep.shape == (3, 8 * (196 - int(0.9 * 196))) == (3, 160)
    hidden = where_hidden(mask).view(3, 8, 196)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert config.unasked(3, GRID, Rng(0)).keep.shape == (3, 784)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_cells_take_turns(quarters):
    out = where_hidden(RunningCellMask(quarters / 4)(40, GRID, Rng(0))).view(40, *GRID)
    assert (out.flatten(2).sum(2) == 49 * quarters).all()  # at every time as many
    for start in range(5):
        assert (out[:, start : start + 4].sum(1) == quarters).all()  # at every place, in any four times
    cells = out.unfold(2, 2, 2).unfold(3, 2, 2)
    assert torch.equal(cells, cells[:, :, :1, :1].expand_as(cells))
    phases = out.unique(dim=0)
    assert len(phases) == 4
    assert (phases.sum(0) == quarters).all()
    first = out[0, :, :2, :2].flatten(1)
    for a, b in pairwise(first):
        assert torch.equal(a.roll(-1), b)


def test_cells_are_cut_over_shards_as_one_batch():
    whole = RunningCellMask()(6, (4, 4, 4), Rng(3))
    parts = [RunningCellMask()(3, (4, 4, 4), Rng(3, shard=s, shards=2)) for s in range(2)]
    assert torch.equal(torch.cat([p.keep for p in parts]), whole.keep)


def test_what_cells_refuse():
    with pytest.raises(RequestError, match=r"ratio is 0\.25, 0\.5 or 0\.75; got 0\.6"):
        RunningCellMask(0.6)
    for grid in ((8, 7, 14), (14, 14)):
        with pytest.raises(RequestError, match="rows and columns even"):
            RunningCellMask()(2, grid, Rng(0))


def masks_of(method: videomae_v2.VideoMAEV2, b: int = 8) -> tuple[Mask, Mask]:
    """Those of the next loss, drawn in its order."""
    rng = step().rng
    method.config.view(batch(b).x["video"], rng)
    return method.config.mask(b, (4, 4, 4), rng), method.unasked(b, (4, 4, 4), rng)


def test_the_decoder_gets_the_seen_and_half_of_the_clip():
    method = build()
    lengths: list[tuple[int, ...]] = []
    method.decoder.register_forward_pre_hook(lambda _, args: lengths.append(tuple(args[0].shape)))
    method(batch(), step())
    assert lengths == [(8, 16 + 32, 16)]


def test_only_what_is_asked_for_and_unseen_counts():
    method = build()
    mask, unasked = masks_of(method)
    counted = where_hidden(mask) & ~where_hidden(unasked)
    target = torch.randn(8, 64, 96, generator=torch.Generator().manual_seed(0))
    method.target = lambda x: target
    for p in method.to_patch.parameters():
        nn.init.zeros_(p)
    torch.testing.assert_close(method(batch(), step()).value, target[counted].square().mean())
    assert counted.sum() == 48 * 8 // 2

    said: list[Tensor] = []
    method.to_patch.register_forward_hook(lambda _, args, out: (out.retain_grad(), said.append(out))[0])
    method(batch(), step()).value.backward()
    moved = said[0].grad.abs().sum(2) > 0
    assert torch.equal(moved, where_hidden(mask).gather(1, unasked.keep))


def test_pixels_that_neither_half_reads_change_nothing():
    method = build()
    mask, unasked = masks_of(method)
    neither = (where_hidden(mask) & where_hidden(unasked)).view(8, 1, 4, 4, 4)
    for axis, size in ((2, 2), (3, 4), (4, 4)):
        neither = neither.repeat_interleave(size, axis)
    x = batch().x["video"]
    other = torch.where(neither, torch.rand_like(x), x)
    assert not torch.equal(other, x)
    found = []
    for clip in (x, other):
        method.zero_grad()
        loss = method(Batch({"video": clip}), step()).value
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in method.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_every_colour_of_a_tubelet_is_standardised_by_itself():
    target = build().target(batch().x["video"]).unflatten(2, (-1, 3))
    torch.testing.assert_close(target.mean(2), torch.zeros(8, 64, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std(2), torch.ones(8, 64, 3), atol=1e-4, rtol=0)


class ByTable:
    """The places that a table of truth values hides."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden

    def __call__(self, b: int, grid: tuple[int, ...], rng: Rng, valid: Tensor | None = None) -> Mask:
        return hide(self.hidden.float() + torch.linspace(0, 0.5, self.hidden.shape[1]), int(self.hidden[0].sum()))


@torch.no_grad()
def carry_trunk(theirs: dict[str, Tensor], front: str, ours: nn.ModuleList) -> None:
    for i, block in enumerate(ours):
        said = {k.removeprefix(f"{front}.{i}."): v for k, v in theirs.items() if k.startswith(f"{front}.{i}.")}
        of = {n: said[f"{n}.weight"] for n in (OLD.norm1, OLD.norm2, OLD.out, OLD.up, OLD.down)}
        for part, name in zip(
            (block.norm1, block.norm2, block.attention.out, block.mlp[0], block.mlp[2]), of, strict=True
        ):
            part.weight.copy_(of[name])
            part.bias.copy_(said[f"{name}.bias"])
        block.attention.qkv.weight.copy_(torch.cat([said[f"{n}.weight"] for n in (OLD.q, OLD.k, OLD.v)]))
        block.attention.bias_q.copy_(said[OLD.bias_q])
        block.attention.bias_v.copy_(said[OLD.bias_v])


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
@pytest.mark.parametrize("given", ["complement", "none"])
def test_without_running_cells_it_equals_the_reference_from_the_same_weights(given):
    module = pytest.importorskip("transformers.models.videomae")
    torch.manual_seed(0)
    theirs = module.VideoMAEForPreTraining(
        module.VideoMAEConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16,
            patch_size=4, num_frames=8, decoder_hidden_size=16, decoder_num_hidden_layers=2,
            decoder_num_attention_heads=2, decoder_intermediate_size=64, norm_pix_loss=True, use_mean_pooling=False,
        )
    ).eval()  # fmt: skip
    for p in theirs.parameters():
        if p.requires_grad:  # norms and biases too: a weight of one or zero would hide a mistake
            nn.init.normal_(p, std=0.2)
    hidden = where_hidden(TubeMask(0.75)(5, (4, 4, 4), Rng(0)))
    trunk = replace(TRUNK, eps=1e-12, qkv_bias="qv")
    encoder = clips(trunk=trunk, position="sequence", grid=(4, 4, 4))
    decoder = TransformerConfig(dim=16, depth=2, heads=2, eps=1e-12, qkv_bias="qv")
    method = videomae_v2.Config(
        view=BoxCrop((8, 16, 16), ((1.0, 1.0),) * 3),
        mask=ByTable(hidden),
        unasked=ByTable(~hidden) if given == "complement" else None,
        decoder=decoder,
    ).build({"video": encoder})
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    encoder.tokenizer.normalise.set(mean, std)
    weights = theirs.state_dict()
    assert isinstance(encoder, TokenEncoder)
    carry_trunk(weights, "videomae.encoder.layer", encoder.trunk.blocks)
    carry_trunk(weights, "decoder.decoder_layers", method.decoder.blocks)
    with torch.no_grad():
        tubelets = theirs.videomae.embeddings.patch_embeddings.projection
        encoder.tokenizer.embed.weight.copy_(tubelets.weight.permute(0, 2, 3, 4, 1).flatten(1))
        encoder.tokenizer.embed.bias.copy_(tubelets.bias)
        method.mask_token.copy_(theirs.mask_token[0, 0])
    encoder.trunk.norm.load_state_dict(theirs.videomae.layernorm.state_dict())
    method.narrow.load_state_dict(theirs.encoder_to_decoder.state_dict())
    method.decoder.norm.load_state_dict(theirs.decoder.norm.state_dict())
    method.to_patch.load_state_dict(theirs.decoder.head.state_dict())

    x = torch.rand(5, 3, 8, 16, 16)
    shape = (1, 3, 1, 1, 1)
    pixels = ((x - mean.view(shape)) / std.view(shape)).transpose(1, 2)
    want = theirs(pixel_values=pixels, bool_masked_pos=hidden)
    got = method(Batch({"video": x}), Step(Rng(0))).value
    torch.testing.assert_close(got, want.loss, rtol=1e-5, atol=0)
    want.loss.backward()
    got.backward()
    grad = theirs.encoder_to_decoder.weight.grad
    torch.testing.assert_close(method.narrow.weight.grad, grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method.mask_token.grad, theirs.mask_token.grad[0, 0], rtol=1e-4, atol=1e-6)
