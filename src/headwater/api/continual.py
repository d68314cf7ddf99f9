"""`hw.continual`: estimators that learn session by session, in scikit-learn's API; `partial_fit` adds classes."""

from headwater.methods.continual.fetril import FeTrIL
from headwater.methods.continual.teen import TEEN

__all__ = ["TEEN", "FeTrIL"]
