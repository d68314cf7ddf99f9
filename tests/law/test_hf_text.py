"""T5 and the text towers of CLIP and SigLIP: equal outputs from shared random weights, and equal bits on the way back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.types import Ragged
from headwater.data.text import Texts
from headwater.interop import huggingface as hf
from headwater.interop.huggingface import t5
from tests.law.huggingface import relative, round_trip, written

t = pytest.importorskip("transformers")
T5 = {"d_model": 16, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2, "vocab_size": 40}
FAR = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10, "decoder_start_token_id": 0}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
WORDS = {**SIZES, "vocab_size": 40, "max_position_embeddings": 21, "bos_token_id": 3}
PICTURE = {**SIZES, "image_size": 16, "patch_size": 4}
VERSIONS = {
    "1.0": {"feed_forward_proj": "relu"},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "ul2": {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
}


def sentences(pad: int = 0, n: int = 21) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, which of them are real, and how many."""
    ids = torch.randint(4, 38, (3, n), generator=torch.Generator().manual_seed(5))
    extent = torch.tensor([[n], [9], [1]])
    real = torch.arange(n) < extent
    return torch.where(real, ids, pad), real, extent


def both_halves(version: str, at: Path) -> Any:
    """1.0 ties its words and its head; what came later does not, which this library builds tied and reads untied."""
    made = t.T5ForConditionalGeneration(t.T5Config(**T5, **FAR, **VERSIONS[version]))
    if version != "1.0":
        made.lm_head.weight = torch.nn.Parameter(torch.randn(40, 16))
    made.shared.weight.data.mul_(0.1)  # so that a tied head does not just say the last word again
    written(made, at)
    assert made.config.scale_decoder_outputs == (version == "1.0")
    assert ("lm_head.weight" in load_file(at / "model.safetensors")) == (version != "1.0")
    return made


@pytest.mark.parametrize("kind", ["1.0", "1.1", "ul2", "mt5"])
def test_t5_reads_texts_of_unequal_length_alike(kind: str, tmp_path: Path) -> None:
    if kind == "mt5":
        model = t.MT5EncoderModel(t.MT5Config(**T5))
    else:
        model = t.T5EncoderModel(t.T5Config(**T5, **FAR, **VERSIONS[kind]))
    encoder = hw.load(f"hf:{written(model, tmp_path / 'theirs')}", modality="text")
    assert encoder.card.provenance["model_type"] == ("mt5" if kind == "mt5" else "t5")
    ids, real, extent = sentences()
    with torch.no_grad():
        for given, x in ((real.long(), Ragged(ids, extent)), (None, ids)):
            tokens, found = model(ids, attention_mask=given).last_hidden_state, encoder(x)
            seen = real if given is not None else torch.ones_like(real)
            assert relative(found.tokens[seen], tokens[seen]) <= 1e-5
            mean = (tokens * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
            assert relative(found.pooled, mean) <= 1e-5
        if kind != "mt5":  # whose encoder is one of T5, and is written as such
            loaded = hf.load(tmp_path / "theirs")
            assert loaded is not None
            again, missing = round_trip(loaded, model, tmp_path / "ours")
            assert not missing
            assert torch.equal(again(ids).last_hidden_state, model(ids).last_hidden_state)


@pytest.mark.parametrize("version", VERSIONS)
def test_t5_writes_what_the_reference_writes(version: str, tmp_path: Path) -> None:
    model = both_halves(version, tmp_path)
    encoder = hw.load(f"hf:{tmp_path}").encoder
    decoder = t5.decoder(json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors"))
    assert (decoder.head is None, decoder.config.scaled) == ((True, True) if version == "1.0" else (False, False))
    ids, real, extent = sentences()
    labels = torch.randint(4, 38, (3, 15), generator=torch.Generator().manual_seed(6))
    labels[1, 9:] = -100
    words = encoder.tokenizer.embed.weight
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=real.long(), labels=labels)
        memory = encoder(Ragged(ids, extent))
        logits = decoder(labels, memory, words)
        assert relative(logits, want.logits) <= 1e-5
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        assert abs(float(loss - want.loss)) <= 1e-5 * float(want.loss)

        asked = {
            "input_ids": ids,
            "attention_mask": real.long(),
            "max_new_tokens": 30,
            "do_sample": False,
            "use_cache": False,
        }
        free = model.generate(**asked, eos_token_id=39)[:, 1:]
        end = list(dict.fromkeys(free[0].tolist()))[-1]  # so that the first text ends on its way
        want = model.generate(**asked, eos_token_id=end)[:, 1:]
        settings = json.loads((tmp_path / "config.json").read_text()) | {"eos_token_id": end}
        decoder = t5.decoder(settings, load_file(tmp_path / "model.safetensors"))
        found = decoder.generate(memory, words, 30)
    assert torch.equal(found.values, want)
    assert [row.tolist().index(end) + 1 if end in row else 30 for row in want] == found.extent[:, 0].tolist()
    assert len({*free.flatten().tolist()}) > 3


def test_the_decoder_of_a_checkpoint_without_one_is_missed(tmp_path: Path) -> None:
    written(t.T5EncoderModel(t.T5Config(**T5)), tmp_path)
    with pytest.raises(RequestError, match=r"decoder\.block\.0"):
        t5.decoder(json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors"))


def clip(end: int) -> Any:
    return t.CLIPTextModel(t.CLIPTextConfig(**WORDS, eos_token_id=end))


def siglip(width: int = 16) -> Any:
    return t.SiglipTextModel(t.SiglipTextConfig(**WORDS, pad_token_id=1, eos_token_id=2, projection_size=width))


@pytest.mark.parametrize("end", [38, 2], ids=["end", "legacy"])
def test_clip_pools_the_token_that_ends_a_text(end: int, tmp_path: Path) -> None:
    model = clip(end)
    loaded = hf.load(written(model, tmp_path / "theirs"))
    assert loaded is not None
    ids, real, extent = sentences(pad=1)
    ids[0, 12], ids[1, 8], ids[2, 0] = 38, 38, 38  # the first text has more words after its end
    ids[0, 13:] = torch.arange(4, 12)
    ids[0, 15] = 39 if end == 38 else 38  # a larger id, or the same one again
    for given, x, seen in ((real.long(), Ragged(ids, extent), real), (None, ids, torch.ones_like(real))):
        with torch.no_grad():
            want, found = model(ids, attention_mask=given), loaded.encoder(x)
        assert relative(found.tokens[seen], want.last_hidden_state[seen]) <= 1e-5
        assert relative(found.pooled, want.pooler_output) <= 1e-5
        assert relative(found.pooled[:1], found.tokens[:1, 12]) == 0
    with torch.no_grad():
        short = loaded.encoder(ids[:, :9])
        assert relative(short.tokens, model(ids).last_hidden_state[:, :9]) <= 1e-5  # nothing hears what comes later
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(ids).pooler_output, model(ids).pooler_output)
    with pytest.raises(RequestError, match="at most"):
        loaded.encoder(torch.ones(1, 22, dtype=torch.long))


@pytest.mark.parametrize("width", [16, 12])
def test_siglip_fills_a_text_and_pools_the_last_place(width: int, tmp_path: Path) -> None:
    """Its checkpoints learned from texts filled to their greatest length, none of it masked."""
    model = siglip(width)
    loaded = hf.load(written(model, tmp_path / "theirs"))
    assert loaded is not None
    assert loaded.encoder.dim == width
    ids, real, extent = sentences(pad=1)
    with torch.no_grad():
        want = model(ids)
        for x in (Ragged(torch.where(real, ids, 0), extent), ids):
            found = loaded.encoder(x)
            assert relative(found.tokens, want.last_hidden_state) <= 1e-5
            assert relative(found.pooled, want.pooler_output) <= 1e-5
        alone = loaded.encoder(ids[1:2, :9])
        assert relative(alone.pooled, want.pooler_output[1:2]) <= 1e-5
        assert relative(alone.tokens, want.last_hidden_state[1:2, :9]) <= 1e-5
        again, missing = round_trip(loaded, model, tmp_path / "ours")
        assert not missing
        assert torch.equal(again(ids).pooler_output, want.pooler_output)
    with pytest.raises(RequestError, match="at most"):
        loaded.encoder(torch.ones(1, 22, dtype=torch.long))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_either_tower_of_a_pair_is_read_without_the_other(kind: str, tmp_path: Path) -> None:
    texts, pictures = {**WORDS, "eos_token_id": 38, "pad_token_id": 1}, {**PICTURE}
    if kind == "clip":
        model = t.CLIPModel(t.CLIPConfig(text_config=texts, vision_config=pictures, projection_dim=8))
    else:
        model = t.SiglipModel(t.SiglipConfig(text_config=texts, vision_config=pictures))
    name = f"hf:{written(model, tmp_path)}"
    ids, real, extent = sentences(pad=1)
    ids[:, 0] = 38
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        given = real.long() if kind == "clip" else None
        want = model.text_model(ids, attention_mask=given).pooler_output
        assert relative(hw.load(name, modality="text")(Ragged(ids, extent)).pooled, want) <= 1e-5
        seen = model.vision_model(x).pooler_output
        for chosen in (hw.load(name), hw.load(name, modality="image")):
            assert relative(chosen.encoder(x).pooled, seen) <= 1e-5
    with pytest.raises(RequestError, match=r"image, text; say which \(got 'audio'\)"):
        hw.load(name, modality="audio")


def test_another_modality_than_that_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is an encoder of text; 'image' was asked for"):
        hw.load(f"hf:{written(siglip(), tmp_path)}", modality="image")


@pytest.mark.parametrize(
    ("setting", "model", "said"),
    [
        ("feed_forward_proj", lambda: t.T5EncoderModel(t.T5Config(**T5, feed_forward_proj="gated-tanh")), "gated-tanh"),
        ("is_decoder", lambda: t.T5EncoderModel(t.T5Config(**T5)), True),
        ("hidden_act", lambda: t.CLIPTextModel(t.CLIPTextConfig(**WORDS, hidden_act="tanh")), "tanh"),
        ("eos_token_id", lambda: clip(38), [38, 39]),
    ],
)
def test_what_our_encoder_does_not_do_is_named(setting: str, model: Any, said: Any, tmp_path: Path) -> None:
    written(model(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {setting: said}))
    with pytest.raises(RequestError) as caught:
        hf.load(tmp_path)
    assert f"{setting}={said!r}" in str(caught.value)


def test_only_what_each_family_has_is_written_as_one(tmp_path: Path) -> None:
    loaded = hf.load(written(siglip(), tmp_path / "a"))
    assert loaded is not None
    for kind in ("t5", "bert", "vit"):
        with pytest.raises(RequestError):
            hf.save(loaded.encoder, loaded.architecture, {}, tmp_path / "b", kind)
    assert hf.save(loaded.encoder, loaded.architecture, {}, tmp_path / "c") == "siglip_text_model"


def test_settings_that_a_checkpoint_leaves_unsaid_are_those_of_the_reference(tmp_path: Path) -> None:
    from headwater.interop.huggingface.defaults import DEFAULTS

    made = {
        "clip_vision_model": t.CLIPVisionConfig(),
        "siglip_vision_model": t.SiglipVisionConfig(),
        "clip_text_model": t.CLIPTextConfig(),
        "siglip_text_model": t.SiglipTextConfig(),
        "mt5": t.MT5Config(),
    }
    for kind, config in made.items():
        known = config.to_dict() | {"projection_size": None}
        assert all(known[name] == value for name, value in DEFAULTS[kind].items()), kind
    model = t.SiglipTextModel(t.SiglipTextConfig(**SIZES, vocab_size=40, eos_token_id=2, bos_token_id=3))
    written(model, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip_text_model", "vocab_size": 40, **SIZES}))
    ids = torch.randint(4, 38, (2, 64))
    with torch.no_grad():
        assert relative(hw.load(f"hf:{tmp_path}")(ids).pooled, model(ids).pooler_output) <= 1e-5


SAID = ["a cat sat", "the cat", "a a a a a a a a a the the the the the the the the the the the the", "the cat sat"]


def test_t5s_tokenizer_ends_every_text_and_travels_with_it(tmp_path: Path) -> None:
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((w, -1.0) for w in ("▁a", "▁the", "▁cat", "▁sat", "▁"))]
    tokenizer, model = t.T5Tokenizer(vocab=words, extra_ids=4), t.T5EncoderModel(t.T5Config(**T5))
    tokenizer.save_pretrained(written(model, tmp_path / "theirs"))
    encoder = hw.load(f"hf:{tmp_path / 'theirs'}")
    batch = tokenizer(SAID, padding=True, return_tensors="pt")
    assert all(1 in row for row in batch["input_ids"].tolist())
    with torch.no_grad():
        tokens, real = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    want = (tokens * real).sum(1) / real.sum(1)
    assert relative(torch.from_numpy(hw.embed(encoder, Texts("said", SAID))), want) <= 1e-5
    loaded = hf.load(tmp_path / "theirs")
    assert loaded is not None
    hf.save(loaded.encoder, loaded.architecture, loaded.preprocessing, tmp_path / "ours")
    assert (tmp_path / "ours" / "tokenizer.json").read_bytes() == (tmp_path / "theirs" / "tokenizer.json").read_bytes()


def spelled(pad: str) -> Any:
    """A tokenizer that opens and closes each text, cuts it with its end kept, and pads with an id that no settings know."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate(["<unk>", "<s>", "a", "the", "cat", "sat", "<fill>", "<end>"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A <end>", special_tokens=[("<s>", 1), ("<end>", 7)]
    )
    return t.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, eos_token="<end>")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_sentences_mean_the_same_to_both_through_the_checkpoints_own_tokenizer(kind: str, tmp_path: Path) -> None:
    """CLIP's pads with the end and masks it, SigLIP's fills every text and masks nothing."""
    tokenizer, model = (spelled("<end>"), clip(7)) if kind == "clip" else (spelled("<fill>"), siglip())
    tokenizer.save_pretrained(written(model, tmp_path))
    padding = True if kind == "clip" else "max_length"
    batch = tokenizer(SAID, padding=padding, truncation=True, max_length=21, return_tensors="pt")
    if kind == "siglip":
        del batch["attention_mask"]
        assert (batch["input_ids"][0, 5:] == 6).all()
    assert batch["input_ids"][2, -1] == 7
    with torch.no_grad():
        want = model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask")).pooler_output
    found = hw.embed(hw.load(f"hf:{tmp_path}"), Texts("said", SAID))
    assert relative(torch.from_numpy(found), want) <= 1e-5
