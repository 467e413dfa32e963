"""Corrections for multiple tests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def false_discovery_rate(p: Float64[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """Benjamini–Hochberg q-values of (m,) p-values; NaN stays NaN and is not counted as a test."""
    from scipy.stats import false_discovery_control

    q = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


def family_wise(
    observed: Float64[np.ndarray, " cells"], null: Float64[np.ndarray, "cells permutations"]
) -> Float64[np.ndarray, " cells"]:
    """Family-wise p-values of c scores from one shared set of m permutations: the step-down max-T of Westfall & Young.

    Scores on different numbers of pairs have different nulls. So each cell's m + 1 values, including the observed one,
    are first standardised by their own mean and spread; under the null they stay exchangeable. Then, from the largest
    observed value down, p = (b + 1)/(m + 1), where b permutations have a largest value, over this cell and those below
    it, that reaches the observed one. The p-values are then made monotone (Westfall & Young 1993, "Resampling-based
    multiple testing", algorithm 4.1; Ge, Dudoit & Speed 2003, TEST 12). Because the cells share permutations, the
    correction takes their dependence into account.

    observed: (c,), NaN where a score is undefined. null: (c, m), row i the null of score i; column b is permutation b.
    Returns (c,) p-values, NaN where the score or any of its null is NaN.
    """
    return (family_wise_counts(observed, null) + 1) / (null.shape[1] + 1)


def family_wise_counts(
    observed: Float64[np.ndarray, " cells"], null: Float64[np.ndarray, "cells permutations"]
) -> Float64[np.ndarray, " cells"]:
    """How many permutations reach each score, b in `family_wise`, made monotone; NaN where p is."""
    counts = np.full(observed.shape, np.nan)
    known = np.flatnonzero(~np.isnan(observed) & ~np.isnan(null).any(axis=1))
    if not known.size or not null.shape[1]:
        return counts
    values = np.column_stack([observed[known], null[known]])
    values = values - values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    # If a cell's null does not vary, its score ties with every permutation.
    still = spread <= 1e-12 * np.maximum(np.abs(null[known]).max(axis=1, keepdims=True), 1.0)
    values = np.where(still, 0.0, values / np.where(still, 1.0, spread))
    order = np.argsort(-values[:, 0], kind="stable")
    largest = np.maximum.accumulate(values[order][::-1, 1:], axis=0)[::-1]
    reached = (largest >= values[order, :1] - 1e-9).sum(axis=1)
    counts[known[order]] = np.maximum.accumulate(reached)
    return counts
