"""Clips as uint8 [3 t h w]: video files, animated GIFs where the user says video, and folders of numbered pictures."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data import image
from headwater.data.reader import Reader
from headwater.data.stores import unpack

LARGE, SMALL = 112, 64  # the side that clips are read at, for large pictures; small ones keep their own


@dataclass(frozen=True)
class VideoReader(Reader):
    """`frames` frames, evenly spread over the whole file, each scaled until it covers `size` pixels and cut at the centre.

    `size` 0 is settled by the files: 112 for large pictures. Frames are decoded one after the other and scaled at once,
    so memory does not grow with the length.
    """

    frames: int = 16
    size: int = 0
    modality = "video"
    endings = frozenset({"mp4", "webm", "mov", "mkv", "avi", "m4v", "mpg", "mpeg", "gif"})
    slices = image.ENDINGS - {"gif"}

    def decode(self, data: bytes, item: str) -> UInt8[Tensor, "3 t h w"]:
        if not data:
            raise Unreadable(item, "the file is empty (zero bytes)")
        pictures = unpack(data)
        return self._folder(pictures, item) if pictures is not None else self._file(data, item)

    def _folder(self, pictures: list[tuple[str, bytes]], item: str) -> UInt8[Tensor, "3 t h w"]:
        pictures = sorted(pictures, key=lambda p: natural(p[0]))
        found = []
        for i in self._chosen(len(pictures)):
            try:
                with Image.open(io.BytesIO(pictures[i][1])) as picture:
                    found.append(self._fitted(np.asarray(picture.convert("RGB"))))
            except (OSError, SyntaxError, ValueError) as error:
                raise Unreadable(item, f"the frame {pictures[i][0]} cannot be read ({error})") from error
        return torch.from_numpy(np.stack(found, 1))

    def _file(self, data: bytes, item: str) -> UInt8[Tensor, "3 t h w"]:
        av = _av()
        try:
            with av.open(io.BytesIO(data)) as container:
                if not container.streams.video:
                    raise Unreadable(item, "there is no picture in it, only sound")
                times = sorted(p.pts for p in container.demux(video=0) if p.pts is not None)
            if not times:
                raise Unreadable(item, "the video has no frames")
            wanted = [times[i] for i in self._chosen(len(times))]
            with av.open(io.BytesIO(data)) as container:
                found = list(self._reached(container.decode(video=0), wanted))
        except av.error.FFmpegError as error:
            raise Unreadable(item, f"the video is damaged or in no known format ({error.strerror})") from error
        if not found:
            raise Unreadable(item, "the video has no frames")
        found += found[-1:] * (self.frames - len(found))  # cut short at the end: its last frame stands still
        return torch.from_numpy(np.stack(found, 1))

    def _reached(self, frames: Iterator[Any], wanted: list[int]) -> Iterator[np.ndarray]:
        """The frame shown at each wanted time. Only these are turned into pictures."""
        at = 0
        for frame in frames:
            if at == len(wanted):
                return
            if frame.pts is None or frame.pts < wanted[at]:
                continue
            side = self.size or min(frame.width, frame.height)
            shrink = side / min(frame.width, frame.height)
            width, height = max(side, round(frame.width * shrink)), max(side, round(frame.height * shrink))
            picture = self._cut(frame.to_ndarray(format="rgb24", width=width, height=height), side)
            while at < len(wanted) and wanted[at] <= frame.pts:
                yield picture
                at += 1

    def _chosen(self, n: int) -> list[int]:
        return [int(i) for i in np.linspace(0, n - 1, self.frames).round()]

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        side = self.size or min(height, width)
        shrink = side / min(height, width)
        if shrink != 1:
            size = max(side, round(width * shrink)), max(side, round(height * shrink))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        return self._cut(picture, side)

    def _cut(self, picture: np.ndarray, side: int) -> np.ndarray:
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        return np.ascontiguousarray(picture[top : top + side, left : left + side].transpose(2, 0, 1))

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["VideoReader", tuple[str, ...]]:
        if self.size:
            return self, ()
        for file in files:
            try:
                side = replace(self, frames=1).decode(file.read(), "").shape[-1]
            except Unreadable:
                continue
            size = side // 8 * 8 if 8 <= side <= SMALL else LARGE
            note = f"Clips are read as {self.frames} frames of {size} x {size}, cut at the centre."
            return replace(self, size=size), (note,)
        return self, ()

    def reading(self) -> dict[str, Any]:
        return {"frames": self.frames, "size": self.size}

    def conform(self, wanted: Mapping[str, Any]) -> "VideoReader":
        return replace(self, **wanted)


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key by which frame2 comes before frame10."""
    parts: list[str] = []
    for letter in name:
        if parts and letter.isdigit() == parts[-1][-1].isdigit():
            parts[-1] += letter
        else:
            parts.append(letter)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise RequestError("Video files need PyAV: pip install 'headwater[video]'") from error
    av.logging.set_level(av.logging.PANIC)  # what it would print of a broken file, we say
    return av
