"""Hubs and reciprocity: how evenly best partners are spread, and how often they choose each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from unifeat.correlation.correlate import Correlation
from unifeat.vocabulary.paired_codes import Array


def hubness(corr: Correlation) -> dict[str, dict[str, Any]]:
    """How unevenly best partners are spread, in both directions, before any filter.

    Returns:
        For `a_to_b` (partners are features of B) and `b_to_a`:
        `largest_share`, the share of features whose best partner is the most popular one;
        `distinct`, the number of different best partners;
        `skewness` of the k-occurrence N_k over all features that vary, m₃ / m₂^1.5 (Radovanović et al. 2010). N_k of a
        feature is how many features have it among their k = `top` best. The skewness is 0 if N_k is symmetric about
        its mean.
        Values are None without partners, or if N_k does not vary.
    """
    return {
        "a_to_b": _hubs(corr.a_to_b.index, corr.moments_b.sd > 0),
        "b_to_a": _hubs(corr.b_to_a.index, corr.moments_a.sd > 0),
    }


def _hubs(index: Array, varies: Array) -> dict[str, Any]:
    best = index[index[:, 0] >= 0, 0]
    if not len(best):
        return {"largest_share": None, "distinct": 0, "skewness": None}
    claims = np.bincount(best)
    deviation = np.bincount(index[index >= 0], minlength=len(varies))[varies].astype(np.float64)
    deviation -= deviation.mean()
    variance = (deviation**2).mean()
    return {
        "largest_share": float(claims.max() / len(best)),
        "distinct": int(np.count_nonzero(claims)),
        "skewness": float((deviation**3).mean() / variance**1.5) if variance > 0 else None,
    }


def reciprocity(corr: Correlation) -> dict[str, float | None]:
    """The share of features that are the best partner of their own best partner, among those with a partner.

    Returns:
        For `a_to_b` (features of A) and `b_to_a` (features of B); None where no feature has a partner.
    """
    forth, back = corr.a_to_b.index[:, 0], corr.b_to_a.index[:, 0]
    return {"a_to_b": _returned(forth, back), "b_to_a": _returned(back, forth)}


def _returned(forth: Array, back: Array) -> float | None:
    paired = np.flatnonzero(forth >= 0)
    return float((back[forth[paired]] == paired).mean()) if len(paired) else None
