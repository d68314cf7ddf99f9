"""Prompt-CAM: what trains, what goes through the blocks, and what the maps and the blurring of heads are."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError
from headwater.engine.artefact import Card, load_encoder, save_encoder
from headwater.methods.adapt import prompt_cam
from headwater.methods.supervise import classify
from headwater.parts import surgery
from headwater.parts.prompted import Prompted
from headwater.report.traits import Seen, traits_picture
from tests.small import audio, batch, convnet, step, text, vit

X = batch().x["image"]
C, L, D, N, H = 4, 2, 16, 16, 2


def asked(**named: object) -> Prompted:
    """In evaluation, prompts large enough to matter."""
    torch.manual_seed(0)
    encoder = prompt_cam.TINY.build().adapt(vit(class_token=True, pool="class", **named)).eval()
    with torch.no_grad():
        encoder.new.prompts.normal_()
    return encoder


def test_what_trains() -> None:
    base = vit(class_token=True)
    before = {n: v.clone() for n, v in base.state_dict().items()}
    encoder = prompt_cam.TINY.build().adapt(base)
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == L * C * D + D + 1 and set(trained) == set(
        surgery.weights(encoder)
    )
    adapter = prompt_cam.TINY.build()
    made = classify.TINY.build({"image": encoder})
    aim = adapter.objective(made, torch.zeros(8, D), batch().y)
    aim.loss(batch(), step()).value.backward()
    assert all((p.grad is not None) == (n in trained) for n, p in encoder.named_parameters())
    assert {n for n, p in aim.named_parameters() if p.requires_grad} == {f"encoder.{n}" for n in trained}
    assert all(torch.equal(v, before[n]) for n, v in encoder.base.state_dict().items())
    bound = (6 / (3 * 16 + D)) ** 0.5
    assert 0.9 * bound < float(encoder.new.prompts.detach().abs().max()) <= bound


def test_permuting_the_classes_permutes_the_scores() -> None:
    encoder, order = asked(), torch.tensor([2, 0, 3, 1])
    told = encoder(X).pooled
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.new.prompts.copy_(encoder.new.prompts[:, order])
    torch.testing.assert_close(other(X).pooled, told[:, order], atol=1e-5, rtol=1e-5)
    assert told.shape == (8, C) and not torch.allclose(told[:, 0], told[:, 1])


def test_prompts_come_fresh_to_every_block_and_leave_it() -> None:
    encoder = asked()
    seen = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda m, given, out: seen.append((given[0].detach(), out.detach())))
    features = encoder(X)
    assert [x.shape for x, _ in seen] == [(8, C + 1 + N, D)] * L
    for i, (entered, _) in enumerate(seen):
        torch.testing.assert_close(entered[:, :C], encoder.new.prompts[i].detach().expand(8, -1, -1))
    assert torch.equal(seen[1][0][:, C:], seen[0][1][:, C:])
    assert features.tokens.shape == (8, N, D) and features.prefix is not None and features.prefix.shape == (8, 1, D)
    last = encoder.base.trunk.norm(seen[-1][1][:, :C])  # type: ignore[operator]
    want = last @ encoder.new.weight + encoder.new.bias
    torch.testing.assert_close(features.pooled, want)


def test_the_maps_are_the_rows_of_the_last_attention() -> None:
    encoder = asked()
    maps = encoder.maps(X)
    assert maps.shape == (8, C, H, N)
    assert float(maps.sum(-1).max()) < 1 and float(maps.min()) >= 0  # the rest goes to prompts and the class token
    caught = []
    block = encoder.blocks[-1]
    block.register_forward_hook(lambda m, given, out: caught.append(given[0]))
    encoder(X)
    x = block.norm1(caught[0])
    q, k, _ = block.attention.qkv(x).view(8, C + 1 + N, 3, H, D // H).permute(2, 0, 3, 1, 4)
    whole = (q @ k.mT / (D // H) ** 0.5).softmax(-1)
    torch.testing.assert_close(whole.sum(-1), torch.ones(8, H, C + 1 + N))
    torch.testing.assert_close(maps, whole[:, :, :C, C + 1 :].transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_a_blurred_head_attends_evenly_and_other_classes_keep_their_rows() -> None:
    encoder = asked()
    told = encoder(X).pooled
    classes = torch.arange(8) % C
    nothing = torch.zeros(8, H, dtype=torch.bool)
    torch.testing.assert_close(encoder.blurred(X, classes, nothing), told)
    scores = encoder.blurred(X, classes, ~nothing)
    own = torch.nn.functional.one_hot(classes, C).bool()
    torch.testing.assert_close(scores[~own], told[~own])
    assert not torch.isclose(scores[own], told[own]).any()
    sequence, mask, _ = encoder.asked(X)
    block = encoder.blocks[-1]
    tap = block.trace(sequence, mask, None)
    even = tap.v.mean(2).flatten(1)  # what uniform attention reads, heads side by side
    row = sequence[torch.arange(8), classes] + block.attention.out(even)
    row = row + block.mlp(block.norm2(row))
    want = encoder.base.trunk.norm(row) @ encoder.new.weight + encoder.new.bias  # type: ignore[operator]
    torch.testing.assert_close(scores[own], want, atol=1e-5, rtol=1e-5)


def test_heads_are_ranked_by_greedy_blurring() -> None:
    encoder, classes = asked(), torch.arange(8) % C
    order = encoder.ranked(X, classes)
    assert order.shape == (8, H) and (order.sort(1).values == torch.arange(H)).all()
    each, one = torch.arange(8), torch.eye(H, dtype=torch.bool)
    said = [encoder.blurred(X, classes, one[h].expand(8, -1)).softmax(1)[each, classes] for h in range(H)]
    left = torch.stack(said, 1)
    assert torch.equal(order[:, -1], left.argmax(1))  # the head that is missed least goes first


def test_padding_is_not_attended_to_and_any_modality_is_asked() -> None:
    for encoder, name in ((text(), "text"), (audio(), "audio")):
        prompted = prompt_cam.TINY.build().adapt(encoder)
        assert prompted(batch().x[name]).pooled.shape == (8, C)
    pictures = asked()
    told = pictures(X).pooled
    torch.testing.assert_close(torch.cat([pictures(X[:3]).pooled, pictures(X[3:]).pooled]), told, atol=1e-5, rtol=1e-5)


def test_it_is_an_architecture_of_its_own_and_merging_leaves_it(tmp_path: Path) -> None:
    encoder = asked()
    adapter = prompt_cam.TINY.build()
    told = encoder(X).pooled
    merged = surgery.merge(copy.deepcopy(encoder))
    assert torch.equal(merged(X).pooled, told)
    save_encoder(tmp_path / "e", merged, Card(adapter.architecture(encoder.base.config), {}, {}))
    again, _ = load_encoder(tmp_path / "e")
    assert isinstance(again, Prompted) and torch.equal(again(X).pooled, told)


def test_dropout_is_of_prompts_in_training_alone() -> None:
    encoder = asked()
    assert torch.equal(encoder(X).pooled, encoder(X).pooled)
    encoder.train()
    assert not torch.equal(encoder(X).pooled, encoder(X).pooled)


def test_the_picture_has_its_rows_and_shows_where(tmp_path: Path) -> None:
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 0] = 1
    rows = [Seen(torch.full((1, 8, 8), 0.5), "cats", maps, (2, 0, 1)) for _ in range(2)]
    drawn = np.asarray(Image.open(traits_picture(rows, tmp_path / "t.png")).convert("RGB")).astype(int)
    assert drawn.shape[0] > 2 * 128 and drawn.shape[1] > 4 * 128
    cell = drawn[26:154, 136:264]
    assert cell[:16, :16].sum() > 2 * cell[-16:, -16:].sum()


def test_a_run_leaves_a_page_with_the_picture(tmp_path: Path) -> None:
    hw.pretrain("mae", "digits", out=tmp_path / "run", steps=2, batch_size=16, device="cpu")
    made = hw.adapt(
        "prompt-cam", tmp_path / "run", "digits", out=tmp_path / "cam", steps=2, batch_size=16, device="cpu"
    )
    encoder = hw.load(tmp_path / "cam").encoder
    assert isinstance(encoder, Prompted) and encoder.dim == 10
    assert made["rows"][1]["trained_parameters"] == encoder.new.prompts.numel() + encoder.base.dim + 1
    assert (tmp_path / "cam" / "adapter" / "weights.safetensors").stat().st_size < 20_000
    page = (tmp_path / "cam" / "report.html").read_text()
    assert (
        "Where each class is seen" in page and "Trained parameters" in page and (tmp_path / "cam/traits.png").is_file()
    )
    assert len(hw.predict(tmp_path / "cam", "digits").ids) == 1797
    with pytest.raises(RequestError, match=r"classes=3 was asked for, and digits has 10 classes"):
        hw.adapt("prompt-cam", tmp_path / "run", "digits", out=tmp_path / "no", set=["adapter.classes=3"])
    assert not (tmp_path / "no").exists()


def test_bad_requests_are_refused() -> None:
    with pytest.raises(RequestError, match="this ConvNet has none; an encoder made of plain transformer blocks does"):
        prompt_cam.TINY.build().adapt(convnet())
    with pytest.raises(RequestError, match="relative"):
        prompt_cam.TINY.build().adapt(vit(relative="shared", grid=(4, 4)))
    with pytest.raises(RequestError, match="two classes or more; got 1"):
        prompt_cam.Config(classes=1)
