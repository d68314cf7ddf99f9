"""Every form of data that `open` accepts, against Pillow, NumPy and Arrow read directly."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from headwater.core.errors import RequestError, Unreadable
from headwater.data import builtins, encoding, open
from headwater.data.image import decode
from headwater.data.loader import Loader
from headwater.data.source import Subset, content


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADWATER_CACHE", str(root))
    return root


def pixels(seed=0, h=6, w=5, c=3):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c) if c else (h, w)).astype(np.uint8)


def encoded(array, form="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, form, **options)
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def photos(root: Path, n=3) -> Path:
    """n pictures in each of two folders; picture k of folder f is pixels(10 * f + k)."""
    for f, folder in enumerate(("cat", "dog")):
        for k in range(n):
            put(root / folder / f"{k}.png", encoded(pixels(10 * f + k)))
    return root


def chw(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_eight_bit_formats_give_their_pixels(form):
    options = {"lossless": True} if form == "WEBP" else {}
    assert torch.equal(decode(encoded(pixels(), form, **options), "x"), chw(pixels()))


def test_jpeg_and_gif_agree_with_pillow():
    for form in ("JPEG", "GIF"):
        data = encoded(pixels(h=16, w=16), form)
        with Image.open(io.BytesIO(data)) as image:
            expected = chw(np.array(image.convert("RGB")))
        assert torch.equal(decode(data, "x"), expected)


def test_grey_one_bit_palette_and_cmyk():
    grey = pixels(c=0)
    assert torch.equal(decode(encoded(grey), "x"), torch.from_numpy(grey)[None])
    out = io.BytesIO()
    Image.fromarray(grey).convert("1", dither=Image.Dither.NONE).save(out, "PNG")
    assert torch.equal(decode(out.getvalue(), "x")[0], torch.from_numpy(np.where(grey >= 128, 255, 0).astype(np.uint8)))
    palette = Image.fromarray(pixels()).quantize(8)
    out = io.BytesIO()
    palette.save(out, "PNG")
    assert torch.equal(decode(out.getvalue(), "x"), chw(np.array(palette.convert("RGB"))))
    cmyk = Image.fromarray(pixels()).convert("CMYK")
    out = io.BytesIO()
    cmyk.save(out, "TIFF")
    assert torch.equal(decode(out.getvalue(), "x"), chw(np.array(cmyk.convert("RGB"))))


def test_alpha_stays_only_where_something_is_transparent():
    opaque = np.dstack([pixels(), np.full((6, 5), 255, np.uint8)])
    assert torch.equal(decode(encoded(opaque), "x"), chw(pixels()))
    opaque[0, 0, 3] = 17
    assert torch.equal(decode(encoded(opaque), "x"), chw(opaque))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    assert torch.equal(decode(encoded(pixels(), exif=exif), "x"), chw(np.rot90(pixels(), -1)))


def test_sixteen_bits_and_floats_keep_their_depth():
    deep = np.random.default_rng(0).integers(0, 65536, (4, 5)).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        x = decode(encoded(deep, form), "x")
        assert x.dtype == torch.float32
        assert torch.equal(x[0], torch.from_numpy(deep.astype(np.float32) / 65535))
    real = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    assert torch.equal(decode(encoded(real, "TIFF"), "x")[0], torch.from_numpy(real))


def test_sixteen_bit_colour_png_is_not_cut_to_eight():
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    assert torch.equal(decode(imagecodecs.png_encode(deep), "x"), chw(deep.astype(np.float32) / np.float32(65535)))


@pytest.mark.parametrize("shape", [(7, 20, 24), (20, 24, 7)])
@pytest.mark.parametrize("planar", ["pages", "samples"])
def test_many_channel_tiff(shape, planar):
    tifffile = pytest.importorskip("tifffile")
    array = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    out = io.BytesIO()
    options = {}
    if planar == "samples":
        options = {"planarconfig": "separate" if shape[0] == 7 else "contig"}
    tifffile.imwrite(out, array, photometric="minisblack", **options)
    expected = array if shape[0] == 7 else array.transpose(2, 0, 1)
    assert torch.equal(
        decode(out.getvalue(), "x"), torch.from_numpy(np.ascontiguousarray(expected / np.float32(65535)))
    )


def test_folder_nested_with_labels_from_its_first_level(tmp_path):
    photos(tmp_path / "photos")
    put(tmp_path / "photos/dog/deeper/9.JPG", encoded(pixels(99), "JPEG"))
    put(tmp_path / "photos/notes.md", b"not an image")
    source = open(tmp_path / "photos")
    assert (source.name, source.modalities, source.classes) == ("photos/", ("image",), ("cat", "dog"))
    assert [source.id(i) for i in range(len(source))] == sorted(source.id(i) for i in range(len(source)))
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert source.id(1) == "cat/1.png"
    assert source.path(1) == str(tmp_path / "photos/cat/1.png")
    assert torch.equal(source.read(4)["image"], chw(pixels(11)))
    assert source.spec["image"] == {"channels": 3, "size": (6, 5), "dtype": "uint8", "promoted": False}


def test_folder_in_a_folder_and_files_beside_the_classes(tmp_path):
    photos(tmp_path / "a/b")
    assert open(tmp_path / "a").classes == ("cat", "dog")
    put(tmp_path / "a/b/loose.png", encoded(pixels()))
    assert open(tmp_path / "a").labels.tolist() == [0, 0, 0, 1, 1, 1, -1]
    flat = put(tmp_path / "flat/1.png", encoded(pixels())).parent
    assert open(flat).labels is None


def test_grey_is_promoted_where_colour_is_mixed_in(tmp_path):
    put(tmp_path / "a.png", encoded(pixels(c=0)))
    put(tmp_path / "b.png", encoded(pixels(h=9)))
    source = open(tmp_path)
    assert torch.equal(source.read(0)["image"], torch.from_numpy(pixels(c=0)).expand(3, 6, 5))
    assert source.spec["image"] == {"channels": 3, "size": None, "dtype": "uint8", "promoted": True}
    assert "Grey and colour" in source.notes[0]


def test_odd_channel_count_found_late_is_unreadable_not_mixed_in(tmp_path):
    for k in range(200):
        put(tmp_path / f"{k:03}.png", encoded(pixels(k)))
    odd = pixels(c=4)
    odd[..., 3] = 9
    source = open(tmp_path)
    put(tmp_path / "001.png", encoded(odd))
    with pytest.raises(Unreadable, match="4 channels where the others have 3"):
        source.read(1)


def test_labels_file(tmp_path):
    photos(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label,age\ncat/0.png,x,3\ncat/1.png,y,4\ndog/0.png,x,5\ngone.png,y,6\n")
    source = open(tmp_path, labels="labels.csv")
    assert source.classes == ("x", "y")
    assert source.labels.tolist() == [0, 1, -1, 0, -1, -1]
    assert any("1 files that do not exist" in n for n in source.notes)
    assert any("3 files have no row" in n for n in source.notes)
    ages = open(tmp_path, labels=f"{tmp_path}/labels.csv:age")
    assert ages.classes == ("3", "4", "5")  # the missing file's 6 is no class of these data


def test_labels_file_may_leave_out_folders_and_endings(tmp_path):
    put(tmp_path / "in/0007.png", encoded(pixels()))
    put(tmp_path / "in/0008.png", encoded(pixels(1)))
    (tmp_path / "labels.csv").write_text("id;class\n0008;b\n0007;a\n")
    source = open(tmp_path / "in", labels=str(tmp_path / "labels.csv"))
    assert source.labels.tolist() == [0, 1]
    assert source.classes == ("a", "b")


def test_glob_and_text_list(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    source = open("photos/**/[01].png")
    assert [source.id(i) for i in range(4)] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "list.txt").write_text(f"photos/dog/2.png\n\n{tmp_path}/photos/cat/0.png\nphotos/cat/gone.png\n")
    listed = open("list.txt")
    assert torch.equal(listed.read(0)["image"], chw(pixels(12)))
    assert torch.equal(listed.read(1)["image"], chw(pixels(0)))
    with pytest.raises(Unreadable, match="does not exist"):
        listed.read(2)


def packed(tmp_path, form, files):
    path = tmp_path / f"data.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for k, (name, data) in enumerate(files.items()):
                archive.writestr(name, data, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2][k % 3])
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_archives(tmp_path, form):
    files = {f"all/{c}/{k}.png": encoded(pixels(10 * f + k)) for f, c in enumerate("ab") for k in range(3)}
    source = open(packed(tmp_path, form, files | {"all/readme.md": b"hello", "__MACOSX/x.png": b"junk"}))
    assert len(source) == 6
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for i in range(6):
        assert torch.equal(source.read(i)["image"], decode(files[source.id(i)], "x"))
    assert source.path(0) == f"{tmp_path}/data.{form}/all/a/0.png"


@pytest.mark.parametrize("end", ["cls", "json"])
def test_webdataset_naming(tmp_path, end):
    files = {}
    for k, label in enumerate([7, 10, 7]):
        files[f"part/{k:04}.png"] = encoded(pixels(k))
        files[f"part/{k:04}.{end}"] = str(label).encode() if end == "cls" else json.dumps({"label": label}).encode()
    files["part/0003.png"] = encoded(pixels(3))
    source = open(packed(tmp_path, "tar", files))
    assert len(source) == 4
    assert source.labels.tolist() == [0, 1, 0, -1]
    assert source.classes == ("7", "10")


def mixed_table():
    return pa.table(
        {
            "age": [30, None, 50],
            "tall": [True, False, None],
            "town": ["Bern", None, "Aix"],
            "name": ["x", "y", "z"],
            "when": pa.array([11323, 11324, 11325], pa.date32()),
            "kind": ["b", "a", "b"],
        }
    )


@pytest.mark.parametrize("form", ["parquet", "feather", "arrow", "csv"])
def test_tables(tmp_path, form):
    path = tmp_path / f"t.{form}"
    table = mixed_table()
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "feather":
        pyarrow.feather.write_feather(table, path)
    elif form == "arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text(
            "age,tall,town,name,when,kind\n30,true,Bern,x,2001-01-01,b\n,false,,y,2001-01-02,a\n50,,Aix,z,2001-01-03,b\n"
        )
    source = open(path, labels="kind")
    names = ["age", "tall", "town", "name", "when (days)", "when (month)", "when (weekday)"]
    assert source.spec["table"]["names"] == names
    assert source.modalities == ("table",)
    nan = np.nan
    dates = [[11323, 0, 0], [11324, 0, 1], [11325, 0, 2]]  # the first of January 2001 was a Monday
    expected = [[30, 1, 1, 0, *dates[0]], [nan, 0, nan, 1, *dates[1]], [50, nan, 0, 2, *dates[2]]]
    np.testing.assert_array_equal(source.tensors["table"].numpy(), np.array(expected, np.float32))
    np.testing.assert_array_equal(source.read(1)["table"].numpy(), np.array(expected[1], np.float32))
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.words["town"] == ["Aix", "Bern"]


def test_many_words_are_left_out_and_large_numbers_reported():
    table = pa.table({"x": [2**30] * 140, "name": [f"n{k}" for k in range(140)], "label": [0.5] * 140})
    source = open(table)
    assert source.spec["table"]["names"] == ["x", "label"]
    assert source.spec["table"]["left_out"] == ["name (140 different words)"]
    assert any("float32 rounds" in n for n in source.notes)
    assert any("labels='label'" in n for n in source.notes)
    target = open(table, labels="label")
    assert target.classes == ()
    assert target.labels.dtype == np.float64


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_of_images_is_read_row_by_row(tmp_path, cache, struct):
    cells = [encoded(pixels(k)) for k in range(5)]
    column = [{"bytes": c, "path": None} for c in cells] if struct else cells
    pq.write_table(pa.table({"image": column, "label": list("ababa")}), tmp_path / "t.parquet", row_group_size=2)
    source = open(tmp_path / "t.parquet")
    assert all(torch.equal(source.read(k)["image"], chw(pixels(k))) for k in (4, 0, 2))
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    (converted,) = (cache / "index").glob("*.arrow")
    converted.write_bytes(converted.read_bytes()[:100])
    assert torch.equal(open(tmp_path / "t.parquet").read(3)["image"], chw(pixels(3)))


def test_csv_of_paths_is_images(tmp_path):
    photos(tmp_path)
    (tmp_path / "t.csv").write_text("path,size,label\ndog/1.png,3,d\ncat/2.png,4,c\n")
    source = open(tmp_path / "t.csv")
    assert torch.equal(source.read(0)["image"], chw(pixels(11)))
    assert source.classes == ("c", "d")
    assert open(tmp_path / "t.csv", labels="size").labels.tolist() == [0, 1]


def test_arrays_by_their_axes():
    draw = np.random.default_rng(0)
    flat, series = draw.normal(size=(4, 3)), draw.normal(size=(4, 2, 9)).astype(np.float32)
    assert torch.equal(open(flat).tensors["table"], torch.from_numpy(flat.astype(np.float32)))
    source = open((torch.from_numpy(series), ["b", "a", "b", "a"]))
    assert source.labels.tolist() == [1, 0, 1, 0]
    assert source.spec == {"series": {"channels": 2, "length": 9, "dtype": "float32", "gaps": False}}
    last = draw.integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    assert torch.equal(open(last).read(2)["image"], chw(last[2]))
    assert torch.equal(open(last.transpose(0, 3, 1, 2)).read(2)["image"], chw(last[2]))
    deep = open(np.full((2, 1, 3, 3), 65535, np.uint16))
    assert deep.tensors["image"].dtype == torch.float32
    assert deep.tensors["image"].max() == 1
    assert open((flat, np.array([0.1, 0.2, 0.3, 0.4]))).labels.dtype == np.float64


def test_array_files(tmp_path, monkeypatch):
    series = np.random.default_rng(0).normal(size=(5, 2, 9))
    np.save(tmp_path / "s.npy", series)
    np.savez(tmp_path / "s.npz", x=series, y=[1, 2, 1, 2, 1])
    small = open(tmp_path / "s.npy")
    assert torch.equal(small.tensors["series"], torch.from_numpy(series.astype(np.float32)))
    monkeypatch.setattr("headwater.data.array.SMALL", 10)
    mapped = open(tmp_path / "s.npy")
    assert mapped.tensors is None
    assert torch.equal(mapped.read(3)["series"], small.read(3)["series"])
    vectors = np.arange(10.0).reshape(5, 2)
    np.savez(tmp_path / "t.npz", x=series, targets=vectors)
    aimed = open(tmp_path / "t.npz")
    assert aimed.targets is not None and aimed.labels is None and aimed.spec["series"]["targets"] == 2
    assert aimed.fingerprint != open(series).fingerprint and "target vector of 2 numbers" in aimed.notes[0]
    batch = next(Loader(Subset(aimed, [3, 1, 4, 0]), 4)(0)).to("cpu")
    at = [series[:, 0, 0].astype(np.float32).tolist().index(x) for x in batch.x["series"][:, 0, 0].tolist()]
    assert sorted(at) == [0, 1, 3, 4] and at != [3, 1, 4, 0]
    assert batch.targets.tolist() == vectors[at].tolist()
    pair = open(tmp_path / "s.npz")
    assert pair.classes == ("1", "2")
    assert torch.equal(pair.read(4)["series"], small.read(4)["series"])


class Numbered(torch.utils.data.Dataset):
    def __init__(self, form):
        self.form = form

    def __len__(self):
        return 6

    def __getitem__(self, i):
        array = pixels(i)
        return {"array": array, "pillow": (Image.fromarray(array), i % 2), "tensor": (chw(array), i % 2)}[self.form]


@pytest.mark.parametrize("form", ["array", "pillow", "tensor"])
def test_torch_datasets(form):
    source = open(Numbered(form))
    assert len(source) == 6
    assert torch.equal(source.read(5)["image"], chw(pixels(5)))
    assert source.labels is None if form == "array" else source.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_torch_dataset_with_targets_is_not_read_for_its_labels():
    class Targets(Numbered):
        targets = torch.tensor([2, 0, 1, 1, 0, 2])
        classes = ("a", "b", "c")
        reads = 0

        def __getitem__(self, i):
            self.reads += 1
            return super().__getitem__(i)

    data = Targets("tensor")
    source = open(data)
    assert source.labels.tolist() == [2, 0, 1, 1, 0, 2]
    assert source.classes == ("a", "b", "c")
    assert data.reads == 1


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"picture": [{"bytes": encoded(pixels(k)), "path": None} for k in range(4)], "label": [1, 0, 0, 1]}
    source = open(datasets.Dataset.from_dict(rows, features=features))
    assert torch.equal(source.read(2)["image"], chw(pixels(2)))
    assert source.labels.tolist() == [1, 0, 0, 1]
    assert source.classes == ("no", "yes")
    table = open(
        datasets.Dataset.from_dict({"a": [1.5, None], "b": [3, 4], "y": ["u", "v"]}).select([1, 0]), labels="y"
    )
    np.testing.assert_array_equal(table.tensors["table"].numpy(), np.array([[np.nan, 4], [1.5, 3]], np.float32))
    assert table.classes == ("u", "v")
    assert table.labels.tolist() == [1, 0]
    assert table.spec["table"]["names"] == ["a", "b"]


def test_urls(tmp_path):
    fs = fsspec.filesystem("memory")
    files = {f"{c}/{k}.png": encoded(pixels(10 * f + k)) for f, c in enumerate("ab") for k in range(2)}
    for name, data in files.items():
        fs.pipe(f"/bucket/{name}", data)
    fs.pipe("/t.csv", b"x,y\n1,2\n3,4\n")
    for form in ("zip", "tar"):
        fs.pipe(f"/data.{form}", packed(tmp_path, form, files).read_bytes())
    for url in ("memory://bucket", "memory://bucket/*/*.png", "memory://data.zip", "memory://data.tar"):
        source = open(url)
        assert source.labels.tolist() == [0, 0, 1, 1], url
        assert all(torch.equal(source.read(i)["image"], decode(files[source.id(i)], "x")) for i in range(4))
    assert source.path(0).startswith("memory://")
    assert open("memory://t.csv", labels="y").tensors["table"].tolist() == [[1.0], [3.0]]
    photos(tmp_path / "here")
    assert len(open(f"file://{tmp_path}/here")) == 6


def test_a_source_is_returned_as_it_is():
    source = open("wine")
    assert open(source) is source


@pytest.mark.parametrize("name", builtins())
def test_built_in_sets(name):
    a, b = open(name), open(name.replace("-", "_").upper())
    assert a.fingerprint == b.fingerprint
    assert len(a) == len(a.labels)
    for i in (0, len(a) - 1):
        assert a.read(i).keys() == set(a.modalities)
        assert content(a.read(i)) == content(b.read(i))
    if a.classes:
        assert set(a.labels) == set(range(len(a.classes)))
    if a.tensors is not None:
        assert all(torch.equal(a.tensors[m][1], x) for m, x in a.read(1).items())


def test_built_in_values():
    from sklearn.datasets import load_diabetes, load_digits, load_sample_images

    digits = open("digits")
    assert torch.equal(digits.tensors["image"][:, 0].double() * 16, torch.from_numpy(load_digits().images))
    assert open("diabetes").labels.tolist() == load_diabetes().target.tolist()
    photos = open("sample-photos")
    assert len(photos) == 120
    assert photos.classes == ("china", "flower")
    assert torch.equal(photos.read(61)["image"], chw(load_sample_images().images[1][:64, 64:128]))


def test_captions_say_what_the_scene_shows():
    scenes = open("captioned-shapes")
    assert len(scenes.classes) == 36
    assert "carry the labels" in scenes.notes[0]
    for i in range(40):
        ids = scenes.read(i)["text"]
        colour, shape = scenes.classes[scenes.labels[i]].split()
        assert ids[-1] == encoding.END
        assert colour in encoding.decode(ids)
        assert shape in encoding.decode(ids)
    assert torch.equal(scenes.read(7)["image"], open("shapes").read(7)["image"])
    seven = int(np.flatnonzero(open("digits").labels == 7)[0])
    assert encoding.decode(open("captioned-digits").read(seven)["text"]).endswith("seven")


def test_generated_sets_can_be_told_apart_by_their_content():
    """The mean colour of the middle must tell red from blue scenes, or the labels would be drawn from elsewhere."""
    scenes = open("captioned-shapes")
    red = [i for i in range(400) if scenes.classes[scenes.labels[i]].startswith("red")]
    blue = [i for i in range(400) if scenes.classes[scenes.labels[i]].startswith("blue")]
    warmth = scenes.source.tensors["image"].float().mean((2, 3)) @ torch.tensor([1.0, 0.0, -1.0])
    assert warmth[red].mean() > 15
    assert warmth[blue].mean() < -15


def test_wrong_kinds_of_request():
    with pytest.raises(RequestError, match="type dict cannot be opened"):
        open({"x": 1})
    with pytest.raises(RequestError, match="names a column or a labels file"):
        open("digits", labels="x")
