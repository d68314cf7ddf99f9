"""Bad input: one clear message for each, and nothing half read."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from headwater.core.errors import RequestError, Unreadable
from headwater.data import open
from headwater.data.image import decode

from .test_data_open import cache, encoded, packed, photos, pixels, put  # noqa: F401 (cache is a fixture)


def refused(match: str, what, **options) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        open(what, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def bad(match: str, data: bytes) -> None:
    with pytest.raises(Unreadable, match=match) as caught:
        decode(data, "here.png")
    assert caught.value.item == "here.png"


def test_missing_paths_name_the_nearest(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    refused("no file or folder 'photo/'.*Did you mean photos", "photo/")
    refused("Did you mean .*photos/cat", tmp_path / "photos/cta")
    refused("Did you mean .*/photos", tmp_path / "fotos/cat/deep")
    refused("no built-in set of that name.*Did you mean the built-in set digits", "digts")
    refused("Did you mean photos", "photso")


def test_a_name_that_is_both_says_so(tmp_path, monkeypatch):
    photos(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert "./digits is the file" in open("digits").notes[-1]
    assert len(open("./digits")) == 6


def test_folders_with_nothing_to_read(tmp_path):
    refused("There are no files in", tmp_path)
    put(tmp_path / "a.docx", b"x")
    put(tmp_path / "b.docx", b"x")
    put(tmp_path / "deep/README", b"x")
    refused(r"2 \.docx, 1 without ending; expected images \(\.bmp", tmp_path)
    refused(r"2 \.docx", f"{tmp_path}/*.docx")
    put(tmp_path / "c.png", b"not an image at all")
    refused("None of the 1 image files tried .* c.png: the content is no image", tmp_path)


def test_empty_and_mislabelled_files():
    bad("zero bytes", b"")
    bad("no image that Pillow knows", b"%PDF-1.7 something else")
    assert decode(encoded(pixels(), "BMP"), "here.png").shape == (3, 6, 5)  # the content decides


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_images_are_never_filled_in(form):
    data = encoded(pixels(h=64, w=64), form)
    for share in (0.3, 0.6, 0.9):
        bad("damaged or cut short|no image that Pillow knows", data[: int(len(data) * share)])


def test_truncated_many_channel_tiff():
    tifffile = pytest.importorskip("tifffile")
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((7, 32, 32), np.uint16), photometric="minisblack", compression="deflate")
    bad("damaged or cut short", out.getvalue()[:-40])


@pytest.mark.parametrize("side", [10_000, 40_000])
@pytest.mark.filterwarnings("default")
def test_decompression_bombs(side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    bad(f"{side * side} pixels are more than the limit of {Image.MAX_IMAGE_PIXELS}", png)
    deep = png.replace(header, chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)))
    bad(f"{side * side} pixels", deep)


def test_one_bad_file_leaves_the_others_readable(tmp_path):
    photos(tmp_path)
    put(tmp_path / "cat/1.png", encoded(pixels())[:60])
    source = open(tmp_path)
    with pytest.raises(Unreadable, match=r"cat/1\.png"):
        source.read(1)
    assert source.read(0)["image"].shape == (3, 6, 5)
    assert source.spec["image"]["channels"] == 3


def test_labels_files(tmp_path):
    photos(tmp_path)
    refused("labels file 'gone.csv' is neither here nor in", tmp_path, labels="gone.csv")

    def labels(text: str) -> str:
        return str(put(tmp_path / "labels.csv", text.encode()))

    refused("needs a column named file", tmp_path, labels=labels("picture,label\ncat/0.png,x\n"))
    refused("needs a column named label.*it has file, species", tmp_path, labels=labels("file,species\ncat/0.png,x\n"))
    refused("no column of .* named 'specis'.*Did you mean species", tmp_path, labels=f"{tmp_path}/labels.csv:specis")
    refused("names none of the files; it has 'nowhere.png'", tmp_path, labels=labels("file,label\nnowhere.png,x\n"))
    refused("names a file more than once", tmp_path, labels=labels("file,label\ncat/0.png,x\ncat/0.png,y\n"))


def test_tables(tmp_path):
    table = put(tmp_path / "t.csv", b"age,kind\n1,a\n2,b\n")
    refused("no column of .* named 'knid'.*Did you mean kind", table, labels="knid")
    refused("has no rows", put(tmp_path / "none.csv", b"age,kind\n"))
    refused("cannot be read", put(tmp_path / "empty.csv", b""))
    refused("cannot be read", put(tmp_path / "uneven.csv", b"a,b\n1,2\n1,2,3\n"))
    refused("cannot be read", put(tmp_path / "t.parquet", b"PAR1 not really"))
    refused("cannot be read", put(tmp_path / "t.arrow", b"nothing of the kind"))
    refused("no column of numbers or of a few words: when", pa.table({"when": pa.array([[1], [2]])}))


def test_arrays(tmp_path):
    refused(r"shape \(3,\); expected \[n columns\]", np.zeros(3))
    refused("holds object; numbers", np.array([[None]]))
    refused("is empty", np.zeros((0, 3)))
    refused(r"labels of .* one per sample is expected: \(3,\)", (np.zeros((3, 2)), [1, 2]))
    np.save(tmp_path / "o.npy", np.array([[{}]]), allow_pickle=True)
    refused("cannot be read.*Python objects", tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", x=np.array([[{}]]))
    refused("cannot be read.*allow_pickle=False", tmp_path / "o.npz")
    np.savez(tmp_path / "ab.npz", a=np.zeros((2, 2)), b=np.zeros(2))
    refused("holds a, b; x, and y for labels", tmp_path / "ab.npz")
    for targets, told in (
        (np.zeros(3), r"float64 of shape \(3,\); a vector of numbers per sample is expected: \(3, d\)"),
        (np.zeros((2, 4)), r"shape \(2, 4\)"),
        (np.zeros((3, 0)), r"shape \(3, 0\)"),
        (np.array([["a"]] * 3), "<U1"),
        (np.array([[0.0], [np.inf], [0.0]]), "hold NaN or infinity"),
    ):
        np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), targets=targets)
        refused(f"The targets of t.npz .*{told}", tmp_path / "t.npz")
    whole = (np.save(tmp_path / "w.npy", np.zeros((40, 4))), (tmp_path / "w.npy").read_bytes())[1]
    refused("cannot be read", put(tmp_path / "half.npy", whole[:500]))


def test_archives(tmp_path):
    files = {f"{k}.png": encoded(pixels(k, 40, 40)) for k in range(3)}
    for form, match in (("zip", "cut short"), ("tar", "unexpected end of data")):
        whole = packed(tmp_path, form, files).read_bytes()
        refused(match, put(tmp_path / f"half.{form}", whole[: len(whole) // 2]))
    refused("neither zip nor tar", put(tmp_path / "text.zip", b"hello" * 300))
    refused("packed as a whole", put(tmp_path / "a.tar.gz", b""))
    refused(r"there are 1 \.md", packed(tmp_path, "zip", {"readme.md": b"x"}))


def test_a_flipped_bit_in_a_zip_is_found(tmp_path):
    path = packed(tmp_path, "zip", {"0.bmp": encoded(pixels(), "BMP"), "1.bmp": encoded(pixels(1), "BMP")})
    source = open(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"0.bmp") + 5 + 80] ^= 1  # a pixel of the member that is stored as it is
    path.write_bytes(data)
    with pytest.raises(Unreadable, match="checksum differs"):
        source.read(0)
    assert source.read(1)["image"].shape == (3, 6, 5)


def test_an_archive_cut_after_it_was_opened(tmp_path):
    path = packed(tmp_path, "tar", {f"{k}.bmp": encoded(pixels(k, 40, 40), "BMP") for k in range(3)})
    source = open(path)
    path.write_bytes(path.read_bytes()[:7000])
    assert source.read(0)["image"].shape == (3, 40, 40)
    with pytest.raises(Unreadable, match="the archive ends before this member does"):
        source.read(2)


def test_other_files_and_addresses(tmp_path):
    refused(r"ends in \.docx; expected a folder", put(tmp_path / "a.docx", b"x"))
    refused("names no files", put(tmp_path / "a.txt", b"\n\n"))
    refused("cannot be opened", "nosuchprotocol://x/y")
    refused("There is nothing at memory://nowhere/at/all", "memory://nowhere/at/all")


def test_items_of_a_data_set_that_fail():
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            if i == 1:
                raise OSError("disk on fire")
            return np.zeros((3, 4, 4)) if i == 0 else np.zeros(4)

    source = open(Broken())
    with pytest.raises(Unreadable, match="OSError: disk on fire"):
        source.read(1)
    with pytest.raises(Unreadable, match="modality table where the first was image"):
        source.read(2)


def test_file_names_that_are_not_text(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png")).write_bytes(encoded(pixels()))
    refused("not valid UTF-8", tmp_path)
