"""CSLS: correlations corrected for hubs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Integer


def csls(
    a: Integer[np.ndarray, " pairs"],
    b: Integer[np.ndarray, " pairs"],
    r: Float[np.ndarray, " pairs"],
    top: int | None = None,
) -> Float64[np.ndarray, " pairs"]:
    """Cross-domain similarity local scaling (Lample et al. 2018, arXiv 1710.04087), which corrects r for hubs:

        2 r − mean r of a's best partners − mean r of b's best partners

    Args:
        a, b: (pairs,) feature ids; each pair at most once.
        r: (pairs,) correlations, NaN where there is none.
        top: how many best partners, among the given pairs, make up a neighbourhood; None for all. For the unfiltered
            candidates of `correlate`, the `top` best are those that it listed.

    Returns:
        (pairs,) float64, rounded to 1e-12 as r is, so that values equal in exact arithmetic tie.
    """
    return np.round(2 * r - _neighbourhood(a, r, top) - _neighbourhood(b, r, top), 12)


def _neighbourhood(
    one: Integer[np.ndarray, " pairs"], r: Float[np.ndarray, " pairs"], top: int | None
) -> Float64[np.ndarray, " pairs"]:
    """For each pair, the mean of the `top` largest r of its feature `one`."""
    order = np.lexsort((-r, one))  # NaN last
    ids, first, row = np.unique(one[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - first[row]
    near = ~np.isnan(r[order]) & (rank < (len(order) if top is None else top))
    total = np.bincount(row[near], weights=r[order][near], minlength=len(ids))
    number = np.bincount(row[near], minlength=len(ids))
    mean = np.full(len(ids), np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    back = np.empty(len(r))
    back[order] = mean[row]
    return back
