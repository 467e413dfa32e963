"""The compiled loops: lay out the codes, multiply them sparsely, keep the best partners, sum over given pairs.

The sums Σab of all pairs are formed one A feature at a time (Gustavson): for each row on which the feature fires, add
a × (the row of B) to an accumulator with one entry per B feature. The accumulator stays in the cache. The rows of B are
scattered over memory, and fetching them takes most of the time. Hence the layout: each row of B is one contiguous
record (length, ids, values), A stores the address of that record instead of the row number, and records are prefetched
a few steps ahead.

Every pair's sum is accumulated in row order by one thread, without fused or reordered arithmetic. So the results are
the same bit for bit whatever the number of threads, chunks or panels. "Rank" is a feature's place in `Profile.order`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from unifeat.vocabulary.paired_codes import Array

_PREFETCH_FAR, _PREFETCH_NEAR = 16, 4  # how many records ahead to prefetch; the exact numbers matter little
_FEWEST_ENTRIES_TO_PREFETCH = 64  # from this many entries on, the accumulator itself is prefetched first
_STRIP_LENGTH = 64  # products formed at once (vectorised) before they are scattered
TILE = 64  # correlations formed at once; they are compared one by one only if one of them may enter a list
# Adding and subtracting this rounds to a multiple of 2⁻⁴⁰ ≈ 1e-12, so that correlations equal in exact arithmetic tie.
ROUNDING = 1.5 * 2.0 ** (52 - 40)
_ROUNDING_STEP = 2.0**-40


class Records(NamedTuple):
    """Rows of B as records.

    The record at word w holds the length k and k ids (from `ids[w * R]`), padded to whole words; then the values of the
    dense features; then k values. A dense feature's difference from its shift needs more digits than a float32 has, so
    it is stored in two parts: the high parts of all dense features first, then the low parts.

    `values` and `ids` are two views of one buffer of words. A word is one value, or R ids.
    """

    values: Array  # (words,) float32 or float64
    ids: Array  # (words * R,) uint16 or uint32, ranks; the dense ranks 0, 1, 2 … are not stored
    per_word: tuple[int, ...]  # R values: a tuple's length is part of its type, so R is a compile-time constant
    dense: int
    lines: int  # cache lines of a typical record


class Columns(NamedTuple):
    """Entries of A, feature by feature, in row order: the address of the row's record, and the value."""

    start: Array  # (features of the panel + 1,) int64
    word: Array  # (entries,) uint32
    value: Array  # (entries,) float32 or float64; for dense features, the high part of value − shift on every row
    low: Array  # (entries of dense features, which come first,) the same type, the low parts


class Best(NamedTuple):
    """The best partners so far, best first; −inf and −1 where there are none yet.

    Threads with lists of the same features share `floor`: an r below the worst r in any thread's full list is not among
    the best. So a late or lost update costs an unnecessary comparison, but never a partner.
    """

    value: Array  # (features, top) float64
    partner: Array  # (features, top) int32, feature ids
    floor: Array  # (features,) float64: an r below this (before rounding) can be skipped

    def over(self, features: slice) -> Best:
        """Views of the lists of some of the features."""
        return Best(self.value[features], self.partner[features], self.floor[features])


class Scan(NamedTuple):
    """What turns Σab into r (see `Profile`), and the feature id at each rank."""

    scale_a: Array
    ratio_a: Array
    order_a: Array
    scale_b: Array
    ratio_b: Array
    order_b: Array

    def over_a(self, ranks: slice) -> Scan:
        """The same for some of A's ranks."""
        return self._replace(scale_a=self.scale_a[ranks], ratio_a=self.ratio_a[ranks], order_a=self.order_a[ranks])

    def over_b(self, ranks: slice) -> Scan:
        """The same for some of B's ranks."""
        return self._replace(scale_b=self.scale_b[ranks], ratio_b=self.ratio_b[ranks], order_b=self.order_b[ranks])


def _prefetch(locality: int) -> Any:
    """A prefetch instruction for the cache line of array[position]."""

    @intrinsic
    def instruction(typingctx: Any, array: Any, position: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, args[0])
            address = builder.bitcast(builder.gep(view.data, [args[1]]), cgutils.voidptr_t)
            i32 = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
            function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
            builder.call(function, [address, i32(0), i32(locality), i32(1)])  # 0: to read; 1: data
            return context.get_dummy_value()

        return types.void(array, types.int64), codegen

    return instruction


_prefetch_far = _prefetch(2)  # into the second-level cache, which allows more outstanding requests
_prefetch_near = _prefetch(0)  # into the first level, for one read, so that the accumulator is not evicted


@njit(nogil=True, cache=True, inline="always")
def _id_words(k, per_word):  # type: ignore[no-untyped-def]
    """Words for a length and k ids, one or two per word. (A shift, since a division would take a tenth of the time.)"""
    return (k + per_word) >> (per_word - 1)


@njit(nogil=True, cache=True)
def record_words(indptr, index, value, rank, dense, per_word, first, last, words):  # type: ignore[no-untyped-def]
    """words[i] = length of the record of row i, for rows first:last."""
    for row in range(first, last):
        k: Any = 0
        for q in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            k += np.int64((rank[np.uint32(index[q])] >= dense) & (value[q] != 0))
        words[row] = _id_words(k, per_word) + 2 * dense + k


@njit(nogil=True, cache=True)
def fill_records(indptr, index, value, rank, shift, start, first, last, values, ids):  # type: ignore[no-untyped-def]
    """Write the records of rows first:last at words start[row]."""
    per_word = values.itemsize // ids.itemsize
    dense = shift.shape[0]
    apart = np.empty(dense)
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    kept = np.empty(longest, values.dtype)
    for row in range(first, last):
        head = np.uint64(start[row])
        body = head * np.uint64(per_word)
        begin, end = np.uint64(indptr[row]), np.uint64(indptr[row + 1])
        k = np.uint64(0)
        for d in range(dense):
            apart[d] = -shift[d]
        for q in range(begin, end):
            r = rank[np.uint32(index[q])]
            if r >= 0 and value[q] != 0:
                if r < dense:
                    apart[r] = value[q] - shift[r]
                else:
                    kept[k] = value[q]
                    k += np.uint64(1)
                    ids[body + k] = r
        ids[body] = k
        head += np.uint64(_id_words(np.int64(k), per_word))
        for d in range(dense):
            values[head + np.uint64(d)] = apart[d]
            values[head + np.uint64(dense + d)] = apart[d] - values[head + np.uint64(d)]
        head += np.uint64(2 * dense)
        for i in range(k):
            values[head + i] = kept[i]


@njit(nogil=True, cache=True)
def count_columns(indptr, index, value, rank, dense, first, last, count):  # type: ignore[no-untyped-def]
    """count[r] += entries of rank r in rows first:last; dense ranks count every row."""
    for d in range(dense):
        count[d] += last - first
    for q in range(np.uint64(indptr[first]), np.uint64(indptr[last])):
        r = rank[np.uint32(index[q])]
        if r >= dense and value[q] != 0:
            count[np.uint32(r)] += 1


@njit(nogil=True, cache=True)
def fill_columns(  # type: ignore[no-untyped-def]
    indptr, index, value, rank, shift, start, low, high, first, last, cursor, word, column_value, column_low
):
    """Write the entries of ranks low:high in rows first:last, each at its column's cursor."""
    dense, width = shift.shape[0], np.uint32(high - low)
    apart = np.empty(dense)
    for row in range(first, last):
        head = start[row]
        for d in range(dense):
            apart[d] = -shift[d]
        for q in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            r = rank[np.uint32(index[q])]
            column = np.uint32(r - low)  # ranks below `low` wrap around to large values, so one comparison is enough
            if column < width and r >= 0 and value[q] != 0:
                if r < dense:
                    apart[r] = value[q] - shift[r]
                else:
                    at = np.uint64(cursor[column])
                    cursor[column] += 1
                    word[at] = head
                    column_value[at] = value[q]
        for d in range(low, min(dense, high)):
            at = np.uint64(cursor[d - low])
            cursor[d - low] += 1
            word[at] = head
            column_value[at] = apart[d]
            column_low[at] = apart[d] - column_value[at]


@njit(nogil=True, cache=True)
def _multiply(first, last, columns, records, total, strip):  # type: ignore[no-untyped-def]
    """total[b] += Σ a·b over entries first:last of one A feature."""
    values, ids, word, low = records.values, records.ids, columns.word, columns.low
    per_word = len(records.per_word)
    line, lines, dense = 64 // values.itemsize, records.lines, records.dense
    for p in range(first, last):
        if p + _PREFETCH_FAR < last:
            far = np.int64(word[p + _PREFETCH_FAR])
            for i in range(lines):
                _prefetch_far(values, far + i * line)
        if p + _PREFETCH_NEAR < last:
            near = np.int64(word[p + _PREFETCH_NEAR])
            for i in range(lines):
                _prefetch_near(values, near + i * line)
        a = np.float64(columns.value[p])
        if p < low.shape[0]:
            a += low[p]
        head = np.int64(word[p])
        body = head * per_word
        k: Any = np.int64(ids[body])
        body += 1
        head += _id_words(k, per_word)
        for d in range(dense):
            total[d] += a * (np.float64(values[head + d]) + np.float64(values[head + dense + d]))
        head += 2 * dense
        for done in range(0, k, _STRIP_LENGTH):
            size = min(k - done, _STRIP_LENGTH)
            for q in range(size):
                strip[q] = a * values[head + done + q]
            for q in range(size):
                total[ids[body + done + q]] += strip[q]


@njit(nogil=True, cache=True)
def _insert(best, row, r, identity):  # type: ignore[no-untyped-def]
    """Insert (r, identity) into the row's list if it is good enough: larger r first, then the lower id."""
    value, partner = best.value, best.partner
    r = min(max((r + ROUNDING) - ROUNDING, -1.0), 1.0)
    k = value.shape[1] - 1
    if r < value[row, k] or (r == value[row, k] and identity > partner[row, k]):
        return
    while k > 0 and (value[row, k - 1] < r or (value[row, k - 1] == r and partner[row, k - 1] > identity)):
        value[row, k], partner[row, k] = value[row, k - 1], partner[row, k - 1]
        k -= 1
    value[row, k], partner[row, k] = r, identity
    worst = value[row, value.shape[1] - 1]
    if worst > -1.0 and worst - _ROUNDING_STEP > best.floor[row]:
        best.floor[row] = worst - _ROUNDING_STEP


@njit(nogil=True, cache=True)
def multiply(low, high, columns, records, totals):  # type: ignore[no-untyped-def]
    """Add the products of columns low:high into the same rows of `totals`."""
    strip = np.empty(_STRIP_LENGTH)
    for a in range(low, high):
        first, last = columns.start[a], columns.start[a + 1]
        total = totals[a]
        if last - first > _FEWEST_ENTRIES_TO_PREFETCH:
            for i in range(0, total.shape[0], 8):
                _prefetch_far(total, i)
        _multiply(first, last, columns, records, total, strip)


@njit(nogil=True, cache=True)
def select(low, high, base, totals, scan, best_a, best_b):  # type: ignore[no-untyped-def]
    """Enter the correlations of ranks low:high with every B feature into both lists; reset their rows of `totals`.

    Arrays over B's ranks are padded to a multiple of TILE, with ratio NaN: NaN enters no list.
    """
    scale_b, ratio_b, floor_b = scan.scale_b, scan.ratio_b, best_b.floor
    for a in range(low, high):
        total = totals[a - base]
        scale_a, ratio_a = scan.scale_a[a], scan.ratio_a[a]
        for tile in range(total.shape[0] // TILE):
            # The compiler vectorises this loop because its length is fixed and its indices are unsigned.
            first = np.uint64(tile) * np.uint64(TILE)
            floor_a, hits = best_a.floor[a], np.int64(0)
            for i in range(TILE):
                b = first + np.uint64(i)
                r = (total[b] * scale_a) * scale_b[b] - ratio_a * ratio_b[b]
                hits += np.int64(r >= (floor_a if floor_a < floor_b[b] else floor_b[b]))
            if hits:
                for i in range(TILE):
                    b = first + np.uint64(i)
                    r = (total[b] * scale_a) * scale_b[b] - ratio_a * ratio_b[b]
                    if r >= best_a.floor[a]:
                        _insert(best_a, a, r, scan.order_b[b])
                    if r >= floor_b[b]:
                        _insert(best_b, b, r, scan.order_a[a])
            for i in range(TILE):
                total[first + np.uint64(i)] = 0.0


@njit(nogil=True, cache=True)
def multiply_and_select(low, high, columns, records, totals, scan, best_a, best_b):  # type: ignore[no-untyped-def]
    """`multiply` and `select` for each of the ranks low:high, in the single row of `totals` (zero before and after)."""
    strip = np.empty(_STRIP_LENGTH)
    for a in range(low, high):
        _multiply(columns.start[a], columns.start[a + 1], columns, records, totals[0], strip)
        select(a, a + 1, a, totals, scan, best_a, best_b)


@njit(nogil=True, cache=True)
def count_partners(  # type: ignore[no-untyped-def]
    indptr_a, index_a, value_a, indptr_b, index_b, value_b, first, last, tally_a, tally_b
):
    """tally[f, t, 1] += rows of first:last on which f and its partner tally[f, t, 0] both fire, for either side.

    A tally is (features, top, 2) uint32: the partner next to the count, so that one cache line holds both. "No partner"
    is the number of features on the other side.
    """
    top = tally_a.shape[1]
    fires_a = np.zeros(tally_a.shape[0] + 1, np.uint8)
    fires_b = np.zeros(tally_b.shape[0] + 1, np.uint8)
    for row in range(first, last):
        begin_a, end_a = np.uint64(indptr_a[row]), np.uint64(indptr_a[row + 1])
        begin_b, end_b = np.uint64(indptr_b[row]), np.uint64(indptr_b[row + 1])
        for q in range(begin_a, end_a):
            fires_a[np.uint32(index_a[q])] = value_a[q] != 0
        for q in range(begin_b, end_b):
            b = np.uint32(index_b[q])
            if value_b[q] != 0:
                fires_b[b] = 1
                for t in range(top):
                    tally_b[b, t, 1] += fires_a[tally_b[b, t, 0]]
        for q in range(begin_a, end_a):
            a = np.uint32(index_a[q])
            if fires_a[a]:
                fires_a[a] = 0
                for t in range(top):
                    tally_a[a, t, 1] += fires_b[tally_a[a, t, 0]]
        for q in range(begin_b, end_b):
            fires_b[np.uint32(index_b[q])] = 0


@njit(nogil=True, cache=True)
def sum_pairs(  # type: ignore[no-untyped-def]
    indptr_a, index_a, value_a, dense_a, shift_a, indptr_b, index_b, value_b, base_b, start, other, sums, counts
):
    """Add Σab and the number of rows on which both fire, for the pairs (a, other[e]), e in start[a]:start[a + 1].

    `dense_a` (features of A,) is a dense feature's place in `shift_a`, else −1; `base_b` (features of B,) is minus the
    shift, or 0. One row of B at a time is written out in full, so that both sides are read in order.
    """
    spread = base_b.copy()
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
