"""Sound files: WAV, FLAC, OGG, MP3 and whatever else libsndfile reads, as float32 [c t] at one sampling rate."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data.reader import Reader

NEEDED = "sound needs soundfile and soxr: pip install 'headwater[audio]'"


@dataclass(frozen=True)
class AudioReader(Reader):
    """Channels are mixed to one. Files of another rate are resampled to `rate` Hz, which, unless given, is the most
    common of the files looked at. Of a long file the first `seconds` are read, so memory does not grow with it."""

    rate: int = 0
    seconds: float = 30.0
    modality = "audio"
    endings = frozenset({"wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "au"})

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "1 t"]:
        soundfile = _soundfile()
        if not data:
            raise Unreadable(item, "the file is empty (zero bytes)")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                rate = file.samplerate
                values = file.read(int(self.seconds * rate), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise Unreadable(item, f"the sound is damaged or in no known format ({error})") from error
        if not len(values):
            raise Unreadable(item, "the sound has no samples")
        sound = values.mean(1)
        if self.rate and rate != self.rate:
            import soxr

            sound = soxr.resample(sound, rate, self.rate)
        return torch.from_numpy(np.ascontiguousarray(sound))[None]

    def settled(self, files: Sequence[bytes]) -> tuple["AudioReader", tuple[str, ...]]:
        found: Counter[int] = Counter()
        longest, wide = 0.0, 0
        for data in files:
            try:
                facts = _soundfile().info(io.BytesIO(data))
            except _soundfile().SoundFileError:
                continue
            found[facts.samplerate] += 1
            longest, wide = max(longest, facts.duration), max(wide, facts.channels)
        if not found:
            return self, ()
        rate = self.rate or found.most_common(1)[0][0]
        notes: list[str] = []
        others = {r: n for r, n in found.items() if r != rate}
        if others:
            told = ", ".join(f"{n} at {r} Hz" for r, n in sorted(others.items()))
            notes.append(f"Of {sum(found.values())} sounds looked at, {told} are resampled to {rate} Hz.")
        if longest > self.seconds:
            notes.append(f"Some sounds are longer than {self.seconds:g} s; their first {self.seconds:g} s are read.")
        if wide > 1:
            notes.append("Some sounds have several channels, which are mixed to one.")
        return replace(self, rate=rate), tuple(notes)

    def facts(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def reading(self) -> dict[str, Any]:
        return {"rate": self.rate, "seconds": self.seconds}

    def conform(self, wanted: Mapping[str, Any]) -> "AudioReader":
        return replace(self, **wanted)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library that it wraps is missing
        raise RequestError(f"This data holds {NEEDED}") from error
    return soundfile
