"""The encoder folder: equal bits after loading, a closed set of kinds, and nothing taken on trust."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import RequestError
from headwater.engine.artefact import Card, load_encoder, save_encoder
from headwater.parts import architectures
from headwater.parts.architectures import from_json, named, names, to_json
from headwater.parts.modalities import patch_for
from headwater.parts.sizes import (
    CONFORMER,
    CONVNEXT,
    CRATE,
    DIT,
    GRAPHNET,
    MIXER,
    NOPE,
    PERCEPTRON,
    RESNET,
    SWIN,
    TJEPA,
    TTM,
    VIT,
    WAV2VEC2,
)

IMAGE = {"channels": 3, "size": (32, 32)}


@pytest.mark.parametrize("name", ["vit-micro", "resnet-micro", "convnext-nano"])
def test_loading_gives_equal_bits(name: str, tmp_path: Path) -> None:
    config = named(name, "image", IMAGE)
    torch.manual_seed(0)
    encoder = config.build()
    normalise = getattr(encoder, "tokenizer", encoder).normalise
    normalise.set(torch.rand(3), torch.rand(3) + 0.5)
    save_encoder(tmp_path / "e", encoder, Card(config, {"size": [32, 32]}, {"method": "x"}))
    again, card = load_encoder(tmp_path / "e")
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(encoder.eval()(x).pooled, again(x).pooled)
    assert card.architecture == config and card.preprocessing == {"size": [32, 32]} and not again.training


@pytest.mark.parametrize("name", names())
def test_every_named_encoder_survives_the_way_to_json_and_back(name: str) -> None:
    facts = {
        "image": IMAGE,
        "series": {"channels": 2, "length": 64},
        "table": {"columns": 5, "categories": (0, 3, 0, 0, 2)},
        "graph": {"channels": 3},
        "audio": {"rate": 8000, "channels": 1, "length": 4000},
    }
    reads = {"image": [*VIT, *RESNET, *CONVNEXT, *SWIN], "series": [*VIT, *RESNET, *CONVNEXT, *MIXER]}
    reads |= {"table": [*VIT, *PERCEPTRON], "audio": [*VIT, *CONFORMER, *WAV2VEC2]}
    reads = {m: [*known, *NOPE, *CRATE, *DIT, *TJEPA] for m, known in reads.items()} | {"graph": [*GRAPHNET]}
    reads["series"] += [*TTM]
    for modality in (m for m in facts if name in reads[m]):
        config = named(name, modality, facts[modality])
        assert from_json(json.loads(json.dumps(to_json(config)))) == config
    for modality in (m for m in ("series", "table") if name not in reads[m]):
        with pytest.raises(RequestError, match="need"):
            named(name, modality, facts[modality])


def test_a_kind_or_field_that_is_not_known_is_refused() -> None:
    good = to_json(named("vit-micro", "image", IMAGE))
    with pytest.raises(RequestError, match=r"architecture.*'os\.system'"):
        from_json({**good, "kind": "os.system"})
    with pytest.raises(RequestError, match=r"field of TokenEncoderConfig.*'registors'.*Did you mean registers\?"):
        from_json({**good, "registors": 4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "weights.safetensors").unlink(), "missing"),
        (lambda at: (at / "encoder.json").write_text("{}"), "damaged"),
        (lambda at: (at / "manifest.json").write_text("{"), "not JSON"),
        (lambda at: (at / "manifest.json").unlink(), "not whole"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    config = named("resnet-micro", "image", IMAGE)
    save_encoder(tmp_path / "e", config.build(), Card(config, {}, {}))
    change(tmp_path / "e")
    with pytest.raises(RequestError, match=message):
        load_encoder(tmp_path / "e")


def test_names_are_offered_and_patches_divide() -> None:
    with pytest.raises(RequestError, match=r"Did you mean resnet-18\?"):
        named("resnet18", "image", IMAGE)
    with pytest.raises(RequestError, match="convolutional and needs a grid"):
        named("resnet-18", "table", {"columns": 4})
    assert [patch_for(s, 4) for s in (8, 28, 32, 7, 3)] == [2, 4, 4, 1, 1]
    tables = [
        v
        for k, v in vars(architectures).items()
        if k.isupper() and isinstance(v, dict) and k not in ("KINDS", "MODALITIES")
    ]
    assert len(tables) >= 9
    assert sorted(names()) == sorted(name for table in tables for name in table)
    assert len(names()) == len({*names()})
