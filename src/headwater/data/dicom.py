"""DICOM: one file as a picture, and the scanner's own values of a slice."""

import io
from typing import Any

import numpy as np

from headwater.core.errors import RequestError, Unreadable
from headwater.data.raster import depth

ENDINGS = frozenset({"dcm", "ima"})
MAGIC = b"DICM"  # at byte 128
GREY = ("MONOCHROME1", "MONOCHROME2")
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # transfer syntaxes: uncompressed, little endian
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # the last four become RGB as they are decoded


def picture(data: bytes, item: str) -> np.ndarray:
    """[1 h w] in the scanner's own values (the rescale slope and intercept applied), MONOCHROME1, where the lowest value is
    white, inverted within the range of its bits; 8 bits without a slope stay bytes. Colours: [3 h w]. Raises `Unreadable`."""
    try:
        one, values = stored(data)
    except RequestError as error:
        raise Unreadable(item, str(error)) from error
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise Unreadable(item, f"the DICOM file cannot be read ({type(error).__name__}: {error})") from error
    kind, frames = str(getattr(one, "PhotometricInterpretation", "")), int(getattr(one, "NumberOfFrames", 1) or 1)
    if frames > 1:
        raise Unreadable(item, f"it holds {frames} frames, and a picture is one")
    if kind in COLOUR and values.ndim == 3:
        return np.ascontiguousarray(depth(values).transpose(2, 0, 1))
    if kind not in GREY or values.ndim != 2:
        raise Unreadable(
            item, f"a DICOM picture is grey or RGB; this is {kind or 'of no kind'} of shape {values.shape}"
        )
    if kind == "MONOCHROME1":
        bits = int(one.BitsStored)
        low = -(1 << bits - 1) if one.PixelRepresentation else 0
        values = (2 * low + (1 << bits) - 1 - values.astype(np.int64)).astype(values.dtype)
    if values.dtype == np.uint8 and slope(one) == (1.0, 0.0):
        return values[None]
    return rescaled(one, values)[None]


def stored(data: bytes) -> tuple[Any, np.ndarray]:
    """The data set and its pixels as stored. Raises RequestError without pydicom, and many kinds on damaged files."""
    try:
        import pydicom
    except ImportError as error:
        raise RequestError("DICOM needs pydicom: pip install 'headwater[medical]'") from error
    one = pydicom.dcmread(io.BytesIO(data))
    plain = _plain(one)
    return one, one.pixel_array if plain is None else plain


def _plain(one: Any) -> np.ndarray | None:
    """The pixels of one uncompressed grey frame straight from their bytes, which is what pydicom's general machinery
    comes to for them, at more cost. None for any other file, and for one whose pixels are not as many as it says."""
    frames, bits = int(one.get("NumberOfFrames") or 1), one.get("BitsAllocated")
    if one.file_meta.get("TransferSyntaxUID") not in NATIVE or one.get("SamplesPerPixel") != 1 or frames != 1:
        return None
    if bits not in (8, 16, 32) or "PixelData" not in one:
        return None
    shape = one.Rows, one.Columns
    size = shape[0] * shape[1] * bits // 8
    if len(one.PixelData) != size + size % 2:  # filled up to an even number
        return None
    kind = np.dtype(f"<{'i' if one.PixelRepresentation else 'u'}{bits // 8}")
    values = np.frombuffer(one.PixelData, kind, shape[0] * shape[1]).reshape(shape)
    spare = bits - one.BitsStored
    return values << spare >> spare if spare else values.copy()  # what the unused bits hold is nobody's business


def slope(one: Any) -> tuple[float, float]:
    """What stored values are multiplied by, and what is added to them."""
    return float(getattr(one, "RescaleSlope", None) or 1), float(getattr(one, "RescaleIntercept", None) or 0)


def rescaled(one: Any, values: np.ndarray) -> np.ndarray:
    """float32, in the scanner's own unit, such as Hounsfield's."""
    scale, offset = slope(one)
    return (values.astype(np.float64) * scale + offset).astype(np.float32)
