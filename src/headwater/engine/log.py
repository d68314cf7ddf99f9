"""What a run says while it works: `metrics.jsonl`, one line per window, and one live line for people."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

Line = dict[str, Any]


class Journal:
    """`metrics.jsonl`: one JSON object per line, flushed as written."""

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        """With `resume_at`, lines about later steps (of work that was lost) are dropped first."""
        self.lines: list[Line] = []
        if resume_at is not None and path.exists():
            self.lines = [x for x in read(path) if x["step"] <= resume_at]
        path.write_text("".join(json.dumps(x) + "\n" for x in self.lines))
        self._file = path.open("a")

    def write(self, line: Line) -> None:
        self.lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[Line]:
    """The whole lines of a journal; a last line cut off by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def told(line: Line) -> dict[str, str]:
    """What people see of a line while a run goes on."""
    return {
        "loss": f"{line['loss']:.4f}",
        "": f"{line['items_per_second']:,.0f} items/s",
        "data wait": f"{line['data_wait']:.0%}",
    }


class Progress:
    """One line rewritten in place on a terminal; elsewhere a line every few seconds, so that logs stay short."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        """`every` counts the seconds between lines where the stream is no terminal."""
        self.stream = stream if stream is not None else sys.stderr
        self.live, self.every = self.stream.isatty(), every
        self.begin("", 0)

    def begin(self, what: str, total: int) -> None:
        """Count `total` pieces of something, such as steps, from now on."""
        self.what, self.total = what, total
        self.started = self.last = time.monotonic()
        self.first: int | None = None
        self.width = 0

    def show(self, done: int, facts: Mapping[str, str], force: bool = False) -> None:
        """`done` of `total`; facts follow in the order given."""
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if not force and now - self.last < (0.1 if self.live else self.every):
            return
        self.last = now
        pace = (done - self.first) / max(1e-9, now - self.started)
        left = f"{clock((self.total - done) / pace)} left" if pace and done < self.total else clock(now - self.started)
        parts = [f"{self.what} {done:,}/{self.total:,}", *(f"{k} {v}" for k, v in facts.items()), left]
        text = "  ".join(parts)
        if self.live:
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def end(self) -> None:
        if self.live and self.width:
            self.stream.write("\n")
            self.stream.flush()


def clock(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
