"""What a user reads when something is wrong: who, what value, what is expected, the nearest name."""

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(ValueError):
    """The request was wrong: another name, value, path or file mends it. Exit code 2."""


class WorkError(RuntimeError):
    """The request was right and the work failed: a full disk, a loss that is not finite. Exit code 1."""


class Unreadable(Exception):
    """One item of the data does not decode. `item` names it, `why` says what is wrong in a few words."""

    def __init__(self, item: str, why: str) -> None:
        super().__init__(f"{item}: {why}")
        self.item, self.why = item, why


def spelled(name: str) -> str:
    """Names accept hyphens, underscores and capitals alike."""
    return name.strip().lower().replace("_", "-")


def unknown(what: str, name: str, choices: Iterable[str]) -> RequestError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(set(choices))
    near = get_close_matches(spelled(name), known, n=1, cutoff=0.5)
    listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    hint = f" Did you mean {near[0]}?" if near else ""
    return RequestError(f"There is no {what} named {name!r}.{hint} Known: {listed or 'none'}.")
