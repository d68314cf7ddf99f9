"""Pictures in memory with a text each."""

from torch import Tensor

from headwater.core.types import Sample
from headwater.data.labels import Labels
from headwater.data.source import Source, digest
from headwater.data.text import encode


class Captioned(Source):
    """Images in memory, each with a text of its own length."""

    modalities = ("image", "text")

    def __init__(self, name: str, images: Tensor, captions: list[str], labels: Labels, note: str) -> None:
        self.name, self.images, self.captions = name, images, captions
        self.labels, self.classes, self.notes = labels.values, labels.classes, (note,)
        longest = max(len(encode(words)) for words in set(captions))
        self.extra = {"text": {"longest": longest}}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> dict[str, Sample]:
        return {"image": self.images[i].clone(), "text": encode(self.captions[i])}

    def id(self, i: int) -> str:
        return str(i)

    @property
    def fingerprint(self) -> str:
        return digest(self.images.numpy().tobytes(), "\n".join(self.captions))
