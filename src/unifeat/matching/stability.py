"""Stability: how many pairs of one matching are found again by another, on other text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


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
