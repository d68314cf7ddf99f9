"""DETR pre-training: queries and groups, pseudo-labels as files, boxes found without a teacher, and what is carried on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import headwater as hw
from headwater.api import catalogue, learned
from headwater.api.detections import Boxes, detections
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Annotations, Batch, Loss, Step
from headwater.core.verbs import Method
from headwater.data.coco import document
from headwater.data.generated.detection import scene
from headwater.data.generated.scenes import SHAPES
from headwater.methods.supervise.detr_pretrain import SMALL, TINY, DETRPretrain
from headwater.parts.boxes import none
from headwater.parts.views import JointCrop, JointResize
from tests import small
from tests.story.commands import headwater

Capture = pytest.CaptureFixture[str]
N, KEEP = 12, 5
LIGHT = (
    "method.decoder.dim=16",
    "method.decoder.depth=1",
    "method.queries=8",
    "method.many=8",
    "method.repeats=1",
    "encoder.image.trunk.depth=1",
)


def made(**changes: object) -> DETRPretrain:
    torch.manual_seed(0)
    method = replace(TINY, **changes).build({"image": small.vit()})
    with torch.no_grad():
        for p in method.decoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return method.eval()


def without(folder: Path) -> Path:
    """Twelve scenes as PNG files."""
    folder.mkdir()
    for i in range(N):
        Image.fromarray(scene(i)[0].transpose(1, 2, 0)).save(folder / f"{i:02}.png")
    return folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes, and beside them their boxes in true.json."""
    folder = without(tmp_path_factory.mktemp("data") / "pool")
    rows = []
    for i in range(N):
        _, boxes, kinds, _ = scene(i)
        rows.append(np.column_stack([np.ones(len(kinds)), kinds, boxes]))
    text = json.dumps(document([f"{i:02}.png" for i in range(N)], [(64, 64)] * N, SHAPES, rows))
    (folder.parent / "true.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def teacher(pool: Path) -> Path:
    data = hw.open(pool, annotations=str(pool.parent / "true.json"))
    out = pool.parent / "runs" / "teacher"
    hw.pretrain("detr-pretrain", data, out=out, steps=3, batch_size=4, device="cpu", encoder="vit-micro/8", set=LIGHT)
    return out


def test_queries_for_training_alone_change_nothing_that_is_predicted() -> None:
    method, batch = made(), small.batch()
    before = method.predict(batch, small.step())
    with torch.no_grad():
        method.decoder.queries[TINY.queries :] += 1
    assert torch.equal(method.predict(batch, small.step()), before)
    alone = made(many=0)
    state = method.state_dict()
    state["decoder.queries"] = state["decoder.queries"][: TINY.queries]
    alone.load_state_dict(state)
    torch.testing.assert_close(alone.predict(batch, small.step()), before, rtol=1e-5, atol=1e-5)
    x = batch.x["image"]
    assert isinstance(x, Tensor)
    one, many = method.find(x).split(TINY.queries)
    assert torch.equal(one.best(), method.find(x).split(TINY.queries)[0].best()) and many.boxes.shape[2] == TINY.many
    torch.testing.assert_close(one.best(), before, rtol=1e-5, atol=1e-5)


def test_the_loss_of_the_second_group_is_added_with_its_weight() -> None:
    batch, losses = small.batch(), []
    for weight in (0.0, 1.0, 2.0):
        loss = made(many_weight=weight)(batch, small.step())
        losses.append(loss.value)
        assert loss.metrics["one_to_many"] > 0
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses[1] - losses[0], loss.metrics["one_to_many"], rtol=1e-4, atol=1e-4)


def test_predictions_are_the_best_class_of_each_query_by_falling_score() -> None:
    said = made().predict(small.batch(), small.step())
    assert said.shape == (8, TINY.queries, 6)
    assert (said[:, 1:, 0] <= said[:, :-1, 0]).all() and said[..., 1].unique().tolist() <= [0.0, 1.0, 2.0]
    assert ((said[..., 4:] - said[..., 2:4]) > 0).all() and (said[..., 2:] >= 0).all() and (said[..., 2:] <= 1).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_move_with_the_picture(flip: float) -> None:
    """A bright square in an otherwise dark picture stays in its box, whatever the view."""
    x, boxes = torch.zeros(16, 1, 32, 32), torch.zeros(16, 1, 4)
    for i in range(16):
        left, top = 2 + i % 5, 3 + i
        x[i, :, top : top + 8, left : left + 8] = 1
        boxes[i, 0] = torch.tensor([left, top, left + 8, top + 8])
    config = replace(SMALL, joint=JointCrop(32, (0.6, 1.0), flip=flip))
    seen, marks = config.look(x, Annotations(boxes, torch.zeros(16, 1, dtype=torch.int64)), Rng(0))
    for picture, box, kind in zip(seen[:, 0], marks.boxes[:, 0], marks.classes[:, 0], strict=True):
        if kind == 0:
            left, top, right, bottom = box.tolist()
            rows, columns = (picture > 0.5).nonzero(as_tuple=True)
            assert abs(columns.min() - left) < 1.5 and abs(columns.max() + 1 - right) < 1.5
            assert abs(rows.min() - top) < 1.5 and abs(rows.max() + 1 - bottom) < 1.5


def test_boxes_without_a_teacher_have_one_class_and_need_no_annotations() -> None:
    config = replace(TINY, proposals=4).marked(())
    method, batch = config.build({"image": small.vit()}), Batch({"image": small.batch().x["image"]})
    loss = method(batch, small.step())
    assert config.kinds == 1 and loss.value.isfinite() and "embedding" not in loss.metrics
    with pytest.raises(RequestError, match="learns from boxes, and this data has none"):
        made()(batch, small.step())


def test_a_frozen_network_says_what_each_query_shall_say_of_its_crop() -> None:
    """Its weights stay, the loss is the mean absolute difference over matched queries, and a query that says it has none."""
    config = replace(TINY, proposals=4, teacher="x", crop=16, embed=3.0)
    torch.manual_seed(0)
    method = config.build({"image": small.vit()}, small.vit())
    plain = replace(config, teacher="").build({"image": small.vit()})
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("guide.")})
    batch = small.batch()
    loss = method(batch, small.step())
    off = loss.metrics["embedding"]
    torch.testing.assert_close(loss.value, plain(batch, small.step()).value + 3 * off, rtol=1e-4, atol=1e-4)
    loss.value.backward()
    assert method.guide is not None
    assert not any(p.requires_grad for p in method.guide.teacher.parameters())
    assert method.guide.say.weight.grad is not None
    boxes, real = torch.tensor([[[0.0, 0, 8, 8], [4, 4, 16, 16]]]), torch.tensor([[True, False]])
    x, queries = torch.rand(1, 3, 16, 16), torch.randn(1, 2, 16)
    crop = torch.nn.functional.interpolate(x[..., :8, :8], (16, 16), mode="bilinear")
    told = method.guide.teacher(crop).pooled
    wanted = (method.guide.say(queries[:, 0]) - told).abs().mean()
    torch.testing.assert_close(method.guide(queries, x, boxes, real, lambda n: n), wanted, rtol=1e-3, atol=1e-3)


def test_a_teacher_without_found_boxes_is_refused() -> None:
    with pytest.raises(RequestError, match=r"teacher='runs/dino' judges boxes that are found"):
        replace(TINY, teacher="runs/dino").build({"image": small.vit()})


def test_a_frozen_encoder_stays() -> None:
    method = made(frozen=True)
    method(small.batch(), small.step()).value.backward()
    assert all(p.grad is None for p in method.encoder.parameters())
    assert method.decoder.queries.grad is not None


def test_pseudo_labels_are_a_coco_file(teacher: Path, pool: Path, tmp_path: Path, capsys: Capture) -> None:
    """At most so many per picture, by falling score, of positive size and within the picture; the same each time; and the
    run that made them is as it was."""
    weights = (teacher / "method" / "weights.safetensors").read_bytes()
    out = tmp_path / "pseudo.json"
    said = headwater(capsys, "predict", "-e", teacher, "--data", pool, "--out", out, "--keep", KEEP).out
    assert f"on {N} pictures" in said and "Average precision" not in said
    first = out.read_text()
    found = json.loads(first)
    assert [c["name"] for c in found["categories"]] == list(SHAPES)
    size = {i["id"]: (i["width"], i["height"]) for i in found["images"]}
    for i in size:
        mine = [m for m in found["annotations"] if m["image_id"] == i]
        scores = [m["score"] for m in mine]
        assert 0 < len(mine) <= KEEP and scores == sorted(scores, reverse=True)
        for m in mine:
            left, top, wide, high = m["bbox"]
            assert wide > 0 and high > 0 and left >= 0 and top >= 0
            assert left + wide <= size[i][0] + 1e-6 and top + high <= size[i][1] + 1e-6
    back = hw.open(pool, annotations=str(out))
    assert len(back) == N and back.marked["boxes"] == SHAPES
    drawn = [m["bbox"] for m in found["annotations"] if m["image_id"] == 0]
    edges = back.annotations(0, back.read(0))
    assert edges is not None
    corner = torch.cat([edges.boxes[0, :, :2], edges.boxes[0, :, 2:] - edges.boxes[0, :, :2]], 1)
    torch.testing.assert_close(corner, torch.tensor(drawn), rtol=1e-4, atol=1e-3)
    hw.predict(teacher, pool, out=out, keep=KEEP)
    assert out.read_text() == first
    assert (teacher / "method" / "weights.safetensors").read_bytes() == weights
    assert min(size_of(out.with_suffix(".png"))) > 200


def test_boxes_are_of_the_whole_picture_also_where_it_is_wide(teacher: Path, tmp_path: Path) -> None:
    """The same picture squeezed beforehand gives the same boxes, in shares of its sides."""
    large = torch.from_numpy(scene(0)[0])[None].float().repeat_interleave(3, 3)  # 64 high, 192 wide
    Image.fromarray(large[0].byte().permute(1, 2, 0).numpy()).save(tmp_path / "wide.png")
    squeezed, _ = JointResize(64)(large.byte(), none(), Rng(0))
    wide = hw.predict(teacher, tmp_path, keep=KEEP)
    square = hw.predict(teacher, squeezed.numpy(), keep=KEEP)
    assert isinstance(wide, Boxes) and isinstance(square, Boxes) and wide.sizes == ((64, 192),)
    np.testing.assert_allclose(wide.found[0][:, 2:] / [3, 1, 3, 1], square.found[0][:, 2:], atol=0.1)


def test_average_precision_is_told_where_the_data_have_boxes(
    teacher: Path, pool: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, true = tmp_path / "found.json", pool.parent / "true.json"
    read = ("--read", f"annotations={true}")
    said = headwater(capsys, "predict", "-e", teacher, "--data", pool, *read, "--out", out).out
    assert "Average precision against the boxes of the data: AP " in said
    method = learned.load(teacher)

    class Oracle(Method):
        predicts = "boxes"

        def loss(self, batch: Batch, step: Step) -> Loss:
            return Loss(self.one)

        def __init__(self) -> None:
            super().__init__()
            self.at, self.one = 0, torch.nn.Parameter(torch.zeros(()))

        def predict(self, batch: Batch, step: Step) -> Tensor:
            rows = []
            for i in range(self.at, self.at + len(batch)):
                _, boxes, kinds, _ = scene(i)
                told = np.zeros((5, 6), np.float32)
                told[: len(kinds)] = np.column_stack([np.linspace(1, 0.9, len(kinds)), kinds, boxes / 64])
                rows.append(torch.from_numpy(told))
            self.at += len(batch)
            return torch.stack(rows)

    source = hw.open(pool, annotations=str(true))
    known = replace(method, method=Oracle())
    made = detections(known, source, keep=2, batch_size=5, workers=1)
    assert made.precision == {"ap": pytest.approx(1.0), "ap50": pytest.approx(1.0)}
    assert max(map(len, made.found)) == 2 and made.marked is not None and len(made.marked[0]) == len(scene(0)[2])
    fewer = replace(known, method=Oracle(), provenance={**method.provenance, "classes": [*SHAPES[1:], "cube"]})
    assert detections(fewer, source, keep=2, batch_size=5, workers=1).strange == (SHAPES[0],)
    objects = replace(known, method=Oracle(), provenance={**method.provenance, "classes": ["object"]})
    assert detections(objects, source, keep=2, batch_size=5, workers=1).strange == ()


def test_what_cannot_be_predicted_is_refused(teacher: Path, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"expected \.json"):
        hw.predict(teacher, pool, out=tmp_path / "boxes.csv")
    with pytest.raises(RequestError, match="steps, back and season are for forecasts; detr_pretrain predicts boxes"):
        hw.predict(teacher, pool, steps=3)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((pool / "00.png").read_bytes())
    (broken / "b.png").write_bytes(b"no picture")
    made = hw.predict(teacher, broken)
    assert isinstance(made, Boxes) and made.ids == ("a.png",) and [i for i, _ in made.unreadable] == ["b.png"]


def test_the_way_from_pseudo_labels_to_labels(teacher: Path, pool: Path, tmp_path: Path) -> None:
    """Pre-trained on what the teacher says, a run goes on with labels; its classes are the same, and so its heads carry on."""
    out = tmp_path / "pseudo.json"
    hw.predict(teacher, pool, out=out, keep=KEEP)
    how = {"steps": 1, "batch_size": 4, "device": "cpu"}
    pseudo = hw.open(pool, annotations=str(out))
    before = hw.pretrain("detr-pretrain", pseudo, out=tmp_path / "pre", encoder="vit-micro/8", set=LIGHT, **how)
    true = hw.open(pool, annotations=str(pool.parent / "true.json"))
    hw.pretrain("detr-pretrain", true, out=tmp_path / "final", go_on=before.path, **how)
    assert learned.load(tmp_path / "final").provenance["classes"] == list(SHAPES)
    assert min(size_of(tmp_path / "final" / "views.png")) > 200
    first = learned.load(before.path)
    fresh = catalogue.load("detr-pretrain").Config
    assert isinstance(first.config, fresh)
    theirs = first.config.build({"image": first.architectures["image"].build()})
    learned.carry(first, theirs, list(SHAPES))
    assert torch.equal(theirs.decoder.classify[0].weight, first.method.state_dict()["decoder.classify.0.weight"])


def test_after_boxes_of_no_class_the_class_head_begins_anew(pool: Path, tmp_path: Path) -> None:
    how = {"steps": 1, "batch_size": 4, "device": "cpu"}
    found = (*LIGHT, "method.proposals=4", "method.crop=16")
    begun = hw.pretrain("detr-pretrain", pool, out=tmp_path / "a", encoder="vit-micro/8", set=found, **how)
    assert learned.load(begun.path).provenance["classes"] == ["object"]
    guided = (*found, f"method.teacher={begun.path}")
    told = hw.pretrain("detr-pretrain", pool, out=tmp_path / "b", encoder="vit-micro/8", set=guided, **how)
    last = learned.load(told.path)  # without the teacher, which only training needs
    assert not [k for k in last.method.state_dict() if k.startswith("guide.")]
    assert isinstance(hw.predict(told.path, pool), Boxes)
    true = hw.open(pool, annotations=str(pool.parent / "true.json"))
    run = hw.pretrain("detr-pretrain", true, out=tmp_path / "c", go_on=told.path, **how)
    final = learned.load(run.path)
    assert final.config.kinds == len(SHAPES) and final.config.proposals == 0 and final.config.teacher == ""
    ours = final.config.build({"image": final.architectures["image"].build()})
    before = ours.state_dict()["decoder.classify.0.weight"].clone()
    learned.carry(last, ours, list(SHAPES))
    assert torch.equal(ours.state_dict()["decoder.classify.0.weight"], before)
    assert torch.equal(ours.decoder.queries, last.method.state_dict()["decoder.queries"])


def test_data_without_boxes_are_refused_in_a_sentence(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"DETRPretrain learns from boxes .* comes with none: --read annotations=FILE"
    ):
        hw.pretrain("detr-pretrain", pool, out=tmp_path / "x", device="cpu")
    true = hw.open(pool, annotations=str(pool.parent / "true.json"))
    with pytest.raises(RequestError, match=r"method\.proposals=4 finds boxes on pictures that have none"):
        hw.pretrain("detr-pretrain", true, out=tmp_path / "x", device="cpu", set=["method.proposals=4"])


def test_the_document_is_what_the_reader_reads(pool: Path) -> None:
    data = hw.open(pool, annotations=str(pool.parent / "true.json"))
    marks = data.annotations(3, data.read(3))
    assert marks is not None
    _, boxes, kinds, _ = scene(3)
    assert torch.equal(marks.boxes[0], torch.from_numpy(boxes)) and marks.classes[0].tolist() == kinds.tolist()
