"""How words become numbers: as bytes, or by byte-pair encoding.

As bytes, there is no vocabulary to learn, no file to ship, and every language is there at once: ids 0 to 255 are the
bytes of UTF-8, 256 ends a text. With byte-pair encoding, trained on the texts themselves, words take fewer tokens; the
trained tokenizer travels with the encoder.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from headwater.core.errors import RequestError

END = 256
LONGEST = 512  # tokens of a text that are read


@dataclass(frozen=True)
class Encoding:
    """How words become numbers: by bytes, or by the tokenizer whose JSON (of the `tokenizers` library) is given.

    `ended` appends a token of ours that ends the text; tokenizers of other libraries' checkpoints bring their own.
    """

    tokenizer: str = ""
    ended: bool = True
    longest: int = LONGEST

    @functools.cached_property
    def _library(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise RequestError("Texts with a vocabulary need tokenizers: pip install 'headwater[text]'") from error
        made = Tokenizer.from_str(self.tokenizer)
        made.no_padding()
        made.no_truncation()
        return made

    @functools.cached_property
    def words(self) -> int:
        """The number of ids beside the one that ends a text."""
        return self._library.get_vocab_size() if self.tokenizer else END

    @property
    def vocabulary(self) -> int:
        return self.words + self.ended

    def encode(self, words: str) -> Int64[Tensor, " n"]:
        coded = self._library.encode(words).ids if self.tokenizer else np.frombuffer(words.encode(), np.uint8)
        ids = np.empty(min(len(coded) + self.ended, self.longest), np.int64)
        body = min(len(coded), len(ids) - self.ended)
        ids[:body] = coded[:body]
        if self.ended:
            ids[-1] = self.words
        elif len(coded) > len(ids):  # a foreign tokenizer's own last token closes what is cut
            ids[-1] = coded[-1]
        return torch.from_numpy(ids)

    def decode(self, ids: Int64[Tensor, " n"]) -> str:
        """The words before the end."""
        kept: list[int] = []
        for token in ids.tolist():
            if self.ended and token >= self.words:
                break
            kept.append(token)
        return str(self._library.decode(kept)) if self.tokenizer else bytes(kept).decode(errors="replace")

    def facts(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "end": self.words if self.ended else None}

    def reading(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "ended": self.ended, "longest": self.longest}

    def conform(self, wanted: Mapping[str, Any]) -> "Encoding":
        return Encoding(**wanted) if wanted else self


BYTES = Encoding()


def encode(words: str) -> Int64[Tensor, " n"]:
    """The bytes of `words` and the end token."""
    return BYTES.encode(words)


def decode(ids: Int64[Tensor, " n"]) -> str:
    """The words before the end token."""
    return BYTES.decode(ids)


def trained(texts: Iterator[str], vocabulary: int) -> Encoding:
    """Byte-pair encoding of `vocabulary` ids, learned from `texts`: the same texts give the same JSON."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise RequestError("A vocabulary of its own needs tokenizers: pip install 'headwater[text]'") from error
    if vocabulary < END + 1:
        raise RequestError(
            f"vocabulary={vocabulary}: byte-pair encoding begins with {END} bytes; give more, or 0 for bytes."
        )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    return Encoding(made.to_str())
