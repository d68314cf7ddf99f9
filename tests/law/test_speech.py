"""Encoders of speech: convolutional positions, and the Conformer, equal to its reference; padding reaches neither."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, Step
from headwater.methods.agree import simclr
from headwater.methods.reconstruct import mae, simmim
from headwater.parts.architectures import from_json, named, to_json
from headwater.parts.conformer import Conformer, ConformerBlock, ConformerConfig, distances
from headwater.parts.encoders import TokenwiseEncoder
from headwater.parts.speech import ConvPositions, SpeechEncoderConfig
from headwater.parts.tokens import SpectrogramTokenizerConfig, WaveTokenizerConfig
from headwater.parts.transformer import TransformerConfig
from headwater.parts.views.kit import audio as kit

RATE = 8000
FRAMES = SpectrogramTokenizerConfig(rate=RATE, mels=32, patch=(4, 32))
WAVE = WaveTokenizerConfig(rate=RATE, width=16)
TRUNK = TransformerConfig(dim=16, depth=2, heads=2)
ENCODERS: dict[str, Any] = {
    "positions, pre": SpeechEncoderConfig(tokenizer=FRAMES, trunk=TRUNK, kernel=4, groups=4),
    "positions, post": SpeechEncoderConfig(tokenizer=WAVE, trunk=replace(TRUNK, norm="post"), kernel=5, groups=4),
    "conformer": ConformerConfig(tokenizer=FRAMES, dim=16, depth=2, heads=2, kernel=5),
    "conformer, layer norm": ConformerConfig(tokenizer=WAVE, dim=16, depth=2, heads=2, kernel=3, norm="layer"),
}


def built(name: str) -> TokenwiseEncoder:
    """With all weights drawn anew, so that none is zero or one."""
    torch.manual_seed(0)
    encoder: TokenwiseEncoder = ENCODERS[name].build()
    redrawn(encoder)
    return encoder


def redrawn(module: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    for key, value in module.state_dict().items():
        if value.is_floating_point() and "normalise" not in key:
            value.add_(0.1 * torch.randn(value.shape, generator=g)).copy_(
                value.abs() if "running_var" in key else value
            )


def noise(b: int = 3, t: int = 4000) -> Tensor:
    return torch.randn(b, 1, t, generator=torch.Generator().manual_seed(0))


def ragged(junk: float = 0.0) -> Ragged:
    extent = torch.tensor([[4000], [2500], [900]])
    return Ragged(torch.where((torch.arange(4000) < extent)[:, None], noise(), junk), extent)


@pytest.mark.parametrize("seen", [None, torch.tensor([[True] * 9, [True] * 5 + [False] * 4])])
def test_a_conformer_block_is_that_of_transformers(seen: Tensor | None) -> None:
    conformer = pytest.importorskip("transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer")
    from transformers import Wav2Vec2ConformerConfig

    theirs_config = Wav2Vec2ConformerConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_act="swish",
        conv_depthwise_kernel_size=5,
        position_embeddings_type="relative",
    )
    theirs_config._attn_implementation = "eager"
    theirs = conformer.Wav2Vec2ConformerEncoderLayer(theirs_config).eval()
    redrawn(theirs)
    ours = ConformerBlock(replace(ENCODERS["conformer"])).eval()
    theirs_attention, theirs_conv = theirs.self_attn, theirs.conv_module
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (ours.before[0], theirs.ffn1_layer_norm),
        (ours.before[1], theirs.ffn1.intermediate_dense),
        (ours.before[3], theirs.ffn1.output_dense),
        (ours.after[0], theirs.ffn2_layer_norm),
        (ours.after[1], theirs.ffn2.intermediate_dense),
        (ours.after[3], theirs.ffn2.output_dense),
        (ours.attention.norm, theirs.self_attn_layer_norm),
        (ours.attention.out, theirs_attention.linear_out),
        (ours.attention.far, theirs_attention.linear_pos),
        (ours.convolution.norm, theirs_conv.layer_norm),
        (ours.convolution.deep, theirs_conv.depthwise_conv),
        (ours.convolution.inner, theirs_conv.batch_norm),
        (ours.norm, theirs.final_layer_norm),
    ]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    three = (theirs_attention.linear_q, theirs_attention.linear_k, theirs_attention.linear_v)
    with torch.no_grad():
        ours.attention.qkv.weight.copy_(torch.cat([m.weight for m in three]))
        ours.attention.qkv.bias.copy_(torch.cat([m.bias for m in three]))
        ours.attention.to_content.copy_(theirs_attention.pos_bias_u[:, None])
        ours.attention.to_distance.copy_(theirs_attention.pos_bias_v[:, None])
        ours.convolution.widen.weight.copy_(theirs_conv.pointwise_conv1.weight[..., 0])
        ours.convolution.out.weight.copy_(theirs_conv.pointwise_conv2.weight[..., 0])
        x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
        places = conformer.Wav2Vec2ConformerRelPositionalEmbedding(theirs_config)(x)
        torch.testing.assert_close(distances(9, 16, x), places[0], rtol=1e-5, atol=1e-6)
        mask = None if seen is None else torch.zeros(2, 1, 1, 9).masked_fill(~seen[:, None, None], -torch.inf)
        want = theirs(x, attention_mask=mask, relative_position_embeddings=places)
        # their convolution hears padding, ours does not: those tokens are compared that its 2 neighbours do not reach
        clear = slice(None) if seen is None else seen & later(seen, 2)
        found = ours(x, seen, distances(9, 16, x))
        torch.testing.assert_close(found[clear], want[clear], rtol=1e-5, atol=1e-5)


def later(seen: Tensor, n: int) -> Tensor:
    """True where the n-th token to the right is real too, or the sample has no padding."""
    return torch.cat([seen[:, n:], seen[:, -1:].expand(-1, n)], 1)


def test_positions_are_those_of_a_convolution_with_weight_norm() -> None:
    ours = ConvPositions(16, 6, 4)
    redrawn(ours)
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 6, padding=3, groups=4), dim=2)
    theirs.load_state_dict(
        {
            "bias": ours.bias,
            "parametrizations.weight.original0": ours.gain,
            "parametrizations.weight.original1": ours.direction,
        }
    )
    x = torch.randn(2, 9, 16)
    want = nn.functional.gelu(theirs(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
    torch.testing.assert_close(ours(x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_neither_padding_nor_what_lies_there_changes_a_token(name: str) -> None:
    encoder = built(name).eval()
    with torch.no_grad():
        together, junk = encoder(ragged()), encoder(ragged(99.0))
        assert together.valid is not None
        torch.testing.assert_close(junk.tokens[together.valid], together.tokens[together.valid])
        for i, n in enumerate(ragged().extent[:, 0]):
            alone = encoder(ragged().values[i : i + 1, :, :n])
            torch.testing.assert_close(alone.tokens[0], together.tokens[i][together.valid[i]], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone.pooled[0], together.pooled[i], rtol=1e-4, atol=1e-5)


def test_statistics_of_batch_norm_are_of_real_tokens() -> None:
    a, b = built("conformer").train(), built("conformer").train()
    a(ragged())
    b(ragged(99.0))
    assert isinstance(a, Conformer)
    assert isinstance(b, Conformer)
    for one, other in zip(a.blocks, b.blocks, strict=True):
        torch.testing.assert_close(one.convolution.inner.running_var, other.convolution.inner.running_var)
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    seen = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    conv = a.blocks[0].convolution
    conv.inner.momentum = 1.0
    caught: list[Tensor] = []
    conv.deep.register_forward_hook(lambda m, i, o: caught.append(o.transpose(1, 2)))
    conv(x, seen)
    torch.testing.assert_close(conv.inner.running_mean, caught[0][seen].mean(0))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("x", ["dense", "ragged"])
def test_what_is_not_kept_or_is_hidden_is_not_heard(name: str, x: str) -> None:
    encoder = built(name).eval()
    sound = noise() if x == "dense" else ragged()
    (n,) = encoder.tokenizer.grid(sound)
    tokens = encoder.tokenizer(sound)
    keep = torch.tensor([[0, 2, 3], [3, 1, 0], [1, 2, 0]])
    dropped = torch.ones(3, n, dtype=torch.bool).scatter(1, keep, False)
    stand_in = torch.ones(16)

    def changed(module: nn.Module, given: Any, out: Any) -> Any:
        return replace(out, x=torch.where(dropped[..., None], 7.0, out.x))

    with torch.no_grad():
        kept, hidden = encoder(sound, keep), encoder(sound, hidden=dropped, stand_in=stand_in)
        assert kept.tokens.shape == (3, 3, 16)
        assert hidden.tokens.shape == tokens.x.shape
        handle = encoder.tokenizer.register_forward_hook(changed)
        kept_too, hidden_too = encoder(sound, keep), encoder(sound, hidden=dropped, stand_in=stand_in)
        plain = encoder(sound)
        handle.remove()
        torch.testing.assert_close(kept_too.tokens, kept.tokens)
        torch.testing.assert_close(kept_too.pooled, kept.pooled)
        torch.testing.assert_close(hidden_too.tokens, hidden.tokens)
        assert not torch.allclose(plain.pooled, encoder(sound).pooled)
        # every token kept, in another order, says the same as all of them
        order = torch.arange(n).flip(0).expand(3, -1)
        torch.testing.assert_close(encoder(sound, order).pooled, encoder(sound).pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_order_matters(name: str) -> None:
    encoder = built(name).eval()
    with torch.no_grad():
        before = encoder(noise(t=1500)).pooled
        encoder.tokenizer.register_forward_hook(lambda m, i, out: replace(out, x=out.x.roll(1, 1)))
        assert not torch.allclose(encoder(noise(t=1500)).pooled, before, atol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("module", [mae, simmim, simclr])
def test_padding_changes_no_loss_and_every_weight_learns(name: str, module: Any) -> None:
    torch.manual_seed(0)
    views = kit(RATE)
    config = module.TINY.viewed(replace(views, weak=lambda x, rng: x, strong=views.strong))
    method = config.build({"audio": ENCODERS[name].build()})
    a, b = (method.loss(Batch({"audio": x}), Step(Rng(0))).value for x in (ragged(), ragged(99.0)))
    torch.testing.assert_close(a, b)
    a.backward()
    without = [k for k, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_sizes_by_name_are_those_of_the_papers() -> None:
    facts = {"rate": 16000, "channels": 1, "length": 16000 * 10}
    t = pytest.importorskip("transformers")
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
        Wav2Vec2ConformerEncoderLayer as Layer,
    )

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    stable = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    with torch.device("meta"):
        for name, settings in (("base", {}), ("large", large | stable)):
            theirs = t.Wav2Vec2Model(t.Wav2Vec2Config(**settings, mask_time_prob=0.0))
            assert count(named(f"wav2vec2-{name}", "audio", facts).build()) == count(theirs)
        for name, dim, depth, most in (
            ("small", 144, 16, 10.3e6),
            ("medium", 256, 16, 30.7e6),
            ("large", 512, 17, 118.8e6),
        ):
            ours = named(f"conformer-{name}", "audio", facts).build()
            settings = {"hidden_size": dim, "intermediate_size": 4 * dim, "conv_depthwise_kernel_size": 31}
            layer = Layer(
                t.Wav2Vec2ConformerConfig(**settings, num_attention_heads=4, position_embeddings_type="relative")
            )
            assert count(ours) - count(ours.tokenizer) == depth * count(layer)
            assert 0.75 * most < count(ours) < most  # the paper counts a decoder too
    assert named("conformer-micro/8", "audio", facts).tokenizer.patch == (8, 128)
    assert isinstance(named("conformer-micro/wave", "audio", facts).tokenizer, WaveTokenizerConfig)
    for name in ENCODERS:
        assert from_json(to_json(ENCODERS[name])) == ENCODERS[name]


def test_what_does_not_fit_is_said() -> None:
    facts = {"rate": 16000, "channels": 1, "length": 16000}
    with pytest.raises(RequestError, match="reads sounds; images need one such as vit-micro"):
        named("conformer-micro", "image", {"size": (8, 8), "channels": 3})
    with pytest.raises(RequestError, match="takes no patch"):
        named("wav2vec2-micro/4", "audio", facts)
    with pytest.raises(RequestError, match=r"tokens that stand in a row.*Spectrogram"):
        ConformerConfig(tokenizer=SpectrogramTokenizerConfig(rate=RATE)).build()
    with pytest.raises(RequestError, match="odd number of tokens; got 4"):
        ConformerConfig(tokenizer=FRAMES, kernel=4)
    with pytest.raises(RequestError, match="16 does not divide into 5 groups"):
        SpeechEncoderConfig(tokenizer=FRAMES, trunk=TRUNK, groups=5)


@pytest.mark.parametrize("name", ["conformer-micro", "wav2vec2-micro"])
def test_a_run_learns_with_it_and_its_artefact_is_read_again(name: str, tmp_path: Path) -> None:
    run = hw.pretrain("simmim", "tones", out=tmp_path / "run", steps=2, batch_size=4, encoder=name)
    x = noise(2, 3000)
    again = hw.load(tmp_path / "run")
    assert torch.equal(again(x).pooled, run.encoder(x).pooled)
    assert again.card.preprocessing["read"]["rate"] == RATE
