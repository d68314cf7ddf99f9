"""Boxes and masks read from COCO, VOC and PNG files, batched with their pictures, and every way in which they are wrong."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Ragged
from headwater.data.annotated import Annotated
from headwater.data.doctor import examine
from headwater.data.loader import Loader
from headwater.data.source import split

SIZES = ((20, 30), (24, 16), (40, 40), (20, 30))  # (height, width) of the pictures


def pictures(at: Path) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    for i, (h, w) in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 255, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(at / f"p{i}.png")
    return at


def coco() -> dict[str, Any]:
    """Picture i has i boxes; the ids of pictures and categories are in no order."""
    images = [{"id": 50 - i, "file_name": f"p{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(SIZES)]
    marks = [
        {"id": 10 * i + k, "image_id": 50 - i, "category_id": (7, 3)[k % 2], "bbox": [k, 2 * k, 5 + i, 6], "iscrowd": 0}
        for k in range(3)
        for i in range(4)
        if k < i
    ]
    return {"images": images, "annotations": marks, "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}


def opened(folder: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Annotated:
    """The pictures with the annotations of `coco`, changed."""
    pictures(folder)
    made = coco()
    if change is not None:
        change(made)
    (folder / "instances.json").write_text(json.dumps(made))
    source = hw.open(folder, annotations="instances.json")
    assert isinstance(source, Annotated)
    return source


def test_coco_boxes_arrive_with_their_pictures(tmp_path: Path) -> None:
    source = opened(tmp_path / "data")
    assert source.marked == {"boxes": ("dog", "cat")}  # by the ids of the categories
    assert source.labels is None
    for i in range(4):
        found = source.annotations(i, source.read(i))
        assert found.boxes[0].tolist() == [[k, 2 * k, k + 5 + i, 2 * k + 6] for k in range(i)]
        assert found.classes[0].tolist() == [(1, 0)[k % 2] for k in range(i)]
        assert found.masks is None


def test_the_loader_hands_each_picture_its_own_boxes_in_every_order(tmp_path: Path) -> None:
    source = opened(tmp_path / "data")
    loader = Loader(source, 3, seed=4)
    stream = loader(0)
    for step in range(4):
        batch, which = next(stream), loader.indices(step)
        marks, images = batch.annotations, batch.x["image"]
        assert marks is not None
        assert ((marks.classes >= 0).sum(1) == torch.from_numpy(which)).all()  # picture i has i boxes
        assert isinstance(images, Ragged)
        for row, i in enumerate(which):
            assert images.extent[row].tolist() == list(SIZES[i])
            assert marks.boxes[row, :i].tolist() == [[k, 2 * k, k + 5 + i, 2 * k + 6] for k in range(i)]
            assert (marks.boxes[row, i:] == 0).all()
    train, test = split(source, 0.5, seed=0)
    assert train.marked == source.marked
    for part in (train, test):
        ((_, batch),) = Loader(part, 2).ordered(range(2))
        moved = batch.to("cpu").annotations
        assert moved is not None
        assert (moved.classes >= 0).sum(1).tolist() == part.indices.tolist()


def test_what_coco_says_wrongly_is_counted_and_said(tmp_path: Path) -> None:
    def change(made: dict[str, Any]) -> None:
        one = {"image_id": 50, "category_id": 7, "iscrowd": 0}
        made["annotations"] += [
            {**one, "id": 90, "bbox": [25, 5, 9, 5], "segmentation": [[1, 1, 5, 5, 1, 5]]},  # reaches 4 pixels beyond
            {**one, "id": 91, "bbox": [99, 5, 9, 5]},  # outside
            {**one, "id": 92, "bbox": [5, 5, 0, 5]},  # of zero width
            {**one, "id": 93, "bbox": [5, 5, 3, 3], "iscrowd": 1},
            {**one, "id": 94, "image_id": 999, "bbox": [5, 5, 3, 3]},
        ]
        made["images"].append({"id": 8, "file_name": "gone.jpg", "height": 9, "width": 9})

    pictures(tmp_path / "data")
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "unnamed.png")
    source = opened(tmp_path / "data", change)
    assert len(source) == 4
    assert source.annotations(0, source.read(0)).boxes[0].tolist() == [[25, 5, 30, 10]]
    told = "\n".join(source.notes)
    assert "boxes: 7 of 2 classes (cat: 5, dog: 2); 1 to 3 per picture, 1.8 on average, 0 of 4" in told
    assert (
        "1 box reaches beyond the picture, by up to 4 pixels, and cut at its edge, such as (25 5 34 10) of p0" in told
    )
    assert "1 box lies outside the picture, and left out, such as (99 5 108 10) of p0.png (30 × 20)." in told
    assert "1 box has no area, and left out, such as (5 5 5 10)" in told
    assert "1 boxes around crowds (iscrowd) are left out." in told
    assert "1 annotations have outlines (segmentation) too, which are not read." in told
    assert "1 annotations belong to images that" in told
    assert "such as annotation 94 of image 999." in told
    assert "instances.json names 1 pictures that do not exist, such as gone.jpg." in told
    assert "1 pictures without partner in instances.json are left out, such as unnamed.png." in told
    assert all(note in "\n".join(examine(source).lines()) for note in source.notes)


def without(part: str) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made.pop(part)


def on_first(part: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made[part][0].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("categories"), "has no list of categories .it has images, annotations.; the annotations of COCO hold"),
        (lambda made: made["images"].clear(), "lists no images"),
        (on_first("annotations", category_id=5), "Annotation 10 of .* has the category_id 5; the categories have 3, 7"),
        (on_first("annotations", bbox=[1, 2, 3]), r"Annotation 10 of .* has the bbox \[1, 2, 3\]; .left, top, width"),
        (on_first("annotations", bbox=[1, 2, 3, float("nan")]), "has the bbox"),
        (on_first("images", width=None), "The image p0.png of .* has the width None; pixels are expected"),
        (on_first("images", id=49), "two images with the same id"),
        (on_first("images", file_name="p1.png"), "lists the file p1.png as two images"),
        (on_first("categories", name=None), "holds a category without name"),
        (lambda made: [m.update(image_id=1) for m in made["annotations"]], "No annotation of .* has the image_id 1"),
        (lambda made: [m.update(file_name=f"{m['id']}.jpg") for m in made["images"]], "names none of the pictures"),
    ],
)
def test_a_coco_file_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        opened(tmp_path / "data", change)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ("[]", "holds a list, not a JSON object"), ('{"a": 1}', "has no list of images .it has a")],
)
def test_json_that_is_not_coco_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (pictures(tmp_path / "data") / "other.json").write_text(content)
    with pytest.raises(RequestError, match=said):
        hw.open(tmp_path / "data", annotations="other.json")
    with pytest.raises(RequestError, match="neither here nor in"):
        hw.open(tmp_path / "data", annotations="nowhere.json")
    with pytest.raises(RequestError, match="given by its path"):
        hw.open(np.zeros((4, 3, 8, 8), np.uint8), annotations="other.json")
    with pytest.raises(RequestError, match="something else"):
        hw.open("digits", annotations=str(tmp_path / "data" / "other.json"))


def test_a_picture_of_another_size_than_its_boxes_is_unreadable(tmp_path: Path) -> None:
    source = opened(tmp_path / "data", on_first("images", width=20, height=30))
    with pytest.raises(Unreadable, match="the picture is 30 × 20, and its boxes were drawn on 20 × 30 pixels"):
        source.annotations(0, source.read(0))
    assert [item for item, _ in examine(source).unreadable] == ["p0.png"]
    assert source.only("image").read(0)["image"].shape == (3, 20, 30)  # nothing is wrong with the picture itself


def test_annotations_beside_pictures_are_hinted_at_and_not_read(tmp_path: Path) -> None:
    opened(tmp_path / "data")
    (tmp_path / "data" / "a.json").write_text('{"images": 3}')
    source = hw.open(tmp_path / "data")
    assert not source.marked
    assert "annotations='instances.json' reads them" in "\n".join(source.notes)
    (tmp_path / "data" / "instances.json").unlink()
    assert not hw.open(tmp_path / "data").notes
    voc(tmp_path / "data")
    assert "annotations='Annotations' reads them" in "\n".join(hw.open(tmp_path / "data").notes)


XML = """<annotation><filename>x</filename><size><width>{w}</width><height>{h}</height><depth>3</depth></size>{objects}
</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>1</difficult><bndbox><xmax>{2}</xmax><xmin>{0}</xmin><ymin>{1}</ymin>
<ymax>{3}</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"""


def voc(folder: Path) -> Path:
    """Picture i has i boxes that begin at pixel k and end at pixel k + 4, counted from 1."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for i, (h, w) in enumerate(SIZES):
        marks = [OBJECT.format(k + 1, k + 2, k + 5, "7.0", name=("zebra", "ant")[k % 2]) for k in range(i)]
        (folder / "Annotations" / f"p{i}.xml").write_text(XML.format(w=w, h=h, objects="".join(marks)))
    return pictures(folder)


def test_voc_boxes_count_pixels_from_zero_and_classes_may_be_declared(tmp_path: Path) -> None:
    source = hw.open(voc(tmp_path / "data"), annotations="Annotations/")
    assert source.marked == {"boxes": ("ant", "zebra")}
    assert len(source) == 4
    found = source.annotations(2, source.read(2))
    assert found is not None
    assert found.boxes[0].tolist() == [[0, 1, 5, 7], [1, 2, 6, 7]]
    assert found.classes[0].tolist() == [1, 0]
    (tmp_path / "data" / "Annotations" / "classes.txt").write_text("zebra\ncow\nant\n")
    source = hw.open(tmp_path / "data", annotations=str(tmp_path / "data" / "Annotations"))
    assert source.marked == {"boxes": ("zebra", "cow", "ant")}
    (tmp_path / "data" / "Annotations" / "classes.txt").write_text("zebra\nants\n")
    source = hw.open(tmp_path / "data", annotations="Annotations")
    with pytest.raises(Unreadable, match=r"p2.xml has an object of an unknown class.*'ant'.*Did you mean ants"):
        source.annotations(2, source.read(2))


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotation><size>&c;</size></annotation>'
FETCH = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<annotation><size>", "p2.xml is damaged"),
        ("", "p2.xml is damaged"),
        ("<html></html>", "p2.xml is no VOC annotation: its outermost element is <html>"),
        ("<annotation></annotation>", "p2.xml has no number where <width> should hold one"),
        (XML.format(w=0, h=3, objects=""), "p2.xml gives the picture a size of 0 × 3"),
        (XML.format(w=3, h=3, objects="<object><name>a</name></object>"), "no number where <xmin>"),
        (XML.format(w=3, h=3, objects=OBJECT.format(1, 1, "two", 2, name="a")), "'two' where <xmax>"),
        (XML.format(w=3, h=3, objects=OBJECT.format(1, 1, 2, 2, name="")), "an object without name"),
        (BOMB, "declares a document type, which is refused"),
        (FETCH, "declares a document type, which is refused"),
    ],
)
def test_damaged_xml_makes_its_picture_unreadable_and_no_other(tmp_path: Path, content: str, said: str) -> None:
    (voc(tmp_path / "data") / "Annotations" / "p2.xml").write_text(content)
    source = hw.open(tmp_path / "data", annotations="Annotations")
    with pytest.raises(Unreadable, match=said):
        source.annotations(2, source.read(2))
    loader = Loader(source, 4, seed=1)
    assert sum(len(batch) for _, batch in loader.ordered(range(4))) == 3
    assert [*loader.bad] == ["p2.png"]
    assert next(loader(0)).annotations is not None  # another picture takes its place
    for name in ("p0", "p1", "p3"):
        (tmp_path / "data" / "Annotations" / f"{name}.xml").write_text(content)
    with pytest.raises(RequestError, match=r"None of the 4 .xml files"):
        hw.open(tmp_path / "data", annotations="Annotations")


def masks(folder: Path, within: str = "labels") -> Path:
    """The class of pixel (y, x) of picture i is (x + i) % 3, in the palette's index; the first row belongs to none."""
    (folder / within).mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(SIZES):
        classes = ((np.indices(size)[1] + i) % 3).astype(np.uint8)
        classes[0] = 255
        image = Image.fromarray(classes)
        image.putpalette([9, 9, 9] * 256)  # colours say nothing
        image.save(folder / within / f"p{i}.png")
    return pictures(folder / "images").parent


def test_masks_are_found_by_stem_and_batched_with_their_pictures(tmp_path: Path) -> None:
    source = hw.open(masks(tmp_path / "data"), masks="labels/")
    assert [source.id(i) for i in range(len(source))] == [f"images/p{i}.png" for i in range(4)]
    assert source.labels is None  # the folder of the masks is no class
    _, batch = next(iter(Loader(source, 4).ordered(range(4))))
    assert batch.annotations is not None
    assert batch.annotations.boxes.shape == (4, 0, 4)
    found = batch.annotations.masks
    assert found is not None
    assert found.shape == (4, 40, 40)
    assert found.dtype == torch.int64
    for i, (h, w) in enumerate(SIZES):
        assert (found[i, 0] == -1).all()
        assert torch.equal(found[i, 1:h, :w], ((torch.arange(w) + i) % 3).expand(h - 1, w))
        assert (found[i, h:] == -1).all()
        assert (found[i, :, w:] == -1).all()
    (tmp_path / "data" / "labels" / "p3.png").unlink()
    notes = "\n".join(hw.open(tmp_path / "data", masks="labels/").notes)
    assert "1 pictures without partner in labels/ are left out, such as images/p3.png." in notes
    with pytest.raises(RequestError, match="besides the masks"):
        hw.open(tmp_path / "data" / "images", masks=str(tmp_path / "data" / "images"))
    with pytest.raises(RequestError, match=r"a folder of .png files, one per picture, is expected"):
        hw.open(tmp_path / "data", masks="images/p0.png")


def test_boxes_and_masks_go_together(tmp_path: Path) -> None:
    masks(tmp_path / "data")
    (tmp_path / "data" / "images" / "p0.png").unlink()
    (tmp_path / "data" / "all.json").write_text(json.dumps(coco()))
    source = hw.open(tmp_path / "data", annotations="all.json", masks="labels")
    assert [*source.marked] == ["boxes", "masks"]
    assert len(source) == 3
    _, batch = next(iter(Loader(source, 3).ordered(range(3))))
    assert batch.annotations is not None
    assert batch.annotations.masks is not None
    assert (batch.annotations.classes >= 0).sum(1).tolist() == [1, 2, 3]
    assert batch.annotations.masks[:, 1, 0].tolist() == [1, 2, 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_masks_of_any_depth_give_the_numbers_stored(tmp_path: Path, bits: int) -> None:
    folder = masks(tmp_path / "data") / "labels"
    h, w = SIZES[1]
    stored = (np.indices((h, w)).sum(0) % min(2**bits, 7)).astype(np.uint8)
    (folder / "p1.png").write_bytes(grey_png(stored, bits))
    source = hw.open(tmp_path / "data", masks="labels")
    found = source.annotations(1, source.read(1))
    assert found is not None
    assert found.masks is not None
    assert np.array_equal(found.masks[0].numpy(), stored)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of so many bits per pixel, which Pillow does not write itself."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    spread = (values[..., None].astype(np.uint16) >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(len(values), -1).astype(np.uint8), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_masks_that_do_not_fit_make_their_picture_unreadable(tmp_path: Path) -> None:
    folder = masks(tmp_path / "data") / "labels"
    (folder / "classes.txt").write_text("road\nsky\n")
    Image.new("L", (9, 7)).save(folder / "p0.png")
    Image.new("RGB", (16, 24)).save(folder / "p2.png")
    (folder / "p3.png").write_bytes((folder / "p1.png").read_bytes()[:200])
    source = hw.open(tmp_path / "data", masks="labels")
    assert source.marked == {"masks": ("road", "sky")}
    for i, said in enumerate(
        (
            "the picture is 30 × 20, and its mask 9 × 7 pixels",
            "its mask p1.png cannot be used: it has pixels of class 2; 2 are named, counted from 0",
            r"it holds colours \(RGB\); one channel of class numbers is expected",
            "its mask p3.png cannot be used: it is damaged",
        )
    ):
        with pytest.raises(Unreadable, match=said):
            source.annotations(i, source.read(i))
    assert len(examine(source).unreadable) == 4
    alone = source.only("image")
    assert not alone.marked
    assert sum(len(batch) for _, batch in Loader(alone, 4).ordered(range(4))) == 4  # the pictures themselves are whole


def test_methods_that_know_nothing_of_boxes_work_unchanged(tmp_path: Path) -> None:
    source = opened(tmp_path / "data")
    run = hw.pretrain("simclr", source, out=tmp_path / "run", steps=1, batch_size=4)
    assert run.outcome.done
    (tmp_path / "data" / "instances.json").unlink()
    assert np.array_equal(hw.embed(run.encoder, source), hw.embed(run.encoder, hw.open(tmp_path / "data")))
