"""Sounds as float32 [c t] at one sampling rate: WAV, FLAC, OGG, MP3 and whatever else libsndfile reads; or arrays."""

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Sample
from headwater.data.reader import Reader
from headwater.data.source import Source, digest

RATE = 16_000  # Hz: what arrays are taken to be at that do not say
WHOLE = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})  # whole numbers: always finite


@dataclass(frozen=True)
class AudioReader(Reader):
    """Files of another rate are resampled to `rate` Hz, which, unless given, is the most common of the files looked at.

    seconds   a longer file is cut into pieces of equal length, at most this; each is an item of its own, and no more of
              the file is decoded for it
    mix       the mean of all channels, as one; otherwise they stay what they are
    """

    rate: int = 0
    seconds: float = 10.0
    mix: bool = True
    modality = "audio"
    streams = True
    endings = frozenset({"wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "au"})

    def __post_init__(self) -> None:
        if self.rate < 0 or self.seconds <= 0:
            raise RequestError(
                f"Sounds need a positive rate in Hz and pieces of some length; got rate={self.rate}, "
                f"seconds={self.seconds}."
            )

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c t"]:
        return self._read(io.BytesIO(data), item, 0, 1)

    def stream(self, file: BufferedIOBase, item: str) -> Float32[Tensor, "c t"]:
        return self._read(file, item, 0, 1)

    def pieces(self, file: BufferedIOBase) -> int:
        soundfile = _soundfile()
        try:
            facts = soundfile.info(file)
        except soundfile.SoundFileError:
            return 1
        return max(1, -(-facts.frames // max(1, int(self.seconds * facts.samplerate))))

    def piece(self, file: BufferedIOBase, item: str, k: int) -> Float32[Tensor, "c t"]:
        n = self.pieces(file)
        file.seek(0)
        return self._read(file, item, k, n)

    def _read(self, file: BufferedIOBase, item: str, k: int, n: int) -> Float32[Tensor, "c t"]:
        soundfile = _soundfile()
        if not file.read(1):
            raise Unreadable(item, "the file is empty (zero bytes)")
        file.seek(0)
        try:
            with soundfile.SoundFile(_handle(file), closefd=False) as sound:
                rate, length = sound.samplerate, sound.frames // n
                whole = sound.subtype in WHOLE
                if k:
                    sound.seek(k * length)
                values = sound.read(length, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise Unreadable(item, f"the sound is damaged or in no known format ({error})") from error
        if not len(values):
            raise Unreadable(item, "the sound has no samples")
        values = values.mean(1, keepdims=True) if self.mix and values.shape[1] > 1 else values
        if not (whole or np.isfinite(values.sum()) or np.isfinite(values).all()):  # the sum is quick, and may overflow
            raise Unreadable(item, "the sound holds values that are not finite")
        return torch.from_numpy(resampled(values.T, rate, self.rate or rate))

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["AudioReader", tuple[str, ...]]:
        soundfile = _soundfile()
        found: Counter[int] = Counter()
        longest, wide = 0.0, 0
        for file in files:
            try:
                facts = soundfile.info(file)
            except soundfile.SoundFileError:
                continue
            found[facts.samplerate] += 1
            longest, wide = max(longest, facts.duration), max(wide, facts.channels)
        if not found:
            return self, ()
        rate = self.rate or found.most_common(1)[0][0]
        notes: list[str] = []
        if others := {r: n for r, n in found.items() if r != rate}:
            told = ", ".join(f"{n} at {r} Hz" for r, n in sorted(others.items()))
            notes.append(f"Of {sum(found.values())} sounds looked at, {told} are resampled to {rate} Hz.")
        if longest > self.seconds:
            notes.append(f"Sounds longer than {self.seconds:g} s are cut into equal pieces no longer than that.")
        if wide > 1 and self.mix:
            notes.append("Some sounds have several channels, which are mixed to one.")
        return replace(self, rate=rate), tuple(notes)

    def facts(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def reading(self) -> dict[str, Any]:
        return {"rate": self.rate, "seconds": self.seconds, "mix": self.mix}

    def conform(self, wanted: Mapping[str, Any]) -> "AudioReader":
        return replace(self, **wanted)


class Sounds(Source):
    """An array of sounds [n c t] at `rate` Hz, read at `wanted` Hz. `told` is False where that rate is but assumed."""

    modalities = ("audio",)

    def __init__(
        self, array: Source, rate: int, *, told: bool = True, wanted: int | None = None, mix: bool = False
    ) -> None:
        self.array, self.rate, self.told, self.wanted, self.mix = array, rate, told, wanted or rate, mix
        self.name, self.labels, self.classes = array.name, array.labels, array.classes
        if not (mix or self.wanted != rate):
            self.tensors = array.tensors
        self.extra = {"audio": {"rate": self.wanted}}
        self.notes = array.notes
        if not told:
            ask = "hw.open(x, modality='audio', reading={'rate': 44100})"
            self.notes += (
                f"The array does not say its sampling rate; it is taken to be at {rate} Hz ({ask} says it).",
            )
        if self.wanted != rate:
            self.notes += (f"All {len(array)} sounds are at {rate} Hz and are resampled to {self.wanted} Hz.",)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, i: int) -> dict[str, Sample]:
        values = self.array.read(i)["audio"]
        assert isinstance(values, Tensor)
        if self.mix and len(values) > 1:
            values = values.mean(0, keepdim=True)
        return {"audio": torch.from_numpy(resampled(values.numpy(), self.rate, self.wanted))}

    def id(self, i: int) -> str:
        return self.array.id(i)

    def path(self, i: int) -> str:
        return self.array.path(i)

    def reading(self, modality: str) -> dict[str, Any]:
        return {"rate": self.wanted, "mix": self.mix}

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        rate, mix = wanted.get("rate", self.wanted), wanted.get("mix", self.mix)
        if rate != self.rate and not self.told:
            raise RequestError(
                f"{self.name} does not say its sampling rate and {rate} Hz is wanted; open it with "
                f"reading={{'rate': ...}}, the rate it is at."
            )
        return Sounds(self.array, self.rate, told=self.told, wanted=rate, mix=mix)

    @property
    def fingerprint(self) -> str:
        return digest(self.array.fingerprint, f"{self.rate} {self.wanted} {self.mix}")


def sounding(array: Source, reading: Mapping[str, Any]) -> Source:
    """An array of sounds at the rate that `reading` says, or at 16 kHz with a note."""
    rate = reading.get("rate", RATE)
    if not isinstance(rate, int) or rate <= 0:
        raise RequestError(f"{array.name}: the rate is a positive whole number of Hz; got {rate!r}.")
    return Sounds(array, rate, told="rate" in reading, mix=bool(reading.get("mix", False)))


def resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """[c t] at another rate, by soxr at its high quality."""
    if rate == wanted:
        return np.ascontiguousarray(values)
    try:
        import soxr
    except ImportError as error:
        raise RequestError(
            f"Sounds at {rate} Hz are read at {wanted} Hz, which needs soxr: pip install 'headwater[audio]'"
        ) from error
    return np.ascontiguousarray(soxr.resample(values.T, rate, wanted).T)


def _handle(file: BufferedIOBase) -> Any:
    """The number of a file of this machine, from which libsndfile reads without asking Python for each block."""
    try:
        number = file.fileno()
    except OSError:
        return file
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library that it wraps is missing
        raise RequestError("This data holds sound, which needs soundfile: pip install 'headwater[audio]'") from error
    return soundfile
