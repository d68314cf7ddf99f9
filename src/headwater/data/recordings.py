"""WFDB records, PhysioNet's format: a header (.hea) and the files of its signals beside it."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from headwater.core.errors import RequestError, Unreadable
from headwater.data.series import Recording, SeriesFiles
from headwater.data.stores import unpack

SIGNAL = re.compile(  # file, gain, baseline, zero of the converter, name
    r"(\S+)\s+16\s+(-?\d+\.?\d*(?:[eE][+-]?\d+)?)(?:\((-?\d+)\))?(?:/\S+)?\s+\d+\s+(-?\d+)\s+-?\d+\s+-?\d+\s+\d+\s+(\S.*)"
)
TOP = re.compile(r"[^\s/]+\s+(\d+)\s+(\d+\.?\d*)(?:/\S+)?\s+(\d+)(?:\s.*)?")  # signals, rate, samples
NONE = -32768  # of 16 bits, stands for no value


@dataclass(frozen=True)
class WfdbReader(SeriesFiles):
    """The channels have the names of the signals, in physical units; the step is in seconds."""

    endings = frozenset({"hea"})
    beside = frozenset({"dat", "mat", "atr"})

    def recording(self, data: bytes, item: str) -> Recording:
        files = unpack(data)
        if files is None:
            raise Unreadable(item, "a record is a header and its signals; the header alone was given")
        header = next(name for name, _ in files if name.lower().endswith(".hea"))
        found = plain(dict(files)[header].decode(errors="replace"), {Path(n).name: content for n, content in files})
        return found or self._any(files, header, item)

    def _any(self, files: Sequence[tuple[str, bytes]], header: str, item: str) -> Recording:
        wfdb = _wfdb()
        with TemporaryDirectory() as aside:
            for name, content in files:
                (Path(aside) / Path(name).name).write_bytes(content)
            try:
                found = wfdb.rdrecord(str(Path(aside) / Path(header).stem))
            except Exception as error:  # wfdb raises many kinds on damaged files
                raise Unreadable(item, f"the record cannot be read ({type(error).__name__}: {error})") from error
        if found.p_signal is None or not found.p_signal.size:
            raise Unreadable(item, "the record has no signals")
        names = tuple(found.sig_name)
        if len(set(names)) < len(names):
            names = tuple(f"{name} {j}" for j, name in enumerate(names))
        return Recording(names, found.p_signal.T, np.arange(found.sig_len) / found.fs)

    def length(self, data: bytes) -> int:
        """By the header alone."""
        files = unpack(data)
        text = next((c for name, c in files or [] if name.lower().endswith(".hea")), b"").decode(errors="replace")
        line = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
        fields = line.split()
        if len(fields) < 4 or "/" in fields[0]:  # the length is elsewhere, or the record is in several segments
            return super().length(data)
        rate = re.match(r"[\d.]+", fields[2])
        if rate is None or not fields[3].isdigit():
            raise Unreadable("", "the header says no rate or no length")
        step, n = 1 / float(rate[0]), int(fields[3])
        return n if not self.step else int(np.floor((n - 1) * step / self.step + 0.01)) + 1


def plain(header: str, files: Mapping[str, bytes]) -> Recording | None:
    """A record of one segment in 16-bit numbers, as most are, many times faster than by wfdb; None for any other."""
    first, *rest = [line.strip() for line in header.splitlines() if line.strip() and not line.startswith("#")] or [""]
    top, signals = TOP.fullmatch(first), [found for line in rest if (found := SIGNAL.fullmatch(line))]
    if top is None or not float(top[2]) or not signals or not len(signals) == len(rest) == int(top[1]):
        return None
    names, n = tuple(found[5] for found in signals), int(top[3])
    parts: list[np.ndarray] = []
    for name, group in itertools.groupby(found[1] for found in signals):
        width, content = len(list(group)), files.get(name, b"")
        if not n or len(content) != 2 * n * width:
            return None
        parts.append(np.frombuffer(content, "<i2").reshape(n, width).T)
    stored = np.concatenate(parts)
    gain, base = (np.array(v, float)[:, None] for v in zip(*((s[2], s[3] or s[4]) for s in signals), strict=True))
    if len(set(names)) < len(names):
        return None
    values = np.where(stored == NONE, np.nan, (stored - base) / np.where(gain == 0, 200.0, gain))
    return Recording(names, values, np.arange(n) / float(top[2]))


def _wfdb() -> Any:
    try:
        import wfdb
    except ImportError as error:
        raise RequestError("WFDB records need wfdb: pip install 'headwater[medical]'") from error
    return wfdb
