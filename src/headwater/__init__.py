"""Headwater learns representations from unlabelled data of any kind, and carries them to every task downstream.

import headwater as hw

data = hw.open("photos/")
hw.doctor(data)
run = hw.pretrain("mae", data, out="runs/photos")
vectors = hw.embed("runs/photos", data, out="photos.parquet")
result = hw.evaluate("runs/photos", data)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.api import assess, continual
    from headwater.api.adapt import adapt
    from headwater.api.catalogue import systems
    from headwater.api.compare import compare
    from headwater.api.curate import curate
    from headwater.api.doctor import doctor
    from headwater.api.embed import embed
    from headwater.api.encoders import load
    from headwater.api.evaluate import evaluate
    from headwater.api.export import export
    from headwater.api.features import FeatureExtractor
    from headwater.api.predict import predict
    from headwater.api.pretrain import pretrain
    from headwater.api.reproduce import reproduce
    from headwater.api.study import study
    from headwater.api.verify import verify_resume
    from headwater.data import open

# Loaded when first used, so that `import headwater` costs nothing.
_WHERE = {
    "FeatureExtractor": "headwater.api.features",
    "adapt": "headwater.api.adapt",
    "assess": "headwater.api.assess",
    "compare": "headwater.api.compare",
    "continual": "headwater.api.continual",
    "curate": "headwater.api.curate",
    "doctor": "headwater.api.doctor",
    "embed": "headwater.api.embed",
    "evaluate": "headwater.api.evaluate",
    "export": "headwater.api.export",
    "load": "headwater.api.encoders",
    "open": "headwater.data",
    "predict": "headwater.api.predict",
    "pretrain": "headwater.api.pretrain",
    "reproduce": "headwater.api.reproduce",
    "study": "headwater.api.study",
    "systems": "headwater.api.catalogue",
    "verify_resume": "headwater.api.verify",
}

__all__ = [
    "FeatureExtractor",
    "adapt",
    "assess",
    "compare",
    "continual",
    "curate",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "load",
    "open",
    "predict",
    "pretrain",
    "reproduce",
    "study",
    "systems",
    "verify_resume",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    module = import_module(_WHERE[name])
    return getattr(module, name, module)  # assess and continual are modules themselves


def __dir__() -> list[str]:
    return __all__
