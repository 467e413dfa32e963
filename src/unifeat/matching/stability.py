"""Stability: how many pairs of one matching are found again by a matching on other text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def agreement(pairs_1: pd.DataFrame, pairs_2: pd.DataFrame) -> dict[str, Any]:
    """How many pairs of one matching are found again in another, for instance on the other half of the documents.

    Args:
        pairs_1, pairs_2: `feature_a`, `feature_b`, each pair at most once.

    Returns:
        `pairs_1`, `pairs_2`, `shared`: numbers of pairs;
        `share`: shared / pairs_1, None without pairs;
        `jaccard`: shared / (pairs in either), None without pairs;
        `chance`: the expected `share` if pairs_2 kept its features, with repetitions, but paired them at random: the
        mean over pairs_1 of n_a n_b / m, where the two features occur n_a and n_b times in pairs_2, which has m pairs.
        (It is an upper bound if features of both sides repeat, since a pair can then be drawn twice.)
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
