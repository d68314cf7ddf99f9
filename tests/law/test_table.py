"""Tables of mixed kinds: words as codes, what is restored of them, and new tables read as the encoder learned."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import headwater as hw
from headwater.api.encoders import Pretrained
from headwater.core.errors import RequestError
from headwater.parts.tokens import TableTokenizer, TableTokenizerConfig

NAN = float("nan")


def tokenizer() -> TableTokenizer:
    torch.manual_seed(0)
    made = TableTokenizerConfig(columns=3, categories=(0, 4, 2)).build(8)
    assert isinstance(made, TableTokenizer)
    made.normalise.set(torch.tensor([10.0, 1.5, 0.5]), torch.tensor([2.0, 1.0, 1.0]))
    return made


def test_patches_hold_numbers_and_words_and_come_back_exactly() -> None:
    rows = torch.tensor([[12.0, 3.0, 0.0], [6.0, 0.0, 1.0]])
    patches = tokenizer().patches(rows)
    assert patches[0, :, 0].tolist() == [1.0, 0.0, 1.0]
    assert patches[0, 1].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert patches[0, 0, 1:].isnan().all()
    assert patches[0, 2, 2:].isnan().all()
    assert torch.equal(tokenizer().unpatch(patches, (3,)), rows)


def test_the_error_counts_what_a_column_has_and_nothing_else() -> None:
    rows = torch.tensor([[12.0, 3.0, 0.0]])
    target = tokenizer().patches(rows)
    guess = torch.zeros_like(target)
    guess[..., 2:] = 5.0  # nonsense, where most columns have no use for it
    error = tokenizer().distance(guess, target)
    assert error[0].tolist() == [1.0, 25.0 + 16.0, 1.0]


def test_words_have_vectors_of_their_own_and_an_unknown_one_too() -> None:
    made = tokenizer()
    rows = torch.tensor([[10.0, k, 0.0] for k in (0.0, 1.0, 2.0, 3.0, 4.0, 9.0)])
    vectors = made(rows).x[:, 1]
    assert len(torch.unique(vectors, dim=0)) == 5
    assert torch.equal(vectors[4], vectors[5])  # both never met
    assert made.valid(torch.tensor([[1.0, NAN, 0.0]])).tolist() == [[True, False, True]]


def learned(tmp_path: Path) -> tuple[Pretrained, pa.Table]:
    draw = np.random.default_rng(0)
    table = pa.table(
        {"size": draw.normal(size=60), "town": draw.choice(["Aix", "Bern"], 60), "age": draw.integers(9, size=60)}
    )
    return hw.pretrain("mae", table, out=tmp_path / "run", steps=2, batch_size=16).encoder, table


def test_a_new_table_is_read_by_the_columns_and_words_that_the_encoder_knows(tmp_path: Path) -> None:
    encoder, table = learned(tmp_path)
    wanted = hw.embed(encoder, table)
    other = table.select(["age", "town", "size"]).append_column("more", pa.array(range(60)))
    assert np.array_equal(hw.embed(encoder, other), wanted)
    towns = ["Chur", *table["town"].to_pylist()[1:]]  # a word more, so the codes of the others move
    source = hw.open(table.set_column(1, "town", pa.array([t.replace("Aix", "Zug") for t in towns])))
    read = source.conform("table", encoder.card.preprocessing["read"])
    assert read.read(0)["table"][1] == 2  # unknown
    assert any("hold words that are new, such as 'Chur'" in note for note in read.notes)
    same = [i for i, t in enumerate(towns) if t == "Bern"]
    assert np.array_equal(hw.embed(encoder, source)[same], wanted[same])


def test_a_lacking_column_counts_as_missing_and_is_noted_and_most_lacking_is_refused(tmp_path: Path) -> None:
    encoder, table = learned(tmp_path)
    source = hw.open(table.drop_columns(["town"])).conform("table", encoder.card.preprocessing["read"])
    assert source.read(0)["table"][1].isnan()
    assert any("lacking and count as missing: town" in note for note in source.notes)
    with pytest.raises(RequestError, match="lacks 2 of the 3 columns"):
        hw.embed(encoder, table.select(["age"]))
    with pytest.raises(RequestError, match=r"town .* holds numbers; the encoder learned words"):
        hw.embed(encoder, table.set_column(1, "town", pa.array(range(60))))
