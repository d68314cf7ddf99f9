"""The catalogue as tests walk it: every method that learns by gradient, built small."""

from types import ModuleType

import torch

from headwater.api import catalogue
from headwater.core.verbs import Encoder, Method
from tests import small

METHODS = catalogue.methods()
PAIRED = [n for n in METHODS if n.startswith("align.")]


def encoders(name: str) -> dict[str, Encoder]:
    tokens = getattr(catalogue.method_class(catalogue.load(name)), "tokens", False)
    found: dict[str, Encoder] = {"image": small.vit() if tokens else small.convnet()}
    if name in PAIRED:
        found["text"] = small.text()
    return found


def build(name: str) -> Method:
    torch.manual_seed(0)
    module: ModuleType = catalogue.load(name)
    method: Method = module.TINY.build(encoders(name))
    return method
