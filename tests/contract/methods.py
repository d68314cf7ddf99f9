"""The catalogue as tests walk it: every method that learns by gradient, built small."""

import functools
from types import ModuleType

import torch

from headwater.api import catalogue
from headwater.core.verbs import Encoder, Method
from tests import small

METHODS = catalogue.methods()
BEGINS = {
    "crate-micro": small.crate,
    "dit-micro": small.dit,
    "pdn-micro": small.pdn,
    "nope-micro": functools.partial(small.vit, position="none"),
    "t5-micro": small.t5,
    "tjepa-micro": small.tjepa,
    "vit-micro/frames": small.frames,
}  # by what a method begins with where it is another than usual


def encoders(name: str) -> dict[str, Encoder]:
    """Of the first modalities that the method learns from; pictures, and texts with them, where it learns from any."""
    method = catalogue.method_class(catalogue.load(name))
    assert method is not None
    makers = {
        "image": small.vit if method.tokens else small.convnet,
        "text": small.text,
        "table": small.table,
        "points": small.points,
        "graph": small.graph,
        "series": small.series if method.tokens else small.mixer,
        "audio": small.audio,
        "video": small.clips,
    }
    wanted = [m for m in makers if m in method.modalities or not method.modalities][: method.together]
    return {m: BEGINS.get(method.begins.get(m, ""), makers[m])() for m in wanted}


def build(name: str) -> Method:
    torch.manual_seed(0)
    module: ModuleType = catalogue.load(name)
    method: Method = module.TINY.build(encoders(name))
    return method
