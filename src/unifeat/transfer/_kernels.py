"""A compiled loop. It releases the GIL and is serial, so results do not depend on threads."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def ranks_of(rows, order):  # type: ignore[no-untyped-def]
    """Ranks within each row from 1, ties averaged: (rows, n) float64.

    rows, order: (rows, n), the values and what sorts each row.
    """
    ranks = np.empty(rows.shape, np.float64)
    n = rows.shape[1]
    for i in range(rows.shape[0]):
        start = 0
        while start < n:
            value, end = rows[i, order[i, start]], start + 1
            while end < n and rows[i, order[i, end]] == value:
                end += 1
            for k in range(start, end):
                ranks[i, order[i, k]] = (start + end + 1) / 2
            start = end
    return ranks
