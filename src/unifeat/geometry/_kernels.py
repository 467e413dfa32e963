"""Compiled loops over pairs of rows. They release the GIL, so threads can run them in parallel; each loop is serial, so
that results do not depend on the number of threads.

Import this module inside the functions that use it: numba is slow to import, and reports need the measures but not the
kernels. Condensed order is that of scipy's `pdist`: (0,1), (0,2) … (0,n−1), (1,2) …
"""

from __future__ import annotations

import numpy as np
from numba import njit

_REORDER_SUMS = {"reassoc", "contract", "nsz"}


@njit(nogil=True, cache=True, fastmath=_REORDER_SUMS)
def gather_dot(upper, square, order, start, stop):  # type: ignore[no-untyped-def]
    """Σ over rows i in [start, stop) and j > i of upper[i, j] · square[order[i], order[j]].

    upper: (n(n−1)/2,) condensed; square: (n, n); order: (n,) unsigned, since a signed index costs a sign test.
    """
    n = order.size
    total = 0.0
    for i in range(start, stop):
        offset = i * (2 * n - i - 1) // 2
        fixed = upper[offset : offset + n - 1 - i]
        moved = square[order[i]]
        tail = order[i + 1 :]
        part = 0.0
        for j in range(fixed.size):
            part += np.float64(fixed[j]) * np.float64(moved[tail[j]])
        total += part
    return total


@njit(nogil=True, cache=True)
def tied_ranks(ordered, scale, tolerance):  # type: ignore[no-untyped-def]
    """Average ranks (from 1) of ascending values; values within tolerance · max(value, scale) are one tie."""
    ranks = np.empty(ordered.size, np.float64)
    first = 0
    while first < ordered.size:
        limit = ordered[first] + tolerance * max(ordered[first], scale)
        stop = first + 1
        while stop < ordered.size and ordered[stop] <= limit:
            stop += 1
        ranks[first:stop] = 0.5 * (first + 1 + stop)
        first = stop
    return ranks


@njit(nogil=True, cache=True)
def bin_starts(ordered, per_unit, bins):  # type: ignore[no-untyped-def]
    """Where each of `bins` equal bins of the range begins in the ascending values, shape (bins + 1,)."""
    starts = np.zeros(bins + 1, np.int64)
    for value in ordered:
        starts[min(int((value - ordered[0]) * per_unit), bins - 1) + 1] += 1
    for b in range(bins):
        starts[b + 1] += starts[b]
    return starts


@njit(nogil=True, cache=True)
def replace_by_rank(values, ordered, ranks, starts, per_unit):  # type: ignore[no-untyped-def]
    """Replace each value by its rank, in place. The bin is found by arithmetic, the place in it by bisection."""
    bins = starts.size - 1
    for i in range(values.size):
        value = values[i]
        b = min(int((value - ordered[0]) * per_unit), bins - 1)
        low, high = np.int64(starts[b]), np.int64(starts[b + 1])
        while low < high:
            middle = (low + high) // 2
            if ordered[middle] < value:
                low = middle + 1
            else:
                high = middle
        values[i] = ranks[low]


@njit(nogil=True, cache=True)
def shared_neighbours(start_a, index_a, share_a, start_b, index_b, share_b, order):  # type: ignore[no-untyped-def]
    """Σ over rows i and j of share_a[i, j] · share_b[order[i], order[j]], both sparse.

    start: (n + 1,) row pointers; index: the columns of each row, ascending; share: their values.
    """
    total = 0.0
    for i in range(order.size):
        first, last = start_b[order[i]], start_b[order[i] + 1]
        for at in range(start_a[i], start_a[i + 1]):
            wanted = order[index_a[at]]
            low, high = first, last
            while low < high:
                middle = (low + high) // 2
                if index_b[middle] < wanted:
                    low = middle + 1
                else:
                    high = middle
            if low < last and index_b[low] == wanted:
                total += share_a[at] * share_b[low]
    return total


@njit(nogil=True, cache=True)
def resolvent_products(diagonal, beside, shifts, upper):  # type: ignore[no-untyped-def]
    """Σ over i ≤ k of (T + s)⁻¹[i, k] · upper[i, k] for each shift s, T tridiagonal, T + s positive definite.

    diagonal: (n,), beside: (n − 1,), the diagonals of T; shifts: (m,); upper: (n, n), of which the lower triangle is
    not read. Returns (m,).

    With T + s = L D Lᵀ, L unit lower bidiagonal with l_i below the diagonal, the inverse has
    [k, k] = 1 / d_k + l_k² [k + 1, k + 1] and [i, k] = −l_i [i + 1, k] for i < k. So column k of the sum is a
    polynomial in the l_i, which is evaluated from i = 0 on, for all columns at once.
    """
    n, m = diagonal.size, shifts.size
    factors = np.empty((m, n))  # −l_i
    own = np.empty((m, n))  # [k, k]
    for j in range(m):
        pivot = diagonal[0] + shifts[j]
        for i in range(n - 1):
            own[j, i] = 1.0 / pivot
            factors[j, i] = -beside[i] / pivot
            pivot = diagonal[i + 1] + shifts[j] + factors[j, i] * beside[i]
        own[j, n - 1] = 1.0 / pivot
        for i in range(n - 2, -1, -1):
            own[j, i] += factors[j, i] ** 2 * own[j, i + 1]
    columns = np.zeros((m, n))
    for i in range(n):
        row = upper[i]
        for j in range(m):
            factor = factors[j, i - 1] if i else 0.0
            column = columns[j]
            for k in range(i, n):
                column[k] = row[k] + factor * column[k]
    out = np.zeros(m)
    for j in range(m):
        for k in range(n):
            out[j] += own[j, k] * columns[j, k]
    return out


@njit(nogil=True, cache=True)
def inverse_squares(diagonal, beside, rows, twice):  # type: ignore[no-untyped-def]
    """Σ over rows r of rᵀ T⁻¹ r, or of rᵀ T⁻² r, T tridiagonal and positive definite with these diagonals."""
    n = diagonal.size
    pivots, factors = np.empty(n), np.empty(n)
    pivots[0] = diagonal[0]
    for i in range(n - 1):
        factors[i] = beside[i] / pivots[i]
        pivots[i + 1] = diagonal[i + 1] - factors[i] * beside[i]
    half = np.empty(n)
    total = 0.0
    for row in rows:
        half[0] = row[0]
        for i in range(1, n):
            half[i] = row[i] - factors[i - 1] * half[i - 1]
        if twice:
            after = 0.0
            for i in range(n - 1, -1, -1):
                after = half[i] / pivots[i] - (factors[i] * after if i < n - 1 else 0.0)
                total += after * after
        else:
            for i in range(n):
                total += half[i] * half[i] / pivots[i]
    return total
