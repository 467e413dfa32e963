"""Corrections for asking many questions at once."""

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

    Scores on different numbers of pairs have different nulls, so each cell's values are first standardised by the
    mean and spread of the m + 1 of them, the observed among them: under the null all m + 1 stay exchangeable. Then,
    from the largest observed value down, p = (b + 1)/(m + 1) with b the permutations whose largest value over this
    cell and those below it reaches the observed one, made monotone (Westfall & Young 1993, "Resampling-based multiple
    testing", algorithm 4.1; Ge, Dudoit & Speed 2003, TEST 12). With permutations shared between the cells, what they
    have in common is not paid for twice.

    observed: (c,), NaN where a score is undefined. null: (c, m), row i the null of score i; column b is permutation b.
    Returns (c,) p-values, NaN where the score or any of its null is NaN.
    """
    p = np.full(observed.shape, np.nan)
    known = np.flatnonzero(~np.isnan(observed) & ~np.isnan(null).any(axis=1))
    if not known.size or not null.shape[1]:
        return p
    values = np.column_stack([observed[known], null[known]])
    values = values - values.mean(axis=1, keepdims=True)
    spread = values.std(axis=1, keepdims=True)
    # A null that does not vary says nothing: its cell ties with every permutation.
    still = spread <= 1e-12 * np.maximum(np.abs(null[known]).max(axis=1, keepdims=True), 1.0)
    values = np.where(still, 0.0, values / np.where(still, 1.0, spread))
    order = np.argsort(-values[:, 0], kind="stable")
    largest = np.maximum.accumulate(values[order][::-1, 1:], axis=0)[::-1]
    reached = (largest >= values[order, :1] - 1e-9).sum(axis=1)
    p[known[order]] = np.maximum.accumulate((reached + 1) / (null.shape[1] + 1))
    return p
