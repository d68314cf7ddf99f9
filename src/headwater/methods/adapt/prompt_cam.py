"""Prompt-CAM: a prompt of its own asks a frozen transformer for each class, and where it looks is the explanation.

    before    block l sees         [class token, patches]
    after     block l sees         [p_1 … p_C, class token, patches],  the prompts taken away again behind all but the last
              score of class c     w · norm(what became of p_c) + b,   with one w and b for all classes

Only the prompts, one a class and block, and w and b train. As w tells no classes apart, a prompt scores high only by what it
attends to: its attention in the last block, head by head, shows the traits of its class.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.verbs import Encoder, Method, Paper
from headwater.methods.supervise import classify
from headwater.parts.prompted import Prompted, PromptedConfig
from headwater.parts.surgery import Tuning

PAPER = Paper(
    title="Prompt-CAM: Making Vision Transformers Interpretable for Fine-Grained Analysis",
    year=2025,
    arxiv="2501.09333",
    differs="AdamW with a learning rate of ours instead of SGD; no drop path in the frozen blocks. The scorer starts from normal "
    "numbers. That accuracy is usually a little below a linear probe's is from memory (unverified).",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`classes` is as many as the data have; `dropout` is of the prompts."""

    classes: int = 200
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise RequestError(f"Prompt-CAM: there must be two classes or more; got {self.classes}.")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"Prompt-CAM: dropout lies between 0 and 1; got {self.dropout}.")

    def build(self) -> "PromptCAM":
        return PromptCAM(self)


SMALL = Config()
TINY = Config(classes=4)


class PromptCAM(Tuning):
    rate = 1e-2  # of prompts

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> Prompted:
        """One that pools the scores of the classes. Raises RequestError when the encoder has no blocks of tokens to ask in."""
        return Prompted(encoder, self.config.classes, self.config.dropout)

    def objective(self, method: Method, features: Tensor, labels: Tensor) -> Method:
        assert isinstance(method, classify.Classify)
        method.config, method.head = replace(method.config, head="none"), nn.Identity()
        return method

    def architecture(self, base: Any) -> PromptedConfig:
        return PromptedConfig(of=base, classes=self.config.classes, dropout=self.config.dropout)
