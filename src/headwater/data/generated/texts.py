"""Short messages: sentences, 1,500 texts; the class is what they are about.

Every class shares the openings, the numbers and half of its words with others, and one word in six is drawn from any
class: counting letters tells little.
"""

import numpy as np

from headwater.data.labels import Labels
from headwater.data.source import Source
from headwater.data.text import Texts

SENTENCES = 1500
TOPICS = {
    "weather": ("rain wind cloud storm front pressure humid forecast coast valley", "moves falls clears builds passes"),
    "kitchen": ("flour oven butter onion pan sauce dough salt pepper recipe", "rises bakes cooks melts rests"),
    "harbour": ("ship anchor crane cargo pilot tide rope deck mast channel", "moves leaves waits turns passes"),
    "garden": ("soil seed bloom hedge root spade compost bulb pruning frost", "grows rests blooms clears dries"),
    "workshop": ("lathe drill bolt bearing vice plane chisel glue timber clamp", "turns waits dries holds breaks"),
    "market": ("price stall buyer trader coin basket scale bargain crowd ledger", "rises falls waits holds leaves"),
}
OPENINGS = ("this morning", "as we saw", "for now", "again", "on the whole", "after noon", "it seems that", "today")
PLACES = ("near the gate", "by the wall", "in the north", "at number {n}", "for {n} days", "with {n} others")


def sentence(topic: str, draw: np.random.Generator) -> str:
    """One message of ten to fifteen words."""
    own = [part.split() for part in TOPICS[topic]]
    every = [[word for parts in TOPICS.values() for word in parts[k].split()] for k in range(2)]

    def pick(k: int) -> str:
        words = every[k] if draw.random() < 1 / 6 else own[k]
        return str(words[draw.integers(len(words))])

    place = str(PLACES[draw.integers(len(PLACES))]).format(n=draw.integers(2, 90))
    parts = [str(OPENINGS[draw.integers(len(OPENINGS))]), f"the {pick(0)} {pick(1)}", place]
    for _ in range(int(draw.integers(1, 3))):
        parts.append(f"and the {pick(0)} of the {pick(0)} {pick(1)}")
    return " ".join(parts) + "."


def sentences(name: str) -> Source:
    kinds, words = np.empty(SENTENCES, np.int64), []
    for i in range(SENTENCES):
        draw = np.random.default_rng((6, i))
        kinds[i] = draw.integers(len(TOPICS))
        words.append(sentence(list(TOPICS)[kinds[i]], draw))
    return Texts(name, words, Labels(kinds, tuple(TOPICS)))


SETS = {"sentences": sentences}
