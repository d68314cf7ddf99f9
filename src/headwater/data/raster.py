"""Rasters: TIFF files of any number of bands and any numbers, their bands' names, and pixels without a value.

GDAL's tags say which value stands for none and what the bands are called; a mask page may hide pixels too. A pixel without
a value, or one that is not a finite number, takes the mean of its band in its own tile: nothing downstream meets NaN, and
normalised it says nothing.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import unescape
from io import BufferedIOBase
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from headwater.core.errors import RequestError, Unreadable

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of files above 4 GB
BITS, PHOTOMETRIC, SAMPLES, EXTRA = 258, 262, 277, 338  # tags of TIFF
METADATA, NODATA = 42112, 42113  # tags of GDAL
PLAIN = {
    0: 1,
    1: 1,
    2: 3,
    3: 1,
    5: 4,
    6: 3,
}  # by the kind of colours, how many samples they take: grey, RGB, palette, ...
MIXED = (3, 5)  # palettes and inks, which Pillow makes colours of
LOOK = 16  # files whose pixels without a value are counted
NAME = re.compile(r'<Item(?=[^>]*\bname="DESCRIPTION")[^>]*\bsample="(\d+)"[^>]*>([^<]+)</Item>')

Bands = tuple[int, ...] | tuple[str, ...]  # numbers from 1, as in GDAL, or names; none: all as they come


@dataclass(frozen=True)
class Header:
    """
    names   one for each band; empty where some have none, or two the same
    nodata  the value that stands for none, as written; or ""
    whole   every pixel must have a value
    """

    bands: int
    names: tuple[str, ...]
    nodata: str
    whole: bool


def needed(data: bytes) -> bool:
    """Whether this is a TIFF that Pillow would not open, or would open with a part of its bands alone, or one with pixels
    that have no value."""
    if data[:4] not in MAGIC:
        return False
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        kind, samples, extra = tags.get(PHOTOMETRIC, 1), tags.get(SAMPLES, 1), tags.get(EXTRA, ())
        alpha = len(extra) == 1 and extra[0] in (1, 2)
        plain = samples == PLAIN.get(kind) + alpha and (samples == 1 or max(tags.get(BITS, (1,))) <= 8)
    except Exception:  # many kinds, on damaged files, as strange as the damage; `decode` says what is wrong
        return False
    return kind not in MIXED and (NODATA in tags or not plain)


def header(file: BufferedIOBase) -> Header | None:
    """What a TIFF says of its bands; None for what is none, is damaged, or where tifffile is not installed."""
    start = file.read(4)
    file.seek(0)
    if start not in MAGIC:
        return None
    try:
        import tifffile
    except ImportError:  # `decode` says so, for the files that need it
        return None
    try:
        with tifffile.TiffFile(file) as found:
            return _header(found)
    except Exception:  # tifffile raises many kinds on damaged files; `decode` says what is wrong
        return None


def _header(file: Any) -> Header:
    first, tags = file.series[0], file.pages[0].tags
    at = _channel_axis(first.axes, first.shape)
    bands = 1 if at is None else first.shape[at]
    said = dict(NAME.findall(str(tags[METADATA].value))) if METADATA in tags else {}
    # GDAL escapes twice
    names = tuple(unescape(unescape(said[str(k)])).strip() for k in range(bands) if str(k) in said)
    nodata = str(tags[NODATA].value).strip("\0 ") if NODATA in tags else ""
    whole = not nodata and first.dtype.kind in "biu" and not any(page.is_mask for page in file.pages[1:])
    return Header(bands, names if len(names) == bands == len({*names}) else (), nodata, whole)


def _channel_axis(axes: str, shape: tuple[int, ...]) -> int | None:
    """The axis of the samples if the file names one, else the shorter of the outer ones; None for a single band."""
    if len(shape) < 3:
        return None
    return 2 if axes.endswith("S") or ("S" not in axes and shape[2] < shape[0]) else 0


def load(data: bytes, item: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """(values [c h w] as stored, where there is none, names of the bands). Raises `Unreadable`."""
    try:
        import tifffile
    except ImportError as error:
        raise Unreadable(item, "this TIFF needs tifffile: pip install 'headwater[geo]'") from error
    most = Image.MAX_IMAGE_PIXELS
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page, first = file.pages[0], file.series[0]
            large = page.imagewidth * page.imagelength
            if not most or large <= most:
                array, said = first.asarray(), _header(file)
                mask = next((p.asarray() for p in file.pages[1:] if p.is_mask and p.shape == page.shape[-2:]), None)
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise Unreadable(item, f"the TIFF is damaged or cut short ({error})") from error
    if most and large > most:
        raise Unreadable(item, f"{large} pixels are more than the limit of {most}; cut the scene into tiles first")
    if array.dtype.kind not in "biuf":
        raise Unreadable(item, f"a TIFF of {array.dtype} values is not an image")
    if array.ndim not in (2, 3):
        raise Unreadable(
            item, f"this TIFF has the axes {first.axes} {array.shape}; channels, height and width are expected"
        )
    at = _channel_axis(first.axes, array.shape)
    array = array[None] if at is None else np.moveaxis(array, at, 0)
    absent = _equal(array, said.nodata) if said.nodata else None
    if mask is not None and mask.shape == array.shape[1:]:
        hidden = np.broadcast_to(mask == 0, array.shape)
        absent = hidden if absent is None else absent | hidden
    return array, absent, said.names


def _equal(array: np.ndarray, nodata: str) -> np.ndarray | None:
    """Where the array holds the value that GDAL's tag spells out; None where it cannot hold it."""
    try:
        value = float(nodata)
    except ValueError:
        return None
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array == array.dtype.type(value)  # NaN is looked for in any case
    return array == value


def decode(data: bytes, item: str, bands: Bands = ()) -> np.ndarray:
    """The chosen bands [c h w], uint8 or float32, every pixel with a value. Raises `Unreadable`."""
    array, absent, names = load(data, item)
    at = which(bands, len(array), names, item)
    if at is not None:
        array, absent = array[at], None if absent is None else absent[at]
    return filled(depth(array), item, absent)


def which(bands: Bands, n: int, names: tuple[str, ...], item: str) -> list[int] | None:
    """Where the wanted bands stand among n; None: all as they come. A file that names none of as many as are wanted is
    taken to have them in their order. Raises `Unreadable` where one is not there."""
    if not bands or (isinstance(bands[0], str) and not names and n == len(bands)):
        return None
    if isinstance(bands[0], str) and not names:
        raise Unreadable(item, f"its {n} bands have no names, and {', '.join(map(str, bands))} are asked for")
    known: Sequence[int | str] = names if isinstance(bands[0], str) else range(1, n + 1)
    lacking = next((b for b in bands if b not in known), None)
    if lacking is not None:
        there = f"{n} bands" + (f" ({', '.join(names)})" if isinstance(lacking, str) else "")
        raise Unreadable(item, f"it has {there}, and band {lacking} is asked for")
    return [known.index(b) for b in bands]


def depth(array: np.ndarray) -> np.ndarray:
    """Bytes as they are, 16 bits without a sign as floats in [0, 1], one bit as 0 and 255, all else as it is in floats."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return array.astype(np.float32) / np.float32(65535)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    return array.astype(np.float32)


def filled(array: np.ndarray, item: str, absent: np.ndarray | None = None) -> np.ndarray:
    """The array [c h w] with the mean of each band where a value is absent or no finite number. Raises `Unreadable` where
    a band has none at all."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        strange = ~np.isfinite(array)
        absent = strange if absent is None else absent | strange
    if absent is None or not absent.any():
        return np.ascontiguousarray(array)
    array = array.copy()
    for k, (band, hole) in enumerate(zip(array, absent, strict=True), 1):
        if hole.all():
            raise Unreadable(item, f"no pixel of band {k} of {len(array)} has a value")
        if hole.any():
            mean = band[~hole].mean(dtype=np.float64)
            band[hole] = mean.round() if band.dtype.kind == "u" else mean
    return array


def wanted(value: Any) -> Bands:
    """What a user or an encoder says of bands. Raises RequestError."""
    given = tuple(value) if isinstance(value, list | tuple) else ()
    numbers = all(isinstance(b, int) and not isinstance(b, bool) and b > 0 for b in given)
    if not given or not (numbers or all(isinstance(b, str) and b for b in given)):
        raise RequestError(
            f"bands is a list of numbers, counted from 1, or of names, such as ['B4', 'B3']; got {value!r}."
        )
    return given


def agreed(found: Sequence[Header], bands: Bands) -> tuple[Bands, tuple[str, ...]]:
    """The bands to take of files with these headers, and what a user should know of them. Where all files name the same
    bands they are taken by name, whatever their order."""
    named = [h.names for h in found if h.names]
    notes: list[str] = []
    if not bands and named and len(named) == len(found):
        if {*named[0]} == {n for names in named for n in names} and len({h.bands for h in found}) == 1:
            bands = named[0]
            notes.append(f"Bands: {', '.join(bands)}.")
            if len({*named}) > 1:
                notes.append("The files have them in different orders; each is read in this one.")
        else:
            notes.append("The files name their bands differently; they are taken in the order of each file.")
    elif bands and isinstance(bands[0], str) and len(named) < len(found):
        notes.append(f"Files that name no bands are taken to hold {', '.join(map(str, bands))}, in this order.")
    return bands, tuple(notes)


def surveyed(files: Iterable[BufferedIOBase], found: Sequence[Header]) -> tuple[str, ...]:
    """How many pixels of the first of these files have no value, as a note; nothing where all have one."""
    shares: list[float] = []
    for file, said in zip(files, found, strict=True):
        if len(shares) == LOOK:
            break
        if said.whole:
            shares.append(0.0)
            continue
        file.seek(0)
        try:
            array, absent, _ = load(file.read(), "")
        except Unreadable:
            continue
        strange = ~np.isfinite(array)
        shares.append(float((strange if absent is None else absent | strange).mean()))
    lacking = sum(s > 0 for s in shares)
    if not lacking:
        return ()
    values = sorted({said.nodata for said in found if said.nodata})
    told = f" ({', '.join(values)})" if values else ""
    return (
        f"In {lacking} of {len(shares)} files looked at, pixels have no value{told}: {np.mean(shares):.1%} of all. Each counts "
        "as the mean of its band in its file.",
    )
