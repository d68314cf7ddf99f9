"""Commands as a user types them, in a process of their own or, faster, in this one."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from headwater.cli.main import main


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def headwater(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    """Run `headwater WORDS`; what it printed and how it ended."""
    before = sys.argv
    sys.argv = ["headwater", *map(str, words)]
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err, printed.err
    return Said(code, printed.out, printed.err)
