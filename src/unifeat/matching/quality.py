"""How far to trust a matching: hubs, reciprocity, and whether other text gives the same pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from unifeat.matching.correlation import Correlation
    from unifeat.matching.paired import Array


def hubness(corr: Correlation) -> dict[str, dict[str, Any]]:
    """How unevenly best partners are spread, in both directions, before any filter.

    Returns:
        For `a_to_b` (partners are features of B) and `b_to_a`:
        `largest_share`, the share of features whose best partner is one and the same;
        `distinct`, how many different best partners there are;
        `skewness` of the k-occurrence N_k, how many features have this one among their k = `top` best, over all
        features that vary: m₃ / m₂^1.5 (Radovanović et al. 2010). 0 where every feature is as popular.
        None where there are no partners, or no spread to measure.
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
    apart = np.bincount(index[index >= 0], minlength=len(varies))[varies].astype(np.float64)
    apart -= apart.mean()
    spread = (apart**2).mean()
    return {
        "largest_share": float(claims.max() / len(best)),
        "distinct": int(np.count_nonzero(claims)),
        "skewness": float((apart**3).mean() / spread**1.5) if spread > 0 else None,
    }


def reciprocity(corr: Correlation) -> dict[str, float | None]:
    """The share of features whose best partner's best partner is themselves, among those with a partner.

    Returns:
        For `a_to_b` (features of A) and `b_to_a` (features of B); None where no feature has a partner.
    """
    forth, back = corr.a_to_b.index[:, 0], corr.b_to_a.index[:, 0]
    return {"a_to_b": _returned(forth, back), "b_to_a": _returned(back, forth)}


def _returned(forth: Array, back: Array) -> float | None:
    paired = np.flatnonzero(forth >= 0)
    return float((back[forth[paired]] == paired).mean()) if len(paired) else None


def agreement(pairs_1: pd.DataFrame, pairs_2: pd.DataFrame) -> dict[str, Any]:
    """How many pairs of one matching are found again in another, for instance on the other half of the documents.

    Args:
        pairs_1, pairs_2: `feature_a`, `feature_b`, each pair at most once.

    Returns:
        `pairs_1`, `pairs_2`, `shared`: how many there are;
        `share`: shared / pairs_1, None without pairs;
        `jaccard`: shared / (pairs of either), None without pairs;
        `chance`: what `share` would be on average if pairs_2 kept its features, each as often as it is there, and
        drew anew which goes with which: the mean over pairs_1 of n_a n_b / m, where n_a and n_b say how often the
        two features are in pairs_2, which has m pairs. (Where both sides may repeat, a pair can be drawn twice, and
        it is an upper bound.)
    """
    first, second = (
        set(zip(p["feature_a"].tolist(), p["feature_b"].tolist(), strict=True)) for p in (pairs_1, pairs_2)
    )
    shared, either = len(first & second), len(first | second)
    often_a = pairs_1["feature_a"].map(pairs_2["feature_a"].value_counts()).fillna(0).to_numpy(np.float64)
    often_b = pairs_1["feature_b"].map(pairs_2["feature_b"].value_counts()).fillna(0).to_numpy(np.float64)
    return {
        "pairs_1": len(first),
        "pairs_2": len(second),
        "shared": shared,
        "share": shared / len(first) if first else None,
        "jaccard": shared / either if either else None,
        "chance": float((often_a * often_b).mean() / max(len(second), 1)) if first else None,
    }
