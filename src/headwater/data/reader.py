"""One modality's files: which endings they go by, and how their bytes become samples."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from typing import Any, ClassVar

from headwater.core.types import Sample


class Reader(ABC):
    """A frozen dataclass that decodes one file's bytes. Its fields say how: a sampling rate, a number of frames.

    What the fields should be may depend on the data: `settled` chooses them from a few files when a set is opened,
    `reading` writes them down with the encoder, and `conform` takes them up again, so that new data are read as the
    data were that the encoder learned from.
    """

    modality: ClassVar[str]
    endings: ClassVar[frozenset[str]]
    named: ClassVar[frozenset[str]] = frozenset()  # endings that it reads too where the user names its modality
    slices: ClassVar[frozenset[str]] = frozenset()  # files of which a whole folder is one item, packed together
    streams: ClassVar[bool] = False  # `stream` reads a file more quickly than `decode` its bytes
    beside: ClassVar[frozenset[str]] = frozenset()  # files that belong to one of `endings` with the same stem

    @abstractmethod
    def decode(self, data: bytes, item: str) -> Sample:
        """The whole file. Raises `Unreadable(item, why)`."""

    def stream(self, file: BufferedIOBase, item: str) -> Sample:
        """The whole file, from itself. Raises `Unreadable(item, why)`."""
        return self.decode(file.read(), item)

    def pieces(self, file: BufferedIOBase) -> int:
        """How many items a file is cut into, its header read alone where that tells; 1 for a damaged one."""
        return 1

    def piece(self, file: BufferedIOBase, item: str, k: int) -> Sample:
        """Item k of those, no more of the file read than it takes. Raises `Unreadable`."""
        return self.decode(file.read(), item)

    def channels(self, data: bytes) -> int | None:
        """The channels of a file where its header alone tells."""
        return None

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["Reader", tuple[str, ...]]:
        """The reader for a set of which these are a few files, and what a user should know of the choice."""
        return self, ()

    def facts(self) -> dict[str, Any]:
        """What joins the facts of `Source.spec`, such as a sampling rate."""
        return {}

    def reading(self) -> dict[str, Any]:
        """The fields that another reader must share, as JSON can hold them."""
        return {}

    def conform(self, wanted: Mapping[str, Any]) -> "Reader":
        """This reader with the fields that `reading` wrote. Raises RequestError where that cannot be."""
        return self
