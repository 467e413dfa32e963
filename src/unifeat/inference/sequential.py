"""Monte Carlo p-values of which it is known early that they are large, so that drawing can stop.

Besag & Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78: a test is settled when h draws have reached its
score. If the h-th comes with draw l, p = h / l, whatever later draws would say; if n draws end before, p is the usual
(g + 1)/(n + 1), where g < h of them reach the score. Both are exact if the score and its draws are exchangeable: p can
only be h / l if fewer than h of the first l − 1 draws reach the score, and of l exchangeable values the score is among
the h highest with probability h / l.

p is a function of the draws in their order. So it does not matter when drawing stops, as long as it is not before the
test is settled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from unifeat.inference.multiplicity import family_wise_counts


class Sequential(NamedTuple):
    """p-values of some tests after some draws.

    Attributes:
        p: (tests,) float64; NaN where there is no test.
        settled: (tests,) bool: no later draw can change p. Always true where there is no test.
    """

    p: Float64[np.ndarray, " tests"]
    settled: Bool[np.ndarray, " tests"]


def sequential(reached: Bool[np.ndarray, "tests draws"], enough: int | None) -> Sequential:
    """The p-values of single tests.

    Args:
        reached: (tests, draws) whether a draw reaches the test's score, in the order of the draws.
        enough: h, how many such draws settle a test; None: none are enough.

    Returns:
        p, NaN without draws; and which tests are settled.
    """
    tests, draws = reached.shape
    if not draws:
        return Sequential(np.full(tests, np.nan), np.zeros(tests, bool))
    p = (reached.sum(axis=1) + 1) / (draws + 1)
    settled = np.zeros(tests, bool)
    if enough is not None:
        so_far = np.cumsum(reached, axis=1)
        settled = so_far[:, -1] >= enough
        last = np.argmax(so_far >= enough, axis=1) + 1
        p = np.where(settled, enough / last, p)
    return Sequential(p, settled)


def sequential_family_wise(
    observed: Float64[np.ndarray, " cells"], null: Float64[np.ndarray, "cells draws"], enough: int | None
) -> Sequential:
    """The family-wise p-values of scores that share their draws: step-down max-T, as `family_wise`.

    After every draw all values so far are standardised anew, and a test is settled with the first draw after which at
    least h of the maxima that it is compared with reach it. Of the cells in which nothing is shared, take the one with
    the largest standardised score. If any of them has p ≤ h / l, then after draw l − 1 fewer than h maxima of these
    cells' draws reach that score. The score and these maxima are l exchangeable values, standardised by what does not
    depend on their order. So the probability of any such cell with p ≤ h / l is at most h / l.

    Args:
        observed: (cells,) NaN where a score is undefined.
        null: (cells, draws) row i the draws of score i, column b the same draw in all cells.
        enough: h; None: none are enough.

    Returns:
        p, NaN where the score or any of its draws is NaN, or without draws; and which tests are settled. A cell with an
        undefined draw is no test any more, unless it was settled before.
    """
    cells, draws = null.shape
    if not draws:
        return Sequential(np.full(cells, np.nan), np.isnan(observed))
    counts = family_wise_counts(observed, null)
    p, settled = (counts + 1) / (draws + 1), np.isnan(counts)
    first = np.zeros(cells, np.int64)
    for look in range(enough, draws + 1) if enough is not None else ():
        open_ = first == 0
        if not open_.any():
            break
        at_look = counts if look == draws else family_wise_counts(observed, null[:, :look])
        first[open_ & (at_look >= (enough or 0))] = look
    if enough is not None:
        p = np.where(first > 0, enough / np.maximum(first, 1), p)
    return Sequential(p, settled | (first > 0))
