"""Text as bytes: no vocabulary to learn, no file to ship, every language at once.

Ids 0 to 255 are the bytes of UTF-8, 256 ends a text, and 257 fills up a batch of texts of unequal length: a
vocabulary of 258 in all. `read` never pads.
"""

import torch
from jaxtyping import Int64
from torch import Tensor

END = 256
PAD = 257
VOCABULARY = 258


def encode(words: str) -> Int64[Tensor, " n"]:
    """The bytes of `words` and the end token."""
    return torch.tensor([*words.encode(), END], dtype=torch.int64)


def decode(ids: Int64[Tensor, " n"]) -> str:
    """The words before the end token."""
    kept = []
    for token in ids.tolist():
        if token >= END:
            break
        kept.append(token)
    return bytes(kept).decode(errors="replace")
