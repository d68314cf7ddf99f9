"""Masks: which class each pixel of a picture belongs to, from PNG files with the class's number per pixel."""

import io
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from headwater.core.errors import Unreadable
from headwater.data.source import digest
from headwater.data.stores import Files

VOID = 255  # in files of 8 bits: belongs to no class, as at the outlines of Pascal VOC
MODES = {"1", "L", "P", "I;16", "I;16B", "I"}  # one channel; of a palette the index counts, not the colour


class Masks(ABC):
    """The mask of every picture of a set. `names` are the classes, in the order of their numbers; empty if unknown."""

    names: tuple[str, ...]

    def marks(self, i: int) -> bool:
        """Whether picture i has a mask; all of one that has none is of class 0."""
        return True

    @abstractmethod
    def read(self, i: int) -> Int[Tensor, "h w"]:
        """The class of each pixel, -1 for none. Raises `Unreadable`."""

    @abstractmethod
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class MaskStack(Masks):
    """Masks in memory."""

    masks: UInt8[Tensor, "n h w"]
    names: tuple[str, ...] = ()

    def read(self, i: int) -> Int[Tensor, "h w"]:
        return self.masks[i].long()

    def fingerprint(self) -> str:
        return digest(self.masks.numpy().tobytes(), *self.names)


@dataclass(frozen=True)
class MaskFiles(Masks):
    """File i of `files` is the mask of picture i; without a name there is none. 255 in a file of 8 bits means no class, unless
    that many are named. A grey file of 0 and 255 alone, where no class is named, is black and white: 255 is class 1."""

    files: Files
    names: tuple[str, ...] = ()

    def marks(self, i: int) -> bool:
        return bool(self.files.name(i))

    def read(self, i: int) -> Int[Tensor, "h w"]:
        item = self.files.name(i)
        found, grey = _indices(self.files.load(i), item)
        if grey and not self.names and np.isin(found, (0, VOID)).all():
            return torch.from_numpy((found == VOID).astype(np.int64))
        if found.dtype == np.uint8 and len(self.names) <= VOID:
            mask = np.where(found == VOID, -1, found.astype(np.int64))
        else:
            mask = found.astype(np.int64)
        if self.names and mask.max() >= len(self.names):
            raise Unreadable(item, f"it has pixels of class {mask.max()}; {len(self.names)} are named, counted from 0")
        return torch.from_numpy(mask)

    def fingerprint(self) -> str:
        return digest(self.files.fingerprint(), *self.names)


def _indices(data: bytes, item: str) -> tuple[np.ndarray, bool]:
    """The number of each pixel, and whether the numbers are 8 bits of grey, not of a palette."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in MODES:
                raise Unreadable(item, f"it holds colours ({image.mode}); one channel of class numbers is expected")
            found, grey = np.array(image), image.mode == "L"
    except UnidentifiedImageError as error:
        raise Unreadable(item, f"it is no image (it starts with {data[:8]!r})") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise Unreadable(item, f"it is damaged or too large ({error})") from error
    if found.dtype == np.bool_:
        return found.astype(np.uint8), False
    if data[:4] == b"\x89PNG" and data[25] == 0 and data[24] in (2, 4):  # Pillow spreads grey of few bits over 0 to 255
        return found // np.uint8(255 // (2 ** data[24] - 1)), False
    return found, grey
