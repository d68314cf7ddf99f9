"""DICOM: one file as a picture, and the scanner's own values of a slice."""

import io
from typing import Any

import numpy as np

from headwater.core.errors import RequestError, Unreadable
from headwater.data.raster import depth

ENDINGS = frozenset({"dcm", "ima"})
MAGIC = b"DICM"  # at byte 128
GREY = ("MONOCHROME1", "MONOCHROME2")
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
    return one, one.pixel_array


def slope(one: Any) -> tuple[float, float]:
    """What stored values are multiplied by, and what is added to them."""
    return float(getattr(one, "RescaleSlope", None) or 1), float(getattr(one, "RescaleIntercept", None) or 0)


def rescaled(one: Any, values: np.ndarray) -> np.ndarray:
    """float32, in the scanner's own unit, such as Hounsfield's."""
    scale, offset = slope(one)
    return (values.astype(np.float64) * scale + offset).astype(np.float32)
