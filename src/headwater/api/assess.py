"""`hw.assess`: estimators on frozen features, in scikit-learn's API."""

from headwater.methods.assess.dis_vs_gen import NaiveBayes
from headwater.methods.assess.knn import KNN
from headwater.methods.assess.linear_probe import LinearProbe
from headwater.methods.assess.nmc import NMC
from headwater.methods.assess.pt_ood import FamiliarityScore

__all__ = ["KNN", "NMC", "FamiliarityScore", "LinearProbe", "NaiveBayes"]
