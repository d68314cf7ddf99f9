"""MAE: only hidden patches count, only seen ones are encoded; equal to the reference in transformers."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask, Ragged, Step
from headwater.methods.reconstruct import mae
from headwater.parts.encoders import TokenEncoder, TokenEncoderConfig
from headwater.parts.masks import hide, where_hidden
from headwater.parts.tokens import GridTokenizerConfig, TableTokenizerConfig, coordinates, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import CentreCrop
from headwater.parts.views.kit import table
from tests.small import TRUNK, batch, step, vit

STILL = CentreCrop(16, 1.0)


def build(**changes: object) -> mae.MAE:
    torch.manual_seed(0)
    return replace(mae.TINY, view=STILL, **changes).build({"image": vit()})


@pytest.mark.parametrize("standardise", [False, True])
def test_a_guess_of_zero_costs_the_mean_square_of_the_hidden_targets(standardise):
    method = build(standardise=standardise)
    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    x = batch().x["image"]
    hidden = method.config.mask(len(x), (4, 4), step().rng).drop
    patches = method.encoder.tokenizer.patches(x)
    if standardise:
        patches = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(method(batch(), step()).value, take(patches, hidden).square().mean())


def test_seen_patches_cost_nothing():
    method = build()
    x = batch().x["image"]
    mask = method.config.mask(len(x), (4, 4), step().rng)
    method.target = lambda x: torch.zeros(len(x), 16, 48).scatter(1, mask.keep[..., None].expand(-1, -1, 48), 1e9)
    method.to_patch = torch.nn.Identity()
    method.decode = lambda *_: torch.zeros(len(x), 16, 48)
    assert method(batch(), step()).value == 0


def test_the_features_do_not_depend_on_hidden_pixels():
    method = build()
    x = batch().x["image"]
    mask = method.config.mask(len(x), (4, 4), step().rng)
    tokenizer = method.encoder.tokenizer
    patches = tokenizer.patches(x)
    noise = torch.randn(len(x), mask.drop.shape[1], 48, generator=torch.Generator().manual_seed(5))
    other = tokenizer.unpatch(patches.scatter(1, mask.drop[..., None].expand_as(noise), noise), (4, 4))
    assert not torch.allclose(other, x)
    torch.testing.assert_close(method.encoder(other, keep=mask.keep).tokens, method.encoder(x, keep=mask.keep).tokens)
    assert method.encoder(x, keep=mask.keep).tokens.shape == (8, 4, 16)  # a quarter of the tokens is all it costs


def test_standardised_targets_have_mean_zero_and_deviation_one():
    target = build().target(batch().x["image"])
    torch.testing.assert_close(target.mean(2), torch.zeros(8, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std(2), torch.ones(8, 16), atol=1e-4, rtol=0)


def test_padding_never_counts():
    method = build()
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    extent = torch.tensor([[16, 16], [8, 16], [16, 4], [9, 9]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, torch.full_like(values, 77.0))
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()).value for v in (values, garbage))
    assert a.isfinite()
    torch.testing.assert_close(a, b)

    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    x = Ragged(values, extent)
    valid = method.encoder.tokenizer.valid(x)
    hidden = where_hidden(method.config.mask(4, (4, 4), step().rng, valid)) & valid
    want = method.target(x)[hidden].square().nanmean(1).mean()  # what a patch lacks at the edge is not predicted either
    torch.testing.assert_close(method(Batch({"image": x}), step()).value, want)


def test_missing_cells_never_count():
    tokenizer = TableTokenizerConfig(columns=12)
    torch.manual_seed(0)
    encoder = TokenEncoderConfig(tokenizer=tokenizer, trunk=TRUNK).build()
    method = mae.TINY.viewed(table()).build({"table": encoder})
    method.config = replace(method.config, view=lambda x, rng: x)
    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    x = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    x[0, :7], x[1] = torch.nan, torch.nan
    drop = method.config.mask(6, (12,), step().rng, ~x.isnan()).drop
    hidden = x.gather(1, drop)
    real = hidden[~hidden.isnan()]  # standardised by nothing: a cell is its own patch
    torch.testing.assert_close(method(Batch({"table": x}), step()).value, real.square().mean())


@dataclass(frozen=True)
class ByNoise:
    """What the reference does with its `noise`: the highest are hidden."""

    noise: Tensor

    def __call__(self, b: int, grid: tuple[int, ...], rng: Rng, valid: Tensor | None = None) -> Mask:
        return hide(self.noise, int(self.noise.shape[1] * 0.75), valid)


def carry_blocks(theirs: nn.ModuleList, ours: nn.ModuleList) -> None:
    """The weights of transformers' ViT layers, written into ours."""
    for a, b in zip(theirs, ours, strict=True):
        b.norm1.load_state_dict(a.layernorm_before.state_dict())
        b.norm2.load_state_dict(a.layernorm_after.state_dict())
        b.attention.out.load_state_dict(a.attention.o_proj.state_dict())
        b.mlp[0].load_state_dict(a.mlp.fc1.state_dict())
        b.mlp[2].load_state_dict(a.mlp.fc2.state_dict())
        parts = (a.attention.q_proj, a.attention.k_proj, a.attention.v_proj)
        b.attention.qkv.weight.copy_(torch.cat([p.weight for p in parts]))
        b.attention.qkv.bias.copy_(torch.cat([p.bias for p in parts]))


def carry_patches(theirs: nn.Conv2d, ours: nn.Linear) -> None:
    """A strided convolution is a linear map of patches; ours keep the channels of a pixel side by side."""
    ours.weight.copy_(theirs.weight.permute(0, 2, 3, 1).flatten(1))
    ours.bias.copy_(theirs.bias)


@torch.no_grad()
def carry(theirs: nn.Module, ours: mae.MAE) -> None:
    encoder = ours.encoder
    assert isinstance(encoder, TokenEncoder)
    assert encoder.prefix is not None
    carry_patches(theirs.vit.embeddings.patch_embeddings.projection, encoder.tokenizer.embed)
    encoder.prefix.copy_(theirs.vit.embeddings.cls_token[0])
    carry_blocks(theirs.vit.layers, encoder.trunk.blocks)
    carry_blocks(theirs.decoder.decoder_layers, ours.decoder.blocks)
    for a, b in [
        (theirs.vit.layernorm, encoder.trunk.norm),
        (theirs.decoder.decoder_embed, ours.narrow),
        (theirs.decoder.decoder_norm, ours.decoder.norm),
        (theirs.decoder.decoder_pred, ours.to_patch),
    ]:
        b.load_state_dict(a.state_dict())
    ours.mask_token.copy_(theirs.decoder.mask_token[0, 0])


def reference(standardise: bool) -> nn.Module:
    """transformers' MAE for pictures of 32 pixels, every weight of it random."""
    module = pytest.importorskip("transformers.models.vit_mae")
    torch.manual_seed(0)
    theirs: nn.Module = module.ViTMAEForPreTraining(
        module.ViTMAEConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32,
            patch_size=8, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
            decoder_intermediate_size=64, norm_pix_loss=standardise, layer_norm_eps=1e-12, initializer_range=0.2,
        )
    ).eval()  # fmt: skip
    theirs.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    theirs.vit.embeddings.initialize_weights()  # positions, which its own construction leaves at zero
    theirs.decoder.initialize_weights(16)
    assert theirs.vit.embeddings.position_embeddings.any()
    for p in theirs.parameters():
        if p.requires_grad:  # norms and biases too: a weight of one or zero would hide a mistake
            nn.init.normal_(p, std=0.2)
    return theirs


def like_the_reference(config: type, **changes: object) -> mae.MAE:
    """What the configuration builds at the sizes of `reference`."""
    encoder = TokenEncoderConfig(
        tokenizer=GridTokenizerConfig(modality="image", channels=3, patch=(8, 8)),
        trunk=TransformerConfig(dim=32, depth=2, heads=2, eps=1e-12),
        class_token=True,
    ).build()
    decoder = TransformerConfig(dim=16, depth=2, heads=2, eps=1e-12)
    return config(view=CentreCrop(32, 1.0), decoder=decoder, **changes).build({"image": encoder}).eval()


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
@pytest.mark.parametrize("standardise", [False, True])
def test_it_equals_the_reference_from_the_same_weights(standardise):
    theirs = reference(standardise)
    noise = torch.rand(5, 16)
    method = like_the_reference(mae.Config, mask=ByNoise(noise), standardise=standardise)
    carry(theirs, method)

    x = torch.rand(5, 3, 32, 32)
    want = theirs(pixel_values=x, noise=noise)
    got = method(Batch({"image": x}), Step(Rng(0)))
    torch.testing.assert_close(got.value, want.loss, rtol=1e-5, atol=0)
    mask = method.config.mask(5, (4, 4), Rng(0))
    decoded = method.decode(method.encoder(x, keep=mask.keep), mask, coordinates((4, 4), "cpu")[None], None)
    said = method.to_patch(decoded)
    torch.testing.assert_close(said, want.logits, rtol=1e-5, atol=1e-5)
    want.loss.backward()
    got.value.backward()
    qkv = method.encoder.trunk.blocks[0].attention.qkv.weight.grad
    torch.testing.assert_close(qkv[:32], theirs.vit.layers[0].attention.q_proj.weight.grad, rtol=1e-4, atol=1e-6)
