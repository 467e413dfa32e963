"""The compiled loops: lay out the codes, multiply them sparsely, keep the best partners, sum over given pairs.

The product Σab of all pairs is formed one A feature at a time (Gustavson): walk the rows on which it fires, add
a × (the row of B) into one accumulator as long as B has features. The accumulator stays in cache; the rows of B are
scattered over memory, and fetching them is what the time goes into. Hence the layout: each row of B is one contiguous
record (length, ids, values), A stores the address of that record instead of the row number, and records are
prefetched a few steps ahead.

Every pair's sum is accumulated in row order by one thread, without fused or reordered arithmetic, so results are the
same bit for bit whatever the threads, chunks or blocks. "Rank" is a feature's place in `Profile.order`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from unifeat.matching.paired import Array

_AHEAD = 8  # records prefetched ahead: flat optimum between 4 and 16
_STRIP = 64  # products formed at once (vectorised) before they are scattered
_TILE = 256  # correlations formed at once before any is looked at
# Adding and subtracting this rounds to a multiple of 2⁻⁴⁰ ≈ 1e-12: correlations that are equal on paper then tie.
ROUND = 1.5 * 2.0 ** (52 - 40)


class Records(NamedTuple):
    """Rows of B. Record at word w: length k and k ids (from `ids[w * R]`), then k values (whole words).

    `values` and `ids` are two views of one buffer of words; a word is one value, R ids fit into it.
    """

    values: Array  # (words,) float32 or float64
    ids: Array  # (words * R,) uint16 or uint32, ranks
    lines: int  # cache lines of a typical record


class Columns(NamedTuple):
    """Entries of A, feature by feature, in row order: where the row's record starts, and the value."""

    start: Array  # (features of the block + 1,) int64
    word: Array  # (entries,) uint32
    value: Array  # (entries,) float32 or float64


class Best(NamedTuple):
    """The best partners so far, best first; −inf and −1 where there are none yet."""

    value: Array  # (features, top) float64
    index: Array  # (features, top) int32, feature ids
    floor: Array  # (features,) float64: an r below this need not be looked at


class Scan(NamedTuple):
    """What turns Σab into r (see `Profile`), and the feature ids behind the ranks."""

    scale_a: Array
    ratio_a: Array
    order_a: Array
    scale_b: Array
    ratio_b: Array
    order_b: Array


@intrinsic  # type: ignore[misc]
def _prefetch(typingctx: Any, array: Any, position: Any) -> Any:
    """Ask for the cache line of array[position], used once: it need not displace the accumulator."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        address = builder.bitcast(builder.gep(view.data, [args[1]]), cgutils.voidptr_t)
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, i32(0), i32(0), i32(1)])  # read, not temporal, data
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@njit(nogil=True, cache=True)
def record_words(indptr, index, value, rank, dense, per_word, first, last, words):  # type: ignore[no-untyped-def]
    """words[i] = length of the record of row i, for rows first:last."""
    for row in range(first, last):
        k = dense
        for q in range(indptr[row], indptr[row + 1]):
            if rank[index[q]] >= dense and value[q] != 0:
                k += 1
        words[row] = k + (k + per_word) // per_word


@njit(nogil=True, cache=True)
def fill_records(indptr, index, value, rank, shift, start, first, last, values, ids):  # type: ignore[no-untyped-def]
    """Write the records of rows first:last at words start[row]. Dense features come first and are in every row."""
    per_word = ids.shape[0] // values.shape[0]
    dense = shift.shape[0]
    for row in range(first, last):
        head = np.int64(start[row])
        body = head * per_word + 1
        k = dense
        for d in range(dense):
            ids[body + d] = d
        for q in range(indptr[row], indptr[row + 1]):
            r = rank[index[q]]
            if r >= dense and value[q] != 0:
                ids[body + k] = r
                k += 1
        ids[body - 1] = k
        head += (k + per_word) // per_word
        for d in range(dense):
            values[head + d] = -shift[d]
        k = dense
        for q in range(indptr[row], indptr[row + 1]):
            r = rank[index[q]]
            if value[q] != 0:
                if r >= dense:
                    values[head + k] = value[q]
                    k += 1
                elif r >= 0:
                    values[head + r] = value[q] - shift[r]


@njit(nogil=True, cache=True)
def count_columns(indptr, index, value, rank, dense, low, high, first, last, count):  # type: ignore[no-untyped-def]
    """count[r - low] += entries of rank r in rows first:last, for low <= r < high; dense ranks count every row."""
    for d in range(low, min(dense, high)):
        count[d - low] += last - first
    low_sparse = max(low, dense)
    for q in range(indptr[first], indptr[last]):
        r = rank[index[q]]
        if r >= low_sparse and r < high and value[q] != 0:
            count[r - low] += 1


@njit(nogil=True, cache=True)
def fill_columns(  # type: ignore[no-untyped-def]
    indptr, index, value, rank, shift, start, low, high, first, last, cursor, word, column_value
):
    """Write the entries of ranks low:high in rows first:last, each at its column's cursor."""
    dense = shift.shape[0]
    for row in range(first, last):
        head = start[row]
        for d in range(low, min(dense, high)):
            at = cursor[d - low]
            cursor[d - low] = at + 1
            word[at] = head
            column_value[at] = -shift[d]
        for q in range(indptr[row], indptr[row + 1]):
            r = rank[index[q]]
            if r >= low and r < high and value[q] != 0:
                if r < dense:
                    column_value[cursor[r - low] - 1] = value[q] - shift[r]
                else:
                    at = cursor[r - low]
                    cursor[r - low] = at + 1
                    word[at] = head
                    column_value[at] = value[q]


@njit(nogil=True, cache=True)
def _multiply(first, last, columns, records, total, strip):  # type: ignore[no-untyped-def]
    """total[b] += Σ a·b over entries first:last of one A feature."""
    values, ids = records.values, records.ids
    per_word = ids.shape[0] // values.shape[0]
    line = 64 // values.itemsize
    for p in range(first, last):
        if p + _AHEAD < last:
            ahead = np.int64(columns.word[p + _AHEAD])
            for i in range(records.lines):
                _prefetch(values, ahead + i * line)
        a = np.float64(columns.value[p])
        head = np.int64(columns.word[p])
        body = head * per_word
        k = np.int64(ids[body])
        body += 1
        head += (k + per_word) // per_word
        for done in range(0, k, _STRIP):
            size = min(k - done, _STRIP)
            for q in range(size):
                strip[q] = a * values[head + done + q]
            for q in range(size):
                total[ids[body + done + q]] += strip[q]


@njit(nogil=True, cache=True)
def _insert(best, row, r, identity):  # type: ignore[no-untyped-def]
    """Put (r, identity) into the row's list if it belongs there: larger r first, then the lower id."""
    value, index = best.value, best.index
    k = value.shape[1] - 1
    if r < value[row, k] or (r == value[row, k] and identity > index[row, k]):
        return
    while k > 0 and (value[row, k - 1] < r or (value[row, k - 1] == r and index[row, k - 1] > identity)):
        value[row, k], index[row, k] = value[row, k - 1], index[row, k - 1]
        k -= 1
    value[row, k], index[row, k] = r, identity
    worst = value[row, value.shape[1] - 1]
    best.floor[row] = worst if worst > -1.0 else -np.inf  # r is clipped to −1 only when it is looked at


@njit(nogil=True, cache=True)
def _select(a, total, scan, best_a, best_b, tile):  # type: ignore[no-untyped-def]
    """Correlations of the A feature at rank a with every B feature into both lists; sets `total` back to zero."""
    scale_a, ratio_a, identity_a = scan.scale_a[a], scan.ratio_a[a], scan.order_a[a]
    scale_b, ratio_b, floor_b = scan.scale_b, scan.ratio_b, best_b.floor
    size = total.shape[0]
    for first in range(0, size, _TILE):
        width = min(size - first, _TILE)
        floor_a = best_a.floor[a]
        hits = 0
        for i in range(width):
            b = first + i
            r = (total[b] * scale_a) * scale_b[b] - ratio_a * ratio_b[b]
            r = (r + ROUND) - ROUND
            total[b] = 0.0
            tile[i] = r
            hits += (r >= floor_a) | (r >= floor_b[b])
        if hits:
            for i in range(width):
                b = first + i
                r = min(max(tile[i], -1.0), 1.0)
                if r >= best_a.floor[a]:
                    _insert(best_a, a, r, scan.order_b[b])
                if r >= floor_b[b]:
                    _insert(best_b, b, r, identity_a)


@njit(nogil=True, cache=True)
def multiply(low, high, base, columns, records, totals):  # type: ignore[no-untyped-def]
    """Add the products of ranks low:high into their rows of `totals` (row 0 is rank `base`)."""
    strip = np.empty(_STRIP)
    for a in range(low - base, high - base):
        _multiply(columns.start[a], columns.start[a + 1], columns, records, totals[a], strip)


@njit(nogil=True, cache=True)
def select(low, high, base, totals, scan, best_a, best_b):  # type: ignore[no-untyped-def]
    """Correlate ranks low:high from their rows of `totals`, and clear those."""
    tile = np.empty(_TILE)
    for a in range(low, high):
        _select(a, totals[a - base], scan, best_a, best_b, tile)


@njit(nogil=True, cache=True)
def multiply_and_select(low, high, columns, records, total, scan, best_a, best_b):  # type: ignore[no-untyped-def]
    """Both for ranks low:high, one after another in a single accumulator (zero before and after)."""
    strip, tile = np.empty(_STRIP), np.empty(_TILE)
    for a in range(low, high):
        _multiply(columns.start[a], columns.start[a + 1], columns, records, total, strip)
        _select(a, total, scan, best_a, best_b, tile)


@njit(nogil=True, cache=True)
def sum_pairs(  # type: ignore[no-untyped-def]
    indptr_a, index_a, value_a, dense_a, shift_a, indptr_b, index_b, value_b, base_b, start, other, sums, counts
):
    """Add Σab and the number of rows on which both fire to the pairs start[a]:start[a + 1], which are (a, other[e]).

    `dense_a` (features of A,) is a dense feature's place in `shift_a`, else −1; `base_b` (features of B,) is minus the
    shift, or 0. One row of B is spread out at a time, so both sides are read in order.
    """
    spread = base_b.astype(np.float64)
    fires = np.zeros(base_b.shape[0], np.uint8)
    dense_ids = np.flatnonzero(dense_a >= 0)
    dense_value = np.empty(shift_a.shape[0])
    dense_fires = np.zeros(shift_a.shape[0], np.uint8)
    for row in range(indptr_a.shape[0] - 1):
        for q in range(indptr_b[row], indptr_b[row + 1]):
            if value_b[q] != 0:
                b = index_b[q]
                spread[b] = value_b[q] + base_b[b]
                fires[b] = 1
        for d in range(shift_a.shape[0]):
            dense_value[d], dense_fires[d] = -shift_a[d], 0
        for q in range(indptr_a[row], indptr_a[row + 1]):
            a = index_a[q]
            if value_a[q] != 0:
                d = dense_a[a]
                if d >= 0:
                    dense_value[d], dense_fires[d] = value_a[q] - shift_a[d], 1
                else:
                    x = np.float64(value_a[q])
                    for e in range(start[a], start[a + 1]):
                        sums[e] += x * spread[other[e]]
                        counts[e] += fires[other[e]]
        for a in dense_ids:
            d = dense_a[a]
            for e in range(start[a], start[a + 1]):
                sums[e] += dense_value[d] * spread[other[e]]
                counts[e] += dense_fires[d] & fires[other[e]]
        for q in range(indptr_b[row], indptr_b[row + 1]):
            b = index_b[q]
            spread[b] = base_b[b]
            fires[b] = 0
