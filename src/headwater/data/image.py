"""One image file's bytes to one tensor [c h w]: nothing is resized or cut to fewer bits.

8-bit files give uint8. 16-bit files give float32 in [0, 1] (divided by 65535); other depths give float32 as stored.
Palettes become RGB, 1-bit files 0 and 255, CMYK RGB. An alpha channel stays only where something is transparent. The
EXIF orientation is applied. Of an animation the first frame counts. The content decides, not the file's ending. TIFF of
many bands, and pixels without a value, are the business of `raster`; DICOM is that of `dicom`.
"""

import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from headwater.core.errors import Unreadable
from headwater.data import dicom, raster
from headwater.data.raster import Bands, depth
from headwater.data.reader import Reader

ENDINGS = frozenset({"png", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "bmp", "gif"})
ORIENTATION = 0x0112
BITS_PER_SAMPLE = 258
KEPT = {"L", "RGB", "I;16", "I;16B", "I;16L", "I;16N", "I", "F"}  # modes whose values are taken as they are

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a half-read picture must fail, not come back half grey


def decode(data: bytes, item: str, bands: Bands = ()) -> Shaped[Tensor, "c h w"]:
    """All channels, or those that `bands` chooses. Raises `Unreadable(item, why)` for what is empty, cut short, no image, or
    larger than Pillow's limit, and where a band is not there."""
    if not data:
        raise Unreadable(item, "the file is empty (zero bytes)")
    if raster.needed(data):
        return torch.from_numpy(raster.decode(data, item, bands))
    try:
        array = dicom.picture(data, item) if data[128:132] == dicom.MAGIC else _pixels(data, item)
    except (UnidentifiedImageError, SyntaxError) as error:
        if data[:4] in raster.MAGIC:
            array = raster.decode(data, item)
        else:
            raise Unreadable(
                item, f"the content is no image that Pillow knows (it starts with {data[:8]!r})"
            ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        raise Unreadable(item, _too_large(int(count.group()) if count else 0)) from error
    except (OSError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError) as error:
        raise Unreadable(item, f"the image is damaged or cut short ({error})") from error
    at = raster.which(bands, len(array), (), item)
    return torch.from_numpy(raster.filled(array if at is None else array[at], item))


def _too_large(pixels: int) -> str:
    return (
        f"{pixels} pixels are more than the limit of {Image.MAX_IMAGE_PIXELS} that guards against decompression bombs"
    )


def _pixels(data: bytes, item: str) -> np.ndarray:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
        return _deep_png(data, item)
    with Image.open(io.BytesIO(data)) as image:
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Unreadable(item, _too_large(image.width * image.height))
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,))
            deep = image.mode not in KEPT and max(np.atleast_1d(bits)) > 8
            if deep or image.n_frames > 1:
                return raster.decode(data, item)
        return _upright(image)


def from_pillow(image: Image.Image) -> Shaped[Tensor, "c h w"]:
    """A picture that Pillow has opened already, by the same rules."""
    return torch.from_numpy(_upright(image.copy()))


def _upright(image: Image.Image) -> np.ndarray:
    image.load()
    if image.getexif().get(ORIENTATION, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)
    return _as_array(image)


def _as_array(image: Image.Image) -> np.ndarray:
    mode = image.mode
    if mode == "1":
        image = image.convert("L")
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        plain = "L" if mode in ("L", "LA", "La") else "RGB"
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:
            image = image.convert(plain)
    elif mode not in KEPT:
        image = image.convert("RGB")
    if len(image.getbands()) == 1:
        return depth(np.array(image))[None]
    return _planes(image)


def _planes(image: Image.Image) -> UInt8[np.ndarray, "c h w"]:
    """The bands of a picture of several, taken one by one out of Pillow's own memory, which holds four bytes a pixel."""
    bands, shape = len(image.getbands()), (image.height, image.width)
    try:
        held = pa.array(image).values
    except ValueError:  # a very large picture lies there in several blocks
        return np.stack([np.asarray(band) for band in image.split()])
    pixels = np.frombuffer(held.buffers()[1], np.uint8, 4 * math.prod(shape), held.offset).reshape(*shape, 4)
    out = np.empty((bands, *shape), np.uint8)
    for band in range(bands):
        out[band] = pixels[..., band]
    return out


def _deep_png(data: bytes, item: str) -> np.ndarray:
    """PNG with 16 bits per channel and several channels, which Pillow would cut to 8 bits."""
    width, height = struct.unpack(">II", data[16:24])
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise Unreadable(item, _too_large(width * height))
    try:
        import imagecodecs
    except ImportError as error:
        raise Unreadable(item, "a PNG of 16 bits per colour needs imagecodecs: pip install 'headwater[geo]'") from error
    try:
        array = depth(imagecodecs.png_decode(data))
    except imagecodecs.PngError as error:
        raise Unreadable(item, f"the image is damaged or cut short ({error})") from error
    if array.shape[-1] in (2, 4) and (array[..., -1] == 1).all():
        array = array[..., :-1]
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def channels(data: bytes) -> int | None:
    """1 or 3 where the header alone tells, without decoding; else None."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            plain = image.format != "TIFF" and "transparency" not in image.info
            return {"1": 1, "L": 1, "RGB": 3, "CMYK": 3}.get(image.mode) if plain else None
    except Exception:  # a header that does not parse tells nothing; `decode` will say why
        return None


@dataclass(frozen=True)
class ImageReader(Reader):
    """PNG, JPEG, WebP, TIFF, BMP, GIF (its first frame); single DICOM files where the user asks for pictures.

    `bands` chooses and orders the bands, by number from 1 or by the names that the files give them.
    """

    bands: Bands = ()
    modality = "image"
    endings = ENDINGS
    named = dicom.ENDINGS

    def decode(self, data: bytes, item: str) -> Shaped[Tensor, "c h w"]:
        return decode(data, item, self.bands)

    def channels(self, data: bytes) -> int | None:
        return len(self.bands) or channels(data)

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["ImageReader", tuple[str, ...]]:
        found = [(file, said) for file in files if (said := raster.header(file)) is not None]
        if not found:
            return self, ()
        rasters, headers = zip(*found, strict=True)
        bands, notes = raster.agreed(headers, self.bands)
        return replace(self, bands=bands), notes + raster.surveyed(rasters, headers)

    def facts(self) -> dict[str, Any]:
        return {"bands": self.bands} if self.bands and isinstance(self.bands[0], str) else {}

    def reading(self) -> dict[str, Any]:
        return {"bands": list(self.bands) or None}

    def conform(self, wanted: Mapping[str, Any]) -> "ImageReader":
        """An encoder that chose no bands leaves a choice alone."""
        bands = wanted.get("bands")
        return self if bands is None else replace(self, bands=raster.wanted(bands))
