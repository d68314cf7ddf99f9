"""Statements about people in a small world, where what is said follows from who it is said of."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headwater.data.source import Source, digest

PEOPLE = ["anna", "boris", "clara", "david", "elena", "felix", "greta", "henry", "irene", "jonas", "karla", "louis"]
CITIES = ["rome", "oslo", "lima", "kyoto", "cairo", "delhi"]
COUNTRIES = ["north", "south", "east"]
JOBS = ["baker", "pilot", "nurse", "judge"]
FOODS = ["bread", "apples", "fish", "cheese"]
WORDS = [*PEOPLE, *CITIES, *COUNTRIES, *JOBS, *FOODS, "lives", "in", "is", "the", "a", "eats", "."]


class Words(Source):
    """Texts as words of a known vocabulary, each word a number; the last number ends a text."""

    modalities = ("text",)

    def __init__(self, name: str, texts: Sequence[str], vocabulary: Sequence[str]) -> None:
        self.name, self.texts = name, texts
        self.ids = {word: i for i, word in enumerate(vocabulary)}
        self.extra = {"text": {"vocabulary": len(self.ids) + 1, "end": len(self.ids)}}

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, i: int) -> dict[str, Tensor]:  # type: ignore[override]
        return {"text": torch.tensor([*(self.ids[word] for word in self.texts[i].split()), len(self.ids)])}

    def id(self, i: int) -> str:
        return str(i)

    @functools.cached_property
    def fingerprint(self) -> str:
        return digest(self.name, "\n".join(self.texts))


def statements(n: int, seed: int) -> Words:
    """n texts of three statements about two people in a world where each person lives in one city, each city is in one
    country, each person has one job, and each job eats one food; who and where is drawn once, by the seed."""
    world = np.random.default_rng((seed, 0))
    city, job = world.integers(len(CITIES), size=len(PEOPLE)), world.integers(len(JOBS), size=len(PEOPLE))
    country, food = world.integers(len(COUNTRIES), size=len(CITIES)), world.permutation(len(FOODS))
    texts = []
    for i in range(n):
        draw = np.random.default_rng((seed, 1, i))
        said = []
        for p in draw.choice(len(PEOPLE), 2, replace=False):
            who, where, what = PEOPLE[p], CITIES[city[p]], JOBS[job[p]]
            said += [
                f"{who} lives in {where} .",
                f"{where} is in the {COUNTRIES[country[city[p]]]} .",
                f"{who} is a {what} .",
                f"the {what} eats {FOODS[food[job[p]]]} .",
            ]
        texts.append(" ".join(said[k] for k in draw.choice(len(said), 3, replace=False)))
    return Words("statements", texts, WORDS)
