"""Rows of a table in memory: numbers, and categories as codes, in columns that know their names."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Sample
from headwater.data.labels import Labels
from headwater.data.source import Source, digest

MOST_LOST = 0.5  # the share of an encoder's columns that a table may lack


class Rows(Source):
    """`matrix` [n columns]; NaN is a missing cell. A column with `words` holds the number of a word among them, or one
    beyond the last for a word that is none of them."""

    modalities = ("table",)

    def __init__(
        self,
        name: str,
        matrix: Float32[Tensor, "n c"],
        names: list[str],
        words: Mapping[str, list[str]] | None = None,
        labels: Labels | None = None,
        at: str = "",
        notes: tuple[str, ...] = (),
        left_out: list[str] | None = None,
    ) -> None:
        self.name, self.matrix, self.names, self.words, self._at = name, matrix, names, dict(words or {}), at
        self.tensors, self.notes = {"table": matrix}, notes
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, notes + labels.notes
        categories = [len(self.words.get(n, ())) for n in names]
        facts = {"columns": len(names), "names": names, "categories": categories, "left_out": left_out or []}
        self.extra = {"table": facts}

    def __len__(self) -> int:
        return len(self.matrix)

    def read(self, i: int) -> dict[str, Sample]:
        return {"table": self.matrix[i].clone()}

    def id(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self._at

    def numbers(self) -> np.ndarray:
        """The cells as plain numbers: one 0/1 column per word where there are words."""
        return plain(self.matrix, self.extra["table"]["categories"]).numpy()

    def reading(self, modality: str) -> dict[str, Any]:
        return {"names": self.names, "words": self.words}

    def conform(self, modality: str, wanted: Mapping[str, Any]) -> Source:
        """The columns that an encoder knows, in its order and by its words.

        A word that it never met counts as unknown, a column that is lacking as missing, and both are noted. Raises
        RequestError where more than half of its columns are lacking, or numbers stand where it knows words.
        """
        if not wanted or (wanted["names"], wanted["words"]) == (self.names, self.words):
            return self
        names, words = list(wanted["names"]), {k: list(v) for k, v in wanted["words"].items()}
        lost = [n for n in names if n not in self.names]
        if len(lost) > MOST_LOST * len(names):
            raise RequestError(
                f"{self.name} lacks {len(lost)} of the {len(names)} columns that the encoder learned from, such as "
                f"{lost[0]!r}; it has {', '.join(self.names[:8])}."
            )
        columns, notes = [], list(self.notes)
        for name in names:
            if name in lost:
                columns.append(torch.full((len(self),), torch.nan))
                continue
            column = self.matrix[:, self.names.index(name)]
            if (name in words) != (name in self.words):
                kinds = ("words", "numbers") if name in words else ("numbers", "words")
                raise RequestError(
                    f"The column {name} of {self.name} holds {kinds[1]}; the encoder learned {kinds[0]}."
                )
            if name in words:
                known = {w: k for k, w in enumerate(words[name])}
                code = torch.tensor(
                    [*(known.get(w, len(known)) for w in self.words[name]), len(known)], dtype=torch.float32
                )
                new = [w for w in self.words[name] if w not in known]
                if new:
                    met = torch.isin(column, torch.tensor([float(self.words[name].index(w)) for w in new])).sum()
                    notes.append(f"{int(met)} cells of the column {name} hold words that are new, such as {new[0]!r}.")
                column = torch.where(column.isnan(), torch.nan, code[column.nan_to_num(0).long()])
            columns.append(column)
        more = [n for n in self.names if n not in names]
        if lost:
            notes.append(f"Columns that are lacking and count as missing: {', '.join(lost)}.")
        if more:
            notes.append(f"Columns that the encoder does not know and that are left out: {', '.join(more)}.")
        labels = None if self.labels is None else Labels(self.labels, self.classes)
        return Rows(self.name, torch.stack(columns, 1), names, words, labels, self._at, tuple(notes))

    @functools.cached_property
    def fingerprint(self) -> str:
        labels = b"" if self.labels is None else self.labels.tobytes()
        return digest("\n".join(self.names), repr(self.words), self.matrix.numpy().tobytes(), labels)


def plain(matrix: Tensor, categories: list[int]) -> Tensor:
    """Cells as numbers: a column of k words becomes k columns of 0 and 1, all NaN where the cell is missing."""
    parts = []
    for j, k in enumerate(categories):
        column = matrix[:, j : j + 1]
        hit = (column == torch.arange(k)).float()
        parts.append(torch.where(column.isnan(), torch.nan, hit) if k else column)
    return torch.cat(parts, 1)
