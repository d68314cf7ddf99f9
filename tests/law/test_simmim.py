"""SimMIM: mask tokens in place, absolute error on what is hidden; equal to the reference in transformers."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from headwater.core.rng import Rng
from headwater.core.types import Batch, Mask, Ragged, Step
from headwater.methods.reconstruct import simmim
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.masks import RandomMask, hide, where_hidden
from headwater.parts.tokens import GridTokenizerConfig, take
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views import CentreCrop
from tests.law.test_mae import carry_blocks, carry_patches
from tests.small import batch, step, vit


def build(**changes: object) -> simmim.SimMIM:
    torch.manual_seed(0)
    return replace(simmim.TINY, view=CentreCrop(16, 1.0), **changes).build({"image": vit()})


def test_a_guess_of_zero_costs_the_mean_absolute_value_of_the_hidden_pixels():
    method = build()
    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    method.encoder.tokenizer.normalise.set(torch.full((3,), 0.4), torch.full((3,), 0.2))
    x = batch().x["image"]
    drop = method.config.mask(len(x), (4, 4), step().rng).drop
    want = take(method.encoder.tokenizer.patches((x - 0.4) / 0.2 * 0.2 + 0.4), drop).abs().mean()
    torch.testing.assert_close(method(batch(), step()).value, want)


def test_what_is_said_does_not_depend_on_hidden_pixels_but_on_seen_ones():
    method = build()
    x = batch().x["image"]
    hidden = where_hidden(method.config.mask(len(x), (4, 4), step().rng))
    tokenizer = method.encoder.tokenizer
    patches = tokenizer.patches(x)
    said = method.features(x, hidden)
    other = tokenizer.unpatch(torch.where(hidden[..., None], 1 - patches, patches), (4, 4))
    torch.testing.assert_close(method.features(other, hidden), said)
    other = tokenizer.unpatch(torch.where(hidden[..., None], patches, 1 - patches), (4, 4))
    assert not torch.allclose(method.features(other, hidden)[hidden], said[hidden])


def test_units_of_the_paper_are_32_pixels():
    hidden = where_hidden(simmim.Config().mask(4, (14, 14), Rng(0)))  # 224 pixels in patches of 16
    unit = hidden.view(4, 7, 2, 7, 2)
    assert torch.equal(unit, unit[:, :, :1, :, :1].expand_as(unit))
    assert (hidden.sum(1) == int(49 * 0.6) * 4).all()


def test_padding_never_counts():
    method = build(mask=RandomMask(0.5))
    method.config = replace(method.config, view=lambda x, rng: x)
    values = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    extent = torch.tensor([[16, 16], [8, 16], [16, 4]])
    inside = (torch.arange(16) < extent[:, :1])[:, :, None] & (torch.arange(16) < extent[:, 1:])[:, None]
    garbage = torch.where(inside[:, None], values, torch.full_like(values, 77.0))
    a, b = (method(Batch({"image": Ragged(v, extent)}), step()).value for v in (values, garbage))
    torch.testing.assert_close(a, b)

    nn.init.zeros_(method.to_patch.weight)
    nn.init.zeros_(method.to_patch.bias)
    x = Ragged(values, extent)
    valid = method.encoder.tokenizer.valid(x)
    hidden = where_hidden(method.config.mask(3, (4, 4), step().rng, valid)) & valid
    want = method.encoder.tokenizer.patches(x)[hidden].abs().mean()
    torch.testing.assert_close(method(Batch({"image": x}), step()).value, want)


@dataclass(frozen=True)
class Given:
    """Another mask for every sample."""

    hidden: Tensor

    def __call__(self, b: int, grid: tuple[int, ...], rng: Rng, valid: Tensor | None = None) -> Mask:
        return hide(self.hidden.float(), int(self.hidden[0].sum()), valid)


@pytest.mark.filterwarnings("default")  # the reference's imports may warn; that is its own affair
def test_it_equals_the_reference_from_the_same_weights():
    reference = pytest.importorskip("transformers.models.vit")
    torch.manual_seed(0)
    theirs = reference.ViTForMaskedImageModeling(
        reference.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
            patch_size=8, encoder_stride=8, layer_norm_eps=1e-12,
        )
    ).eval()  # fmt: skip
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.2)
    hidden = where_hidden(hide(torch.rand(5, 16), 9))
    encoder = TokenEncoderConfig(
        tokenizer=GridTokenizerConfig(modality="image", channels=3, patch=(8, 8)),
        trunk=TransformerConfig(dim=32, depth=2, heads=2, mlp_ratio=2.0, eps=1e-12),
        position="learned",
        grid=(4, 4),
        class_token=True,
    ).build()
    method = simmim.Config(view=CentreCrop(32, 1.0), mask=Given(hidden)).build({"image": encoder}).eval()
    with torch.no_grad():
        embeddings = theirs.vit.embeddings
        carry_patches(embeddings.patch_embeddings.projection, encoder.tokenizer.embed)
        carry_blocks(theirs.vit.layers, encoder.trunk.blocks)
        encoder.trunk.norm.load_state_dict(theirs.vit.layernorm.state_dict())
        encoder.prefix.copy_(embeddings.cls_token[0] + embeddings.position_embeddings[0, :1])
        encoder.table.table.copy_(embeddings.position_embeddings[:, 1:])
        method.mask_token.copy_(embeddings.mask_token[0, 0])
        head = theirs.decoder[0]  # a 1 x 1 convolution before a pixel shuffle: channel, row, column
        method.to_patch.weight.copy_(head.weight.view(3, 8, 8, 32).permute(1, 2, 0, 3).reshape(192, 32))
        method.to_patch.bias.copy_(head.bias.view(3, 8, 8).permute(1, 2, 0).flatten())

    x = torch.rand(5, 3, 32, 32)
    want = theirs(pixel_values=x, bool_masked_pos=hidden)
    said = encoder.tokenizer.unpatch(method.to_patch(method.features(x, hidden)), (4, 4))
    torch.testing.assert_close(said, want.reconstruction, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(method(Batch({"image": x}), Step(Rng(0))).value, want.loss, rtol=1e-5, atol=0)
