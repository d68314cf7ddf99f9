import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Ragged, alone
from headwater.core.verbs import Encoder
from headwater.methods.align import clip
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.losses import info_nce
from headwater.parts.tokens import GridTokenizerConfig, TextTokenizerConfig
from headwater.parts.transformer import Transformer, TransformerConfig
from headwater.parts.views import CentreCrop
from tests.small import batch, step, text, vit

END = 39


def towers() -> dict[str, Encoder]:
    """Both towers as published, small: a class token read after a first layer norm; causal text read at its end."""
    image = TransformerConfig(dim=32, depth=2, heads=4, activation="quick-gelu", eps=1e-5)
    words = TransformerConfig(dim=24, depth=2, heads=3, activation="quick-gelu", eps=1e-5, causal=True)
    patches = GridTokenizerConfig(modality="image", channels=3, patch=(4, 4))
    learned = {"position": "learned"}
    return {
        "image": TokenEncoderConfig(
            tokenizer=patches, trunk=image, grid=(4, 4), class_token=True, input_norm=True, pool="class", **learned
        ).build(),
        "text": TokenEncoderConfig(
            tokenizer=TextTokenizerConfig(vocabulary=40), trunk=words, grid=(10,), pool="last", **learned
        ).build(),
    }


def build(**changes: object) -> clip.CLIP:
    torch.manual_seed(0)
    config = {"view": CentreCrop(16, 1.0), "dim": 16, **changes}
    return clip.Config(**config).build(towers())


def pairs(b: int = 6) -> Batch:
    g = torch.Generator().manual_seed(3)
    extent = torch.randint(3, 10, (b, 1), generator=g)
    ids = torch.randint(0, END, (b, 10), generator=g).scatter(1, extent - 1, END)
    return Batch({"image": torch.rand(b, 3, 16, 16, generator=g), "text": Ragged(ids, extent)})


def test_equal_features_cost_exactly_the_logarithm_of_the_batch():
    same = torch.randn(1, 4).expand(7, 4)
    assert float(info_nce(same, same, 10.0, alone)) == pytest.approx(math.log(7), abs=1e-6)


def test_towers_may_change_places_and_lengths_do_not_matter():
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(info_nce(a, b, 5.0, alone), info_nce(b, a, 5.0, alone))
    torch.testing.assert_close(info_nce(7 * a, 0.1 * b, 5.0, alone), info_nce(a, b, 5.0, alone))


def test_the_gradient_has_its_closed_form():
    n, scale = 5, torch.tensor(4.0, requires_grad=True)
    a, b = F.normalize(torch.randn(n, 3), dim=1).requires_grad_(), F.normalize(torch.randn(n, 3), dim=1)
    info_nce(a, b, scale, alone).backward()
    with torch.no_grad():
        cosine = a @ b.T
        by_logit = ((4 * cosine).softmax(1) + (4 * cosine).softmax(0) - 2 * torch.eye(n)) / (2 * n)
        slope = 4 * by_logit @ b
        along = slope - (slope * a).sum(1, keepdim=True) * a  # unit vectors cannot grow
        torch.testing.assert_close(a.grad, along)
        torch.testing.assert_close(scale.grad, (by_logit * cosine).sum())


def test_what_follows_the_end_token_does_not_matter():
    method, x = build(), pairs().x["text"]
    other = Ragged(torch.where(torch.arange(10) < x.extent, x.values, 7), x.extent)
    assert not torch.equal(other.values, x.values)
    assert torch.equal(method.embed("text", other), method.embed("text", x))


def test_the_text_tower_reads_from_left_to_right():
    method, ids = build(), pairs().x["text"].values
    changed = ids.clone()
    changed[:, 5:] = 7
    before, after = (method.towers["text"](v).tokens for v in (ids, changed))
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])


def test_a_text_means_the_same_alone_and_beside_longer_ones():
    method, x = build().eval(), pairs().x["text"]
    shortest = int(x.extent.argmin())
    n = int(x.extent[shortest])
    alone_ = method.embed("text", x.values[shortest : shortest + 1, :n])
    torch.testing.assert_close(alone_[0], method.embed("text", x)[shortest], atol=1e-5, rtol=1e-5)
    with pytest.raises(RequestError, match="at most"):
        method.embed("text", torch.zeros(1, 11, dtype=torch.long))


@pytest.mark.parametrize("start", [-3.0, 4.7, 50.0])
def test_the_scale_never_exceeds_its_limit(start):
    method = build()
    with torch.no_grad():
        method.log_scale.fill_(start)
    method.after_step(step(), {})
    assert float(method.log_scale.exp().detach()) <= 100
    assert float(method.log_scale.detach()) == pytest.approx(min(start, math.log(100)), abs=1e-5)


def test_the_scale_starts_at_one_over_the_temperature_and_learns():
    method = build()
    assert float(method.log_scale.detach()) == pytest.approx(2.6593, abs=1e-4)
    method(pairs(), step()).value.backward()
    assert method.log_scale.ndim == 0 and method.log_scale.grad.abs() > 0  # a scalar: no weight decay


def test_both_towers_are_handed_on():
    method = build()
    assert set(method.encoders()) == {"image", "text"}
    assert all(e is method.towers[m] for m, e in method.encoders().items())


def test_predict_gives_scaled_cosines():
    method = build().eval()
    a, b = (method.embed(m, pairs().x[m]) for m in ("image", "text"))
    torch.testing.assert_close(method.predict(pairs(), step()), a @ b.T / 0.07)


def test_the_classifier_averages_prompts_of_length_one_and_makes_the_mean_so():
    method = build().eval()
    prompts = [torch.randint(0, END, (3, 6), generator=torch.Generator().manual_seed(c)) for c in range(4)]
    rows = method.classifier("text", prompts)
    for row, prompt in zip(rows, prompts, strict=True):
        each = [method.maps["text"](method.towers["text"](prompt[i : i + 1]).pooled)[0] for i in range(3)]
        mean = sum(v / v.norm() for v in each) / 3
        torch.testing.assert_close(row, mean / mean.norm())
    scores = method.embed("image", pairs().x["image"]) @ rows.T
    assert scores.shape == (6, 4) and scores.abs().max() <= 1 + 1e-6


def test_two_modalities_are_needed_and_the_viewed_one_must_be_among_them():
    with pytest.raises(RequestError, match="two modalities; got 1: image"):
        clip.TINY.build({"image": vit()})
    with pytest.raises(RequestError, match="viewed_modality is 'audio'"):
        clip.Config(viewed_modality="audio").build({"image": vit(), "text": text()})
    assert clip.TINY.build({"image": vit(), "text": text()})(batch(), step()).value.isfinite()


def carry(theirs: nn.Module, ours: Transformer, last: nn.LayerNorm) -> None:
    """Weights of a CLIP encoder of `transformers` into a trunk."""
    for their, our in zip(theirs.layers, ours.blocks, strict=True):
        attention = their.self_attn
        maps = [attention.q_proj, attention.k_proj, attention.v_proj]
        our.attention.qkv.weight.copy_(torch.cat([m.weight for m in maps]))
        our.attention.qkv.bias.copy_(torch.cat([m.bias for m in maps]))
        same = [(attention.out_proj, our.attention.out), (their.layer_norm1, our.norm1), (their.layer_norm2, our.norm2)]
        for a, b in [*same, (their.mlp.fc1, our.mlp[0]), (their.mlp.fc2, our.mlp[2])]:
            b.load_state_dict(a.state_dict())
    ours.norm.load_state_dict(last.state_dict())


def reference() -> tuple[nn.Module, clip.CLIP]:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(1)
    shared = {"num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
    words = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "vocab_size": 40}
    words |= {"max_position_embeddings": 10, "eos_token_id": END, "bos_token_id": 0, "pad_token_id": 1}
    config = hf.CLIPConfig(text_config=words | shared, vision_config=vision | shared, projection_dim=16)
    theirs, ours = hf.CLIPModel(config).eval(), build().eval()
    with torch.no_grad():
        for weight in theirs.parameters():  # so that no bias, norm or position is zero or one
            weight.add_(0.1 * torch.randn_like(weight))
        image, told = ours.towers["image"], theirs.vision_model
        place = told.embeddings.position_embedding.weight
        image.tokenizer.embed.weight.copy_(told.embeddings.patch_embedding.weight.permute(0, 2, 3, 1).flatten(1))
        image.tokenizer.embed.bias.zero_()  # the reference has none
        image.prefix.copy_(told.embeddings.class_embedding + place[:1])
        image.table.table.copy_(place[None, 1:])
        image.input_norm.load_state_dict(told.pre_layrnorm.state_dict())
        carry(told.encoder, image.trunk, told.post_layernorm)
        words_, told = ours.towers["text"], theirs.text_model
        words_.tokenizer.embed.weight.copy_(told.embeddings.token_embedding.weight)
        words_.table.table.copy_(told.embeddings.position_embedding.weight[None])
        carry(told.encoder, words_.trunk, told.final_layer_norm)
        ours.maps["image"].load_state_dict(theirs.visual_projection.state_dict())
        ours.maps["text"].load_state_dict(theirs.text_projection.state_dict())
        ours.log_scale.copy_(theirs.logit_scale)
    return theirs, ours


def test_it_equals_the_clip_of_transformers():
    theirs, ours = reference()
    x = pairs()
    out = theirs(input_ids=x.x["text"].values, pixel_values=x.x["image"], return_loss=True)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ours.embed("image", x.x["image"]), out.image_embeds, **close)
    torch.testing.assert_close(ours.embed("text", x.x["text"]), out.text_embeds, **close)
    torch.testing.assert_close(ours.predict(x, step()), out.logits_per_image, **close)
    loss = ours(x, step()).value
    torch.testing.assert_close(loss, out.loss, **close)
    loss.backward()
    out.loss.backward()

    def same(a: Tensor | None, b: Tensor | None) -> None:
        assert a is not None and b is not None and a.abs().max() > 0
        torch.testing.assert_close(a, b, **close)

    same(ours.log_scale.grad, theirs.logit_scale.grad)
    same(ours.maps["text"].weight.grad, theirs.text_projection.weight.grad)
    same(ours.towers["text"].tokenizer.embed.weight.grad, theirs.text_model.embeddings.token_embedding.weight.grad)
    same(ours.towers["image"].table.table.grad[0], theirs.vision_model.embeddings.position_embedding.weight.grad[1:])
