"""Fine-tuning: every weight trains on, early layers more slowly than late ones, the earliest not at all if so asked.

before    W in layer l of L, the head being L + 1
after     W trained at the rate  rate * layer_decay^(L + 1 - l),  or kept where l <= freeze
"""

from dataclasses import dataclass

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder, Paper
from headwater.parts.layers import depths, layers
from headwater.parts.surgery import Tuning

PAPER = Paper(
    title="Universal Language Model Fine-tuning for Text Classification",
    year=2018,
    arxiv="1801.06146",
    differs="A decay from layer to layer of 0.75, as vision transformers are fine-tuned, where the paper divides by 2.6; the "
    "rate follows half a cosine, not a slanted triangle; layers are frozen or not, and not thawed one by one.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`freeze`: tokens and so many of the first blocks keep their weights; 0 keeps none."""

    freeze: int = 0

    def __post_init__(self) -> None:
        if self.freeze < 0:
            raise RequestError(f"Fine-tuning: freeze must not be negative; got {self.freeze}.")

    def build(self) -> "FineTune":
        return FineTune(self)


SMALL = Config()
TINY = Config()


class FineTune(Tuning):
    rate = 5e-4
    layer_decay = 0.75

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Encoder:
        """The same encoder. Raises RequestError where fewer blocks are there than are to be kept."""
        blocks, deep = len(layers(encoder)), depths(encoder)
        if self.config.freeze > blocks:
            raise RequestError(
                f"Fine-tuning: freeze={self.config.freeze} was asked for, and this {type(encoder).__name__} has {blocks} blocks."
            )
        for name, weight in encoder.named_parameters():
            weight.requires_grad_(not self.config.freeze or deep[name] > self.config.freeze)
        return encoder
