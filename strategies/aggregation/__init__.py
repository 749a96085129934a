"""Aggregation: what the deltas of a round say together, and the patch that a fleet learned so.

A stranger may add a rule: a frozen dataclass with `weights` and `open`, whose `Aggregate` says how
one device's delta at one site is added (copy `Ffa`), and an entry in `strategies.plan.AGGREGATIONS`
and in ``conf/aggregation``. `published/` holds rules of papers, which are here for comparison.
"""

from strategies.aggregation.aggregate import Aggregate, Aggregation
from strategies.aggregation.clipping import NormClip
from strategies.aggregation.exact_mean import ExactMean
from strategies.aggregation.ffa import Ffa
from strategies.aggregation.published.factor_averaging import FactorMean, ZeroPad
from strategies.aggregation.robust import MedianOfMeans, TrimmedMean
from strategies.aggregation.svd import Svd

__all__ = [
    "Aggregate",
    "Aggregation",
    "ExactMean",
    "FactorMean",
    "Ffa",
    "MedianOfMeans",
    "NormClip",
    "Svd",
    "TrimmedMean",
    "ZeroPad",
]
