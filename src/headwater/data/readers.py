"""The readers of all modalities, and which of them a set of files asks for."""

from collections import Counter
from collections.abc import Mapping

from headwater.data.image import ImageReader
from headwater.data.reader import Reader
from headwater.data.text import TextReader

# a file ending that two readers know belongs to the first, unless the user names the other
READERS: tuple[Reader, ...] = (ImageReader(), TextReader())

ENDINGS = frozenset().union(*(reader.endings for reader in READERS))


def reader_for(endings: Mapping[str, int], modality: str | None = None) -> Reader | None:
    """The reader of most of the files, of which `endings` counts each ending; only one of `modality`, if that is given."""
    votes: Counter[int] = Counter()
    for at, reader in enumerate(READERS):
        if modality not in (None, reader.modality):
            continue
        taken = frozenset().union(*(r.endings for r in READERS[:at])) if modality is None else frozenset()
        votes[at] = sum(n for ending, n in endings.items() if ending in reader.endings - taken)
    best = max(votes, key=lambda at: votes[at], default=None)
    return None if best is None or not votes[best] else READERS[best]
