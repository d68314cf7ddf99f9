"""Rasters and single DICOM files: every band as written, chosen by number or name, nothing without a value goes on."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.data.doctor import examine
from headwater.data.image import decode
from headwater.data.statistics import statistics

tifffile = pytest.importorskip("tifffile")

SENTINEL = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"]


def values(dtype: Any, bands: int, seed: int = 0, size: tuple[int, int] = (7, 9)) -> np.ndarray:
    draw = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return draw.normal(size=(bands, *size)).astype(dtype)
    low = np.iinfo(dtype).min + 1
    return draw.integers(low, np.iinfo(dtype).max, (bands, *size)).astype(dtype)


def tiff(array: np.ndarray, names: list[str] | None = None, nodata: str | None = None, **more: Any) -> bytes:
    """[c h w] as GDAL would write it."""
    tags: list[tuple[Any, ...]] = []
    if names is not None:
        rows = "".join(
            f'<Item name="DESCRIPTION" sample="{k}" role="description">{n}</Item>' for k, n in enumerate(names)
        )
        tags.append((42112, "s", 0, f'<GDALMetadata><Item name="AREA">x</Item>{rows}</GDALMetadata>', True))
    if nodata is not None:
        tags.append((42113, "s", 0, nodata, True))
    planar = more.pop("planarconfig", "contig")
    stored = array[0] if len(array) == 1 else array if planar == "separate" else array.transpose(1, 2, 0)
    colour = 3 if more.setdefault("photometric", "minisblack") == "rgb" else 1
    if len(array) > 1:
        more |= {"planarconfig": planar, "extrasamples": [0] * (len(array) - colour)}
    out = io.BytesIO()
    tifffile.imwrite(out, stored, extratags=tags, metadata=None, **more)
    return out.getvalue()


def scaled(array: np.ndarray) -> torch.Tensor:
    """What a reader makes of stored values."""
    if array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))


def folder(at: Path, *files: bytes) -> Path:
    at.mkdir()
    for k, data in enumerate(files):
        (at / f"{k}.tif").write_bytes(data)
    return at


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 12])
def test_every_band_is_read_as_written(dtype: Any, bands: int, capfd: pytest.CaptureFixture[str]) -> None:
    array = values(dtype, bands)
    for planar in ("contig", "separate"):
        for colours in ("minisblack", "rgb") if bands >= 3 else ("minisblack",):
            for order in "<>":
                data = tiff(array, planarconfig=planar, photometric=colours, byteorder=order)
                assert torch.equal(decode(data, "x"), scaled(array)), (planar, colours, order)
    assert torch.equal(decode(tiff(array, bigtiff=True), "x"), scaled(array))
    assert capfd.readouterr().err == ""


def test_the_bands_of_a_geotiff_written_by_gdal(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    array = values(np.uint16, 3, size=(32, 32))
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        **{"height": 32, "width": 32, "count": 3, "dtype": "uint16", "compress": "deflate", "tiled": True},
        **{"blockxsize": 16, "blockysize": 16, "nodata": 7, "crs": "EPSG:32632"},
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as file:
        array[1, 3:5, 4] = 7
        file.write(array)
        file.descriptions = ("blue & green", "red", "nir")
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    source = hw.open(tmp_path)
    assert source.reading("image") == {"bands": ["blue & green", "red", "nir"]}
    x = source.read(0)["image"]
    assert x.shape == (3, 32, 32)
    assert torch.equal(x[::2], scaled(array[::2]))
    known = scaled(array)[1][torch.from_numpy(array[1] != 7)]
    assert torch.allclose(x[1, 3:5, 4], known.mean())
    assert "1 of 1 files" in " ".join(source.notes)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        (np.uint8, "0"),
        (np.uint16, "65535"),
        (np.int16, "-9999"),
        (np.float32, "-9999"),
        (np.float32, "-3.4028234663852886e+38"),
        (np.float32, "nan"),
        (np.float32, None),
    ],
)
def test_a_pixel_without_a_value_takes_the_mean_of_its_band(dtype: Any, nodata: str | None) -> None:
    array = np.clip(values(dtype, 3), -5000, 5000).astype(dtype)
    array[array == 0] = 1
    hole = np.zeros(array.shape, bool)
    hole[0, :3] = hole[2, 1, 1] = True
    array[hole] = np.nan if nodata is None else dtype(float(nodata))
    x = decode(tiff(array, nodata=nodata), "x").double()
    told = scaled(array).double()
    for k in range(3):
        known = told[k][torch.from_numpy(~hole[k])]
        assert torch.equal(x[k][torch.from_numpy(~hole[k])], known)
        mean = known.mean().round() if dtype == np.uint8 else known.mean()
        assert torch.allclose(x[k][torch.from_numpy(hole[k])], mean, rtol=1e-6)


def test_infinite_values_and_masked_pixels_have_no_value() -> None:
    array = values(np.float32, 1)
    array[0, 0, 0], array[0, 0, 1] = np.inf, -np.inf
    x = decode(tiff(array), "x")
    assert torch.allclose(x[0, 0, :2], torch.from_numpy(array).flatten()[2:].mean())
    out, shown, stored = io.BytesIO(), np.ones((7, 9), bool), values(np.uint8, 1)
    shown[2:4] = False
    with tifffile.TiffWriter(out) as file:
        file.write(stored[0], photometric="minisblack", metadata=None)
        file.write(shown, photometric="mask", subfiletype=4, metadata=None)
    x = decode(out.getvalue(), "x")
    assert torch.equal(x[0, 4:], torch.from_numpy(stored[0, 4:]))
    assert (x[0, 2:4] == round(stored[0][shown].mean())).all()


def test_holes_are_counted_and_an_empty_band_is_an_item_that_cannot_be_read(tmp_path: Path) -> None:
    tiles = [values(np.int16, 5, seed=s, size=(10, 10)) for s in range(4)]
    tiles[0][:, :5] = -1
    tiles[1][3] = -1
    source = hw.open(folder(tmp_path / "tiles", *[tiff(t, nodata="-1") for t in tiles]))
    assert any("In 2 of 4 files looked at" in note and "(-1): 17.5% of all" in note for note in source.notes)
    with pytest.raises(Unreadable, match=r"1\.tif: no pixel of band 4 of 5 has a value"):
        source.read(1)
    assert [item for item, _ in examine(source).unreadable] == ["1.tif"]
    assert all(bool(source.read(i)["image"].isfinite().all()) for i in (0, 2, 3))
    assert hw.open(tmp_path / "tiles", reading={"bands": [1, 2]}).read(1)["image"].shape == (2, 10, 10)


def test_bands_are_chosen_by_number_and_name(tmp_path: Path) -> None:
    arrays = [values(np.uint16, 12, seed=s) for s in range(3)]
    at = folder(tmp_path / "tiles", *[tiff(a, SENTINEL) for a in arrays])
    assert hw.open(at).spec["image"]["bands"] == tuple(SENTINEL)
    by_number, by_name = (hw.open(at, reading={"bands": b}) for b in ([4, 3, 2], ["B4", "B3", "B2"]))
    for source in (by_number, by_name):
        assert source.spec["image"]["channels"] == 3
        assert torch.equal(source.read(1)["image"], scaled(arrays[1][[3, 2, 1]]))
    assert by_name.spec["image"]["bands"] == ("B4", "B3", "B2")
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as packed:
        packed.writestr("a.tif", tiff(arrays[0], SENTINEL))
    packed_up = hw.open(tmp_path / "tiles.zip", reading={"bands": ["B12"]})
    assert torch.equal(packed_up.read(0)["image"], scaled(arrays[0][[11]]))
    for wrong, why in (
        ([0], "counted from 1"),
        ([], "counted from 1"),
        (["B4", 3], "counted from 1"),
        ("B4", "counted from 1"),
        ([13], "it has 12 bands, and band 13 is asked for"),
        (["B13"], "and band B13 is asked for"),
    ):
        with pytest.raises(RequestError, match=why):
            hw.open(at, reading={"bands": wrong})
    with pytest.raises(RequestError, match=r"no way of reading images named .band.\. Did you mean bands"):
        hw.open(at, reading={"band": [1]})


def test_an_encoder_meets_new_tiles_in_the_order_it_learned(tmp_path: Path) -> None:
    array = values(np.uint16, 3)
    names, other = ["B4", "B3", "B2"], ["B2", "B3", "B4"]
    learned = hw.open(folder(tmp_path / "a", tiff(array, names), tiff(array[::-1], other)))
    assert torch.equal(learned.read(0)["image"], learned.read(1)["image"])
    assert "different orders" in " ".join(learned.notes)
    read = learned.reading("image")
    turned = hw.open(folder(tmp_path / "b", tiff(array[::-1], other)))
    assert torch.equal(turned.conform("image", read).read(0)["image"], scaled(array))
    nameless = hw.open(folder(tmp_path / "c", tiff(array))).conform("image", read)
    assert torch.equal(nameless.read(0)["image"], scaled(array))
    assert "taken to hold B4, B3, B2, in this order" in " ".join(nameless.notes)
    with pytest.raises(RequestError, match="its 5 bands have no names, and B4, B3, B2 are asked for"):
        hw.open(folder(tmp_path / "d", tiff(values(np.uint16, 5)))).conform("image", read)
    chosen = hw.open(tmp_path / "b", reading={"bands": [1]})  # an encoder that chose none leaves a choice alone
    assert chosen.conform("image", {"bands": None}).read(0)["image"].shape[0] == 1


def test_the_choice_of_bands_goes_with_the_encoder(tmp_path: Path) -> None:
    tiles = [values(np.uint16, 4, seed=s, size=(16, 16)) for s in range(8)]
    at = folder(tmp_path / "tiles", *map(tiff, tiles))
    changes = [
        "encoder.image.trunk.dim=12",
        "encoder.image.trunk.depth=1",
        "method.decoder.dim=16",
        "method.decoder.depth=1",
    ]
    data = hw.open(at, reading={"bands": [4, 1]})
    run = hw.pretrain("mae", data, out=tmp_path / "run", steps=1, batch_size=4, encoder="vit-micro/4", set=changes)
    assert run.encoder.card.preprocessing["read"] == {"bands": [4, 1]}
    chosen = hw.embed(tmp_path / "run", data, out=tmp_path / "a.npy")
    whole = hw.embed(tmp_path / "run", at, out=tmp_path / "b.npy")
    np.testing.assert_array_equal(chosen, whole)


def test_files_of_different_bands_are_one_clear_error(tmp_path: Path) -> None:
    at = folder(tmp_path / "tiles", *[tiff(values(np.uint16, c)) for c in (10, 10, 12)])
    assert any("differ in channels (10, 12)" in note for note in hw.open(at).notes)
    for encoder in ("", "vit-micro", "vit-micro/groups", "resnet-nano"):
        with pytest.raises(RequestError, match=r"images differ in their number of channels.*reading=.*'bands'"):
            hw.pretrain("simclr", at, out=tmp_path / "run", encoder=encoder)
    assert len(hw.open(at, reading={"bands": [10, 1]}).read(2)["image"]) == 2


def test_each_band_of_twelve_is_normalised_by_its_own(tmp_path: Path) -> None:
    level = np.arange(1, 13)[:, None, None] * 500
    arrays = [(level + level / 10 * np.random.default_rng(s).normal(size=(12, 16, 16))).round() for s in range(6)]
    source = hw.open(folder(tmp_path / "tiles", *[tiff(a.astype(np.uint16)) for a in arrays]))
    mean, std = statistics(source)["image"]
    stored = np.stack(arrays).transpose(1, 0, 2, 3).reshape(12, -1) / 65535
    np.testing.assert_allclose(mean, stored.mean(1), rtol=1e-5)
    np.testing.assert_allclose(std, stored.std(1), rtol=1e-4)
    assert "own_unit" not in source.spec["image"]
    signed = hw.open(folder(tmp_path / "signed", *[tiff(a.astype(np.int16)) for a in arrays]))
    assert signed.spec["image"]["own_unit"] is True


def dicom(array: np.ndarray, kind: str = "MONOCHROME2", **more: Any) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID = more.pop("series", None) or generate_uid()
    one.Rows, one.Columns, one.PhotometricInterpretation = *array.shape[:2], kind
    one.SamplesPerPixel, one.PlanarConfiguration = (3, 0) if kind == "RGB" else (1, 0)
    one.BitsAllocated = one.BitsStored = 8 * array.dtype.itemsize
    one.BitsStored = more.pop("bits", one.BitsStored)
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(array.dtype.kind == "i")
    for name, value in more.items():
        setattr(one, name, value)
    one.PixelData = array.tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, one, enforce_file_format=True)
    return out.getvalue()


def test_single_dicom_files_are_pictures_where_that_is_asked(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    grey, signed = draw.integers(0, 4096, (6, 5)).astype(np.uint16), draw.integers(-500, 500, (6, 5)).astype(np.int16)
    small, colours = (draw.integers(0, 256, s).astype(np.uint8) for s in ((6, 5), (6, 5, 3)))
    (tmp_path / "scans").mkdir()
    files = {
        "a": dicom(grey, bits=12, RescaleSlope=2, RescaleIntercept=-1000),
        "b": dicom(signed),
        "c": dicom(grey, "MONOCHROME1", bits=12),
        "d": dicom(signed, "MONOCHROME1", bits=10),
    }
    for name, data in files.items():
        (tmp_path / "scans" / f"{name}.dcm").write_bytes(data)
    source = hw.open(f"image:{tmp_path / 'scans'}")
    assert [source.id(i) for i in range(len(source))] == ["a.dcm", "b.dcm", "c.dcm", "d.dcm"]
    expected = [2.0 * grey - 1000, signed, 4095.0 - grey, -1.0 - signed]
    for i, values in enumerate(expected):
        assert torch.equal(source.read(i)["image"], torch.from_numpy(values[None].astype(np.float32)))
    assert source.spec["image"]["own_unit"] is True
    assert torch.equal(decode(dicom(small), "x"), torch.from_numpy(small[None]))
    assert torch.equal(decode(dicom(small, "MONOCHROME1"), "x"), torch.from_numpy(255 - small[None]))
    assert torch.equal(decode(dicom(colours, "RGB"), "x"), torch.from_numpy(colours.transpose(2, 0, 1).copy()))
    with pytest.raises(Unreadable, match="2 frames, and a picture is one"):
        decode(dicom(np.concatenate([small, small]), NumberOfFrames=2, Rows=6), "x")
    with pytest.raises(Unreadable, match="x: the DICOM file cannot be read"):
        decode(dicom(grey)[:-20], "x")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as packed:
        packed.writestr("a.dcm", files["a"])
    assert len(hw.open(f"image:{tmp_path / 'scans.zip'}")) == 1
    with pytest.raises(RequestError, match="4 series, not to one volume \\(image:FOLDER reads each by itself\\)"):
        hw.open(f"volume:{tmp_path / 'scans'}")


def test_a_folder_of_one_series_stays_a_volume_and_its_slices_can_be_pictures(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    for k in range(3):
        data = dicom(np.full((6, 5), k, np.uint16), series="1.2.3", InstanceNumber=k)
        (tmp_path / "scan" / f"{k}.dcm").write_bytes(data)
    volume, pictures = (hw.open(f"{kind}:{tmp_path / 'scan'}") for kind in ("volume", "image"))
    assert (len(volume), len(pictures)) == (1, 3)
    assert volume.read(0)["volume"].shape == (1, 3, 6, 5)
    assert pictures.read(2)["image"].unique().tolist() == [2.0]
