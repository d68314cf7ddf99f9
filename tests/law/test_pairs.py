"""Pairs by common stems: found, counted, learned from, and read one by one where one is asked for."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image

import headwater as hw
from headwater.api import contenders
from headwater.api.matrix import check_whole
from headwater.api.pretrain import probe
from headwater.api.recipe import recipe_for
from headwater.core.errors import RequestError, Unreadable
from headwater.core.rng import Rng
from headwater.core.types import Batch, Ragged, alone
from headwater.core.verbs import Encoder
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset, split
from headwater.methods.align import clip
from headwater.parts.losses import info_nce
from headwater.parts.ragged import rows
from headwater.parts.views import CentreCrop, DropModality
from tests.small import batch, convnet, step, text, vit

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 180, 40)}


def pictures_with_words(at: Path, n: int = 12) -> Path:
    at.mkdir()
    for i in range(n):
        word = [*COLOURS][i % 3]
        Image.new("RGB", (16, 16), COLOURS[word]).save(at / f"{i:02}.png")
        (at / f"{i:02}.txt").write_text(f"a {word} square, number {i}")
    return at


def test_files_with_a_common_stem_are_pairs_and_clip_learns_from_them(tmp_path: Path) -> None:
    source = hw.open(pictures_with_words(tmp_path / "both"))
    assert source.modalities == ("image", "text")
    assert len(source) == 12
    for i in (0, 7):
        sample = source.read(i)
        assert bytes(sample["text"].tolist()[:-1]).decode().endswith(f"number {i}")
        word = [*COLOURS][i % 3]
        assert tuple(sample["image"][:, 0, 0].tolist()) == COLOURS[word]
    run = hw.pretrain("clip", source, out=tmp_path / "run", steps=2, batch_size=4)
    for modality in ("image", "text"):
        assert hw.embed(hw.load(run.path, modality), source).shape[0] == 12


def test_partners_may_stand_in_folders_of_their_own_and_the_unpaired_are_counted(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "both")
    for kind, ending in (("images", "png"), ("texts", "txt")):
        (tmp_path / "apart" / kind).mkdir(parents=True)
        for file in (tmp_path / "both").glob(f"*.{ending}"):
            file.rename(tmp_path / "apart" / kind / file.name)
    (tmp_path / "apart" / "texts" / "03.txt").unlink()
    source = hw.open(tmp_path / "apart")
    assert len(source) == 11
    assert "1 of 12 items lack a partner and are left out; missing=True keeps them." in source.notes
    assert not any(source.id(i).endswith("03.png") for i in range(11))


def test_sounds_and_pictures_pair_too(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "data", 6)
    for i in range(6):
        (tmp_path / "data" / f"{i:02}.txt").unlink()
        soundfile.write(tmp_path / "data" / f"{i:02}.wav", np.sin(np.arange(2000) * (i + 1) / 9) / 3, 8000)
    source = hw.open(tmp_path / "data")
    assert source.modalities == ("image", "audio")
    assert hw.pretrain("clip", source, out=tmp_path / "run", steps=1, batch_size=4).outcome.done


def test_an_encoder_of_one_modality_does_not_read_the_other(tmp_path: Path) -> None:
    source = hw.open(pictures_with_words(tmp_path / "both"))
    run = hw.pretrain("simclr", source.only("image"), out=tmp_path / "run", steps=1, batch_size=4)
    (tmp_path / "both" / "05.txt").write_text("")
    with pytest.raises(Unreadable, match="empty"):
        hw.open(tmp_path / "both").read(5)
    assert hw.embed(run.encoder, hw.open(tmp_path / "both")).shape[0] == 12


def test_a_few_texts_beside_pictures_are_no_pairs(tmp_path: Path) -> None:
    pictures_with_words(tmp_path / "data")
    for i in range(2, 12):
        (tmp_path / "data" / f"{i:02}.txt").unlink()
    source = hw.open(tmp_path / "data")
    assert source.modalities == ("image",)
    assert any("other files are left out: 2 .txt" in note for note in source.notes)
    assert hw.open(f"text:{tmp_path / 'data'}").modalities == ("text",)


def apart(at: Path) -> Path:
    """Eight pictures with words; picture 2 and the words of 5 are gone."""
    pictures_with_words(at, 8)
    (at / "02.png").unlink()
    (at / "05.txt").unlink()
    return at


def test_items_that_lack_a_modality_stay_if_asked_and_the_batch_says_so(tmp_path: Path) -> None:
    at = apart(tmp_path / "data")
    whole, every = hw.open(at), hw.open(at, missing=True)
    assert (len(whole), len(every)) == (6, 8)
    assert whole.present is None
    assert {"1 of 8 items have no image.", "1 of 8 items have no text."} <= {*every.notes}
    assert [*every.read(2)] == ["text"]
    assert [*every.read(5)] == ["image"]
    (_, batch), *_ = Loader(every, 8).ordered(range(8))
    assert batch.present is not None
    assert batch.present["image"].tolist() == [i != 2 for i in range(8)]
    assert batch.present["text"].tolist() == [i != 5 for i in range(8)]
    image = batch.x["image"]
    assert isinstance(image, torch.Tensor)
    assert not image[2].any()
    assert torch.equal(image[5], every.read(5)["image"])
    assert every.fingerprint != whole.fingerprint


def test_a_batch_in_which_nobody_has_a_modality_still_has_its_shape(tmp_path: Path) -> None:
    every = hw.open(apart(tmp_path / "data"), missing=True)
    (_, batch), *_ = Loader(every, 8).ordered(np.array([2, 2]))
    assert batch.x["image"].shape == (2, 3, 16, 16)  # type: ignore[union-attr]
    assert batch.present is not None
    assert batch.present["image"].tolist() == [False, False]


def test_one_modality_of_them_is_the_items_that_have_it_and_parts_agree(tmp_path: Path) -> None:
    at = apart(tmp_path / "data")
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i:02},{'ab'[i % 2]}\n" for i in range(8)))
    every = hw.open(at, missing=True, labels=str(tmp_path / "labels.csv"))
    for modality, gone in (("image", 2), ("text", 5)):
        one = every.only(modality)
        assert one.modalities == (modality,)
        assert [int(one.id(i)[:2]) for i in range(7)] == [i for i in range(8) if i != gone]
        assert one.labels is not None
        assert one.labels.tolist() == [i % 2 for i in range(8) if i != gone]
        part = Subset(every, [7, 2, 5, 1]).only(modality)
        assert [int(part.id(i)[:2]) for i in range(len(part))] == [i for i in (7, 2, 5, 1) if i != gone]


def test_pairs_are_split_as_pairs_so_that_held_out_stays_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = pictures_with_words(tmp_path / "both", 30)
    (at / "labels.csv").write_text("file,label\n" + "".join(f"{i:02},{'ab'[i % 2]}\n" for i in range(30)))
    source = hw.open(at, labels="labels.csv")
    run = hw.pretrain("clip", source, out=tmp_path / "run", steps=1, batch_size=4, holdout=0.3)
    seen, held_out = ({part.id(i)[:2] for i in range(len(part))} for part in split(source, 0.3, 0))
    read, asked = contenders.readable, []

    def readable(part: Source, *more: Any) -> Any:
        asked.append({part.id(i)[:2] for i in range(len(part))})
        return read(part, *more)

    monkeypatch.setattr(contenders, "readable", readable)
    for modality in ("image", "text"):
        found = hw.evaluate(hw.load(run.path, modality), source, labels_per_class=[1], baselines=[], draws=1)
        assert asked[-2:] == [seen, held_out]
        assert found["data"]["fingerprint"] == source.fingerprint


def test_what_the_health_check_looks_at_are_real_samples(tmp_path: Path) -> None:
    every = hw.open(apart(tmp_path / "data"), missing=True)
    looked_at = probe(every, recipe_for(clip, every.spec, 8, 0))
    assert {m: len(x) for m, x in looked_at.items()} == {"image": 7, "text": 7}


def test_methods_that_need_every_modality_refuse_and_clip_does_not(tmp_path: Path) -> None:
    every = hw.open(apart(tmp_path / "data"), missing=True)
    run = hw.pretrain("clip", every, out=tmp_path / "run", steps=2, batch_size=8)
    assert run.outcome.done
    assert hw.embed(hw.load(run.path, "text"), every).shape[0] == 7

    class Strict(clip.CLIP):
        missing = False

    module = ModuleType("strict")
    Strict.__module__, module.Strict = "strict", Strict  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match=r"Strict needs every modality .* without missing=True"):
        check_whole(module, every)


def test_missing_is_refused_where_nothing_can_be(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="digits is no such data"):
        hw.open("digits", missing=True)
    at = pictures_with_words(tmp_path / "data", 4)
    for file in at.glob("*.txt"):
        soundfile.write(file.with_suffix(".wav"), np.zeros(8000 * 31, np.float32), 8000)
    with pytest.raises(RequestError, match=r"Some sounds of data/ are so long .* larger 'seconds'"):
        hw.open(at)
    assert len(hw.open(at, reading={"seconds": 40.0})) == 4


def clip_of(encoders: dict[str, Encoder]) -> clip.CLIP:
    torch.manual_seed(0)
    return clip.Config(view=CentreCrop(16, 1.0), dim=8).build(encoders).train()


def lacking(filled: float = 0.0) -> Batch:
    """Eight pairs; 1 and 4 lack the picture, 4 and 6 the text."""
    full = batch(8)
    present = {"image": torch.tensor([1, 0, 1, 1, 0, 1, 1, 1]) > 0, "text": torch.tensor([1, 1, 1, 1, 0, 1, 0, 1]) > 0}
    image, words = full.x["image"].clone(), full.x["text"].clone()  # type: ignore[union-attr]
    image[~present["image"]] = filled
    words[~present["text"]] = int(filled)
    return Batch({"image": image, "text": words}, present=present)


def test_clip_learns_from_the_samples_that_have_both() -> None:
    method, given = clip_of({"image": vit(), "text": text()}), lacking()
    both = torch.tensor([0, 2, 3, 5, 7])
    few = Batch({m: x[both] for m, x in given.x.items()})  # type: ignore[index]
    found, wanted = method.loss(given, step()), method.loss(few, step())
    torch.testing.assert_close(found.value, wanted.value)
    torch.testing.assert_close(found.metrics["chance"], torch.tensor(5.0).log())
    scores = method.predict(given, step())
    assert scores.isinf().all(0).tolist() == (~given.present["text"]).tolist()  # type: ignore[index]


def test_what_stands_in_for_the_missing_touches_neither_loss_nor_gradient_nor_statistics() -> None:
    made = []
    for filled in (0.0, 9.0):
        method = clip_of({"image": convnet(), "text": text()})
        method.loss(lacking(filled), step()).value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
        made.append([p.grad for p in method.parameters()] + [b.clone() for b in method.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_a_batch_without_a_single_pair_costs_nothing() -> None:
    method, given = clip_of({"image": convnet(), "text": text()}), lacking()
    given = Batch(given.x, present={"image": torch.arange(8) < 4, "text": torch.arange(8) >= 4})
    loss = method.loss(given, step())
    loss.value.backward()
    assert float(loss.value.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_pairs_count_over_all_processes() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 4, generator=g), torch.randn(8, 4, generator=g)
    counted = torch.tensor([1, 0, 1, 1, 1, 1, 0, 0]) > 0
    wholes = iter([F.normalize(a, dim=1), F.normalize(b, dim=1), counted])
    mine = info_nce(a[:4], b[:4], 5.0, lambda _: next(wholes), counted=counted[:4])
    torch.testing.assert_close(mine, info_nce(a[counted], b[counted], 5.0, alone))


def test_a_modality_is_dropped_as_often_as_asked_and_never_the_last() -> None:
    full = Batch({"image": torch.ones(4000, 2), "text": torch.ones(4000, 3), "table": torch.ones(4000, 1)})
    left = DropModality(0.5)(full, Rng(0))
    assert left.present is not None
    kept = torch.stack([*left.present.values()], 1)
    assert kept.any(1).all()
    share = 0.5 + 0.5**3 / 3  # where all three are drawn, one of them stays
    assert (kept.float().mean(0) - share).abs().max() < 0.03
    for m, x in left.x.items():
        assert isinstance(x, torch.Tensor)
        assert torch.equal(x[:, 0] > 0, left.present[m])
    assert all(x.all() for x in full.x.values())  # type: ignore[union-attr]
    everything = DropModality(1.0)(left, Rng(1))
    assert everything.present is not None
    last = torch.stack([*everything.present.values()], 1)
    assert (last.sum(1) == 1).all()
    assert not (last & ~kept).any()
    assert torch.equal(torch.stack([*DropModality(0.0)(left, Rng(1)).present.values()], 1), kept)  # type: ignore[union-attr]


def test_shards_drop_what_the_whole_batch_would() -> None:
    full = Batch({"image": torch.ones(6, 2), "text": torch.ones(6, 3)})
    whole = DropModality(0.6)(full, Rng(3)).present
    for k in range(2):
        half = Batch({m: x[3 * k : 3 * k + 3] for m, x in full.x.items()})  # type: ignore[index]
        mine = DropModality(0.6)(half, Rng(3, shard=k, shards=2)).present
        assert whole is not None
        assert mine is not None
        assert all(torch.equal(mine[m], whole[m][3 * k : 3 * k + 3]) for m in whole)


def test_views_of_unequal_sizes_are_blanked_too() -> None:
    words = Ragged(torch.ones(4, 5), torch.full((4, 1), 3))
    left = DropModality(1.0)(Batch({"a": words, "b": torch.ones(4, 2)}), Rng(0))
    a = left.x["a"]
    assert isinstance(a, Ragged)
    assert left.present is not None
    assert torch.equal(a.values[:, 0] > 0, left.present["a"])
    assert len(rows(a, left.present["a"])) == int(left.present["a"].sum())
