"""CRATE-MAE: its layers are the steps of optimisation that they are derived from."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch
from headwater.methods.reconstruct import crate_mae
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.crate import Crate, CrateConfig, SparseCode, SubspaceAttention
from headwater.parts.masks import where_hidden
from headwater.parts.positions import sincos
from headwater.parts.tokens import take
from headwater.parts.transformer import Block, TransformerConfig
from headwater.parts.views import CentreCrop
from tests.small import batch, crate, step, vit

CONFIG = CrateConfig(dim=16, depth=3, heads=4)


def drawn(module: nn.Module) -> nn.Module:
    """With weights of which none is zero or one, so that none can be left out unseen."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(seed))


def build(**changes: object) -> crate_mae.CrateMAE:
    torch.manual_seed(0)
    config = replace(crate_mae.TINY, view=CentreCrop(16, 1.0), **changes)
    method = config.build({"image": crate()})
    drawn(method.decoder)
    return method


def test_attention_is_that_of_one_map_for_queries_keys_and_values():
    torch.manual_seed(0)
    ours = drawn(SubspaceAttention(CONFIG))
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.subspaces.weight.repeat(3, 1))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = tokens()
    w = ours.split(x)
    torch.testing.assert_close(ours.mix(w, None), theirs(x, x, x)[0], rtol=1e-4, atol=1e-5)
    products = w @ w.mT
    torch.testing.assert_close(products, products.mT)


@pytest.mark.parametrize("orthonormal", [False, True])
def test_a_code_is_one_proximal_gradient_step_on_the_sparse_coding_problem(orthonormal):
    torch.manual_seed(0)
    layer = SparseCode(replace(CONFIG, step=0.3, penalty=0.7))
    if orthonormal:
        nn.init.orthogonal_(layer.dictionary)
    u = tokens()
    z = u.clone().requires_grad_(True)
    misfit = (z @ layer.dictionary.T - u).square().sum() / 2  # column by column, D z - u
    (slope,) = torch.autograd.grad(misfit, z)
    want = (u - 0.3 * slope - 0.3 * 0.7).clamp(min=0)  # the proximal map of 0.3 * 0.7 |z|_1 over z >= 0
    torch.testing.assert_close(layer(u), want, rtol=1e-4, atol=1e-5)
    if orthonormal:
        torch.testing.assert_close(
            layer(u), (0.7 * u + 0.3 * u @ layer.dictionary - 0.21).clamp(min=0), rtol=1e-4, atol=1e-5
        )


def test_what_a_layer_says_is_not_negative_and_without_a_step_is_the_positive_half():
    trunk = drawn(CONFIG.build())
    assert all((tap.out >= 0).all() and (tap.out == 0).any() for tap in trunk.trace(tokens()))
    block = drawn(replace(CONFIG, step=0.0, penalty=0.0).build()).blocks[0]
    x = tokens()
    y = x + block.attention.mix(block.attention.split(block.norm1(x)), None)
    torch.testing.assert_close(block(x, None).out, F.relu(block.norm2(y)))


def test_a_higher_penalty_leaves_fewer_units():
    def zeros(penalty: float) -> float:
        torch.manual_seed(0)
        trunk = replace(CONFIG, dim=64, penalty=penalty).build()
        x = torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(1))
        return float(torch.stack([(tap.out == 0).float().mean() for tap in trunk.trace(x)]).mean())

    assert zeros(0.1) > 0.4
    assert zeros(2.0) > zeros(0.1) + 0.05


def test_a_layer_has_a_quarter_of_the_weights_of_a_transformers():
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    ours = count(CrateConfig(dim=64, depth=1, heads=4).build().blocks[0])
    assert ours == 3 * 64**2 + 64 + 4 * 64 == 12608
    assert ours < 0.26 * count(Block(TransformerConfig(dim=64, depth=1, heads=4), 0.0))


def test_a_decoding_layer_takes_away_what_attention_says():
    config = replace(CONFIG, decoding=True)
    torch.manual_seed(0)
    block = drawn(config.build()).blocks[0]
    x = tokens()
    v = F.layer_norm(x, (16,), block.norm1.weight, block.norm1.bias, 1e-5) @ block.uncode.T
    said = block.attention.mix(block.attention.split(block.norm2(v)), None)
    torch.testing.assert_close(block(x, None).out, v - said)
    assert not torch.allclose(v - said, v + said, atol=0.1)
    nn.init.zeros_(block.attention.subspaces.weight)
    nn.init.zeros_(block.attention.out.bias)
    torch.testing.assert_close(block(x, None).out, v)  # nothing but linear maps is left


def test_all_places_are_encoded_and_hidden_pixels_change_nothing():
    method = build()
    x = batch().x["image"]
    tokenizer = method.encoder.tokenizer
    mask = method.config.mask(len(x), (4, 4), step().rng)
    entered: list[Tensor] = []
    method.encoder.trunk.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    patches = tokenizer.patches(x)
    noise = torch.randn(len(x), mask.drop.shape[1], 48, generator=torch.Generator().manual_seed(5))
    other = tokenizer.unpatch(patches.scatter(1, mask.drop[..., None].expand_as(noise), noise), (4, 4))

    assert mask.keep.shape == (8, 4)
    for picture in (x, other):
        method(Batch({"image": picture}), step())
    torch.testing.assert_close(*entered)
    assert entered[0].shape == (8, 17, 16)
    hidden = (
        entered[0][:, 1:][where_hidden(mask)] - sincos(tokenizer.places(x), 16).expand(8, -1, -1)[where_hidden(mask)]
    )
    torch.testing.assert_close(hidden, method.mask_token.expand_as(hidden))


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


def test_the_decoder_is_as_deep_and_wide_as_the_encoder():
    method = build()
    ours, theirs = method.encoder.trunk, method.decoder
    assert isinstance(ours, Crate)
    assert (len(ours.blocks), ours.config.dim) == (len(theirs.blocks), theirs.config.dim)
    assert theirs.config == replace(ours.config, decoding=True)


def test_gradient_goes_through_both():
    method = build()
    method(Batch(x=batch().x), step()).value.backward()
    assert method.encoder.trunk.blocks[0].code.dictionary.grad.abs().sum() > 0
    assert method.decoder.blocks[0].uncode.grad.abs().sum() > 0


def test_another_encoder_is_refused_and_its_own_is_known_by_name():
    with pytest.raises(RequestError, match="--encoder crate-micro"):
        crate_mae.TINY.build({"image": vit()})
    made = named("crate-tiny/8", "image", {"channels": 3, "size": (64, 64)})
    assert from_json(to_json(made)) == made
    assert made.trunk == CrateConfig(dim=384, depth=12, heads=6)
    with pytest.raises(RequestError, match="plain transformer"):
        replace(made, relative="blocks", grid=(8, 8))
