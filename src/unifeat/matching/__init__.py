"""Correlation of features across two spaces, and who is matched with whom."""

from unifeat.matching.correlation import Correlation, Partners, correlate
from unifeat.matching.match import match
from unifeat.matching.pairs import pair_correlation

__all__ = ["Correlation", "Partners", "correlate", "match", "pair_correlation"]
