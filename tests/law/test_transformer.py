"""The transformer against torch's own, and what its options promise."""

import pytest
import torch
from torch import nn

from headwater.core.errors import RequestError
from headwater.parts.transformer import DropPath, Transformer, TransformerConfig


def build(**changes: object) -> Transformer:
    torch.manual_seed(0)
    made = TransformerConfig(**{"dim": 16, "depth": 3, "heads": 4, **changes}).build()
    for p in made.parameters():  # nothing may be hidden by a weight that starts at zero or one
        nn.init.normal_(p, std=0.3)
    return made.eval()


def tokens(b: int = 3, n: int = 7) -> torch.Tensor:
    return torch.randn(b, n, 16, generator=torch.Generator().manual_seed(1))


def reference(ours: Transformer, activation: str) -> nn.TransformerEncoder:
    """torch's pre-norm encoder with our weights."""
    layer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, activation, 1e-6, batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 3, nn.LayerNorm(16, eps=1e-6), enable_nested_tensor=False)
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.qkv": "self_attn.in_proj",
        "attention.out": "self_attn.out_proj",
        "mlp.0": "linear1",
        "mlp.2": "linear2",
    }
    state = {f"norm.{k}": v for k, v in ours.norm.state_dict().items()}
    for i, block in enumerate(ours.blocks):
        for k, v in block.state_dict().items():
            part, leaf = k.rsplit(".", 1)
            glue = "_" if part == "attention.qkv" else "."
            state[f"layers.{i}.{names[part]}{glue}{leaf}"] = v
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("padded", [False, True])
def test_it_equals_torchs_own_from_the_same_weights(activation, padded):
    ours, x = build(activation=activation), tokens()
    valid = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    with torch.no_grad():
        want = reference(ours, activation)(x, src_key_padding_mask=~valid if padded else None)
        got = ours(x, valid if padded else None)
    real = valid if padded else torch.ones_like(valid)
    torch.testing.assert_close(got[real], want[real], rtol=1e-5, atol=1e-5)


def test_a_causal_one_equals_torchs_own():
    ours, x = build(causal=True), tokens()
    with torch.no_grad():
        want = reference(ours, "gelu")(x, mask=nn.Transformer.generate_square_subsequent_mask(7), is_causal=True)
        torch.testing.assert_close(ours(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_never_changes_what_is_real(causal):
    ours, x = build(causal=causal), tokens()
    valid = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    garbage = torch.where(valid[..., None], x, torch.full_like(x, 1e3))
    with torch.no_grad():
        got = ours(garbage, valid)
        torch.testing.assert_close(got[valid], ours(x, valid)[valid])
        for row, n in enumerate((7, 4, 2)):
            torch.testing.assert_close(got[row, :n], ours(x[row : row + 1, :n])[0], rtol=1e-5, atol=1e-5)


def test_a_sample_without_a_real_token_stays_finite():
    assert build()(tokens(), torch.zeros(3, 7, dtype=torch.bool)).isfinite().all()


def test_causal_outputs_do_not_see_what_comes_later():
    ours, x = build(causal=True), tokens()
    later = x.clone()
    later[:, 4:] = -x[:, 4:]
    with torch.no_grad():
        a, b = ours(x), ours(later)
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, 4:], b[:, 4:])


@pytest.mark.parametrize("changes", [{}, {"rotary": True}, {"causal": True}, {"layer_scale": 0.1, "qkv_bias": False}])
def test_the_trace_is_the_forward_pass_block_by_block(changes):
    ours, x = build(**changes), tokens()
    valid, place = torch.arange(7) < torch.tensor([7, 4, 2])[:, None], torch.arange(7.0).expand(3, -1)[..., None]
    taps = ours.trace(x, valid, place)
    assert len(taps) == 3
    torch.testing.assert_close(ours.norm(taps[-1].out), ours(x, valid, place))
    assert taps[0].q.shape == taps[0].k.shape == taps[0].v.shape == (3, 4, 7, 4)


def test_a_tap_holds_the_queries_keys_and_values_of_its_block():
    ours, x = build(), tokens()
    tap = ours.trace(x)[0]
    block = ours.blocks[0]
    weight = (tap.q @ tap.k.mT / 2).softmax(-1)  # heads of width 4
    mixed = block.attention.out((weight @ tap.v).transpose(1, 2).flatten(2))
    y = x + mixed
    torch.testing.assert_close(y + block.mlp(block.norm2(y)), tap.out, rtol=1e-5, atol=1e-5)


def test_rotary_attention_sees_differences_of_places_only():
    ours, x = build(rotary=True), tokens()
    place = torch.arange(7.0).expand(3, -1)[..., None]
    torch.testing.assert_close(ours(x, place=place), ours(x, place=place + 11), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(ours(x, place=place), ours(x, place=place.flip(1)), atol=1e-2)
    with pytest.raises(RequestError, match="needs the place"):
        ours(x)


def test_drop_path_keeps_the_expectation_and_drops_whole_samples():
    torch.manual_seed(0)
    drop, x = DropPath(0.25).train(), torch.ones(8000, 2, 3)
    out = drop(x)
    assert abs(float(out.mean()) - 1) < 0.04
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.03
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_grows_with_depth():
    rates = [getattr(b.drop_path, "rate", 0.0) for b in build(drop_path=0.2).blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_layer_scale_starts_small_and_of_zero_silences_the_branches():
    torch.manual_seed(0)
    ours = TransformerConfig(dim=16, depth=2, heads=2, layer_scale=1e-5).build()
    x = tokens()
    torch.testing.assert_close(ours(x), ours.norm(x), rtol=1e-3, atol=1e-3)
    assert sum("gamma" in n for n, _ in ours.named_parameters()) == 4
    for name, p in ours.named_parameters():
        if "gamma" in name:
            nn.init.ones_(p)
    assert not torch.allclose(ours(x), ours.norm(x), atol=1e-2)


def test_heads_must_divide_the_width():
    with pytest.raises(RequestError, match="does not divide into 3 heads"):
        TransformerConfig(dim=16, depth=1, heads=3)
