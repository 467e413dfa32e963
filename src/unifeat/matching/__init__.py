"""Correlation of features across two spaces, and who is matched with whom."""

from unifeat.matching.correlation import Correlation, Partners, correlate
from unifeat.matching.match import match
from unifeat.matching.pairs import pair_correlation
from unifeat.matching.quality import agreement, hubness, reciprocity

__all__ = [
    "Correlation",
    "Partners",
    "agreement",
    "correlate",
    "hubness",
    "match",
    "pair_correlation",
    "reciprocity",
]
