"""`hw.continual`: estimators that learn session by session, in scikit-learn's API, where `partial_fit` adds classes; and
`sessions`, which has one learn so from data and measures what it forgets.

A class that has been learned is final: FeTrIL and SLCA therefore refuse scikit-learn's check_fit_score_takes_y, which hands
them the same classes twice."""

from headwater.api.sessions import sessions
from headwater.methods.continual.fetril import FeTrIL
from headwater.methods.continual.slca import SLCA
from headwater.methods.continual.teen import TEEN

__all__ = ["SLCA", "TEEN", "FeTrIL", "sessions"]
