"""Data of any form as a Source: random access to decoded samples, and nothing else. Corruption is the method's."""

from headwater.data.opening import builtins, open
from headwater.data.source import Source, Subset, duplicates, split

__all__ = ["Source", "Subset", "builtins", "duplicates", "open", "split"]
