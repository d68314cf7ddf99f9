"""The readers of all modalities, and which of them a set of files asks for."""

from collections import Counter
from collections.abc import Mapping

from headwater.data.audio import AudioReader
from headwater.data.graph import GraphReader
from headwater.data.image import ImageReader
from headwater.data.points import PointsReader
from headwater.data.reader import Reader
from headwater.data.recordings import WfdbReader
from headwater.data.series import SeriesReader
from headwater.data.text import TextReader
from headwater.data.video import VideoReader
from headwater.data.volume import VolumeReader

# a file ending that two readers know belongs to the first, unless the user names the other
READERS: tuple[Reader, ...] = (
    ImageReader(),
    AudioReader(),
    VideoReader(),
    VolumeReader(),
    PointsReader(),
    GraphReader(),
    WfdbReader(),
    SeriesReader(),
    TextReader(),
)

ENDINGS = frozenset().union(*(reader.endings | reader.slices | reader.named | reader.beside for reader in READERS))

OWN = frozenset().union(*(reader.endings for reader in READERS))  # those that say by themselves what a file holds


def reader_for(endings: Mapping[str, int], modality: str | None = None) -> Reader | None:
    """The reader of most of the files, of which `endings` counts each ending; only one of `modality`, if that is given."""
    votes: Counter[int] = Counter()
    for at, reader in enumerate(READERS):
        if modality not in (None, reader.modality):
            continue
        taken = frozenset().union(*(r.endings for r in READERS[:at])) if modality is None else frozenset()
        known = reader.endings - taken if modality is None else reader.endings | reader.slices | reader.named
        votes[at] = sum(n for ending, n in endings.items() if ending in known)
    best = max(votes, key=lambda at: votes[at], default=None)
    return None if best is None or not votes[best] else READERS[best]
