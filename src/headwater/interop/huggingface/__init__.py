"""Checkpoints in the format of `transformers`: config.json, safetensors, and what goes with them.

Read into encoders of our own, and written back; `transformers` itself is not needed. Nothing is unpickled, and nothing in
a checkpoint names code to import.
"""

from headwater.interop.huggingface.loading import FAMILIES, Loaded, find, load, save

__all__ = ["FAMILIES", "Loaded", "find", "load", "save"]
