"""Rows of codes as they enter sums within groups, and the sums of groups.

With S_a(g) and S_b(g) the sums of two features over the n_g rows of group g, and deviations taken from the means of
the groups,

    Σ (a − ā_g)(b − b̄_g) = Σ ab − Σ_g S_a(g) S_b(g) / n_g.

Both terms are products of sparse rows: those of the codes, and one for each group with the features that fire in it.
Rows alone in their group deviate from nothing, and are left out of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import sparse

from unifeat.correlation.moments import Profile
from unifeat.vocabulary.grouped_codes import GroupedCodes
from unifeat.vocabulary.paired_codes import Array, CsrArrays, normal

# Below this share of Σx², what is left within groups is a rounding error: the feature does not vary there.
ROUNDING_SHARE = 1e-12


class Taken(NamedTuple):
    """Which features of a side are taken, and as what.

    A dense feature is measured from its shift (see `moments`), on every row. That changes no deviation, and avoids
    cancellation.
    """

    column: Array  # (features,) int32, −1 for those that are not taken
    dense: Array  # (dense,) int32, the columns of dense features
    shift: Array  # (dense,) float64
    columns: int

    @classmethod
    def of(cls, profile: Profile, features: Array | None = None) -> Taken:
        """The given features, in their order; by default all that vary, under their own ids."""
        size = len(profile.rank)
        column = np.full(size, -1, np.int32)
        if features is None:
            column[profile.order] = profile.order
        else:
            column[features] = np.arange(len(features))
        dense = profile.order[: profile.dense]
        here = column[dense] >= 0
        return cls(column, column[dense[here]], profile.shift[here], size if features is None else len(features))


def rows_of(codes: CsrArrays, keep: Array, taken: Taken) -> sparse.csr_array:
    """The rows of a mask: (rows kept, columns) float64, dense features less their shift."""
    kept = np.flatnonzero(keep)
    place = np.full(taken.columns, -1, np.int32)
    place[taken.dense] = np.arange(len(taken.dense))
    indptr = np.zeros(len(kept) + 1, np.int64)
    _lengths(codes.indptr, codes.index, codes.value, kept, taken.column, place, len(taken.dense), indptr[1:])
    np.cumsum(indptr, out=indptr)
    index, value = np.empty(int(indptr[-1]), np.int32), np.empty(int(indptr[-1]))
    _fill(*codes, kept, taken.column, place, taken.dense, taken.shift, indptr, index, value)
    return sparse.csr_array((value, index, indptr), shape=(len(kept), taken.columns))


def arrays_of(rows: sparse.csr_array) -> CsrArrays:
    """The form in which the kernels of this package read rows."""
    return normal(CsrArrays(rows.indptr, rows.indices, rows.data), np.float64)


def grouped_rows(codes: GroupedCodes, a: Taken, b: Taken) -> Iterator[tuple[sparse.csr_array, sparse.csr_array, Array]]:
    """The rows of both sides that are not alone in their group, chunk by chunk, and their groups."""
    together = codes.sizes > 1
    for (chunk_a, chunk_b), group in codes.grouped_chunks():
        keep = together[group]
        yield rows_of(normal(chunk_a), keep, a), rows_of(normal(chunk_b), keep, b), group[keep]


@dataclass(frozen=True)
class GroupSums:
    """Sums over groups.

    Attributes:
        group: (groups,) int64, ascending: those that have any row here.
        rows: (groups,) int64, how many.
        a, b: (groups, columns) sparse float64.
    """

    group: Array
    rows: Array
    a: sparse.csr_array
    b: sparse.csr_array

    @classmethod
    def of(cls, a: sparse.csr_array, b: sparse.csr_array, group: Array) -> GroupSums:
        """The sums of some rows."""
        own, place, rows = np.unique(group, return_inverse=True, return_counts=True)
        return cls(own, rows, *(_gathered(place, len(own)) @ side for side in (a, b)))

    def plus(self, other: GroupSums) -> GroupSums:
        """The sums over the rows of both."""
        group = np.union1d(self.group, other.group)
        parts = []
        for one in (self, other):
            gather = _gathered(np.searchsorted(group, one.group), len(group))
            parts.append((gather @ one.rows, gather @ one.a, gather @ one.b))
        (rows, a, b), (rows_2, a_2, b_2) = parts
        return GroupSums(group, (rows + rows_2).astype(np.int64), a + a_2, b + b_2)


class Adding:
    """Group sums of many chunks. Parts of like size are added to each other, so that each row is added only a few
    times, however many chunks there are."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, GroupSums]] = []

    def add(self, part: GroupSums) -> None:
        """Add the sums of a chunk."""
        level = 0
        while self._parts and self._parts[-1][0] == level:
            part = self._parts.pop()[1].plus(part)
            level += 1
        self._parts.append((level, part))

    def whole(self) -> GroupSums | None:
        """All of them; None if there was no chunk."""
        found: GroupSums | None = None
        for _, part in reversed(self._parts):
            found = part if found is None else part.plus(found)
        return found


class Tally(NamedTuple):
    """What the rows of a side add up to, (columns,) each."""

    count: Array  # type: ignore[assignment]  # int64, values that are not zero; hides tuple.count
    squares: Array  # float64, Σx²


def group_sums(codes: GroupedCodes, a: Taken, b: Taken) -> tuple[GroupSums, tuple[Tally, Tally]]:
    """The sums of all groups with more than one row, and what their rows add up to."""
    adding = Adding()
    tallies = tuple(Tally(np.zeros(taken.columns, np.int64), np.zeros(taken.columns)) for taken in (a, b))
    for *rows, group in grouped_rows(codes, a, b):
        for tally, side in zip(tallies, rows, strict=True):
            tally.count[:] += count_of(side)
            tally.squares[:] += squares_of(side)
        adding.add(GroupSums.of(rows[0], rows[1], group))
    none = np.zeros(0, np.int64)
    empty = (sparse.csr_array((0, taken.columns)) for taken in (a, b))
    return adding.whole() or GroupSums(none, none, *empty), (tallies[0], tallies[1])


def count_of(rows: sparse.csr_array) -> Array:
    """(columns,) int64, values that are not zero."""
    return np.bincount(rows.indices[rows.data != 0], minlength=rows.shape[1])


def squares_of(rows: sparse.csr_array, weight: Array | None = None) -> Array:
    """(columns,) Σ w x² over the rows."""
    per_entry = rows.data * rows.data
    if weight is not None:
        per_entry *= np.repeat(weight, np.diff(rows.indptr))
    return np.bincount(rows.indices, weights=per_entry, minlength=rows.shape[1])


def scaled(rows: sparse.csr_array, weight: Array) -> sparse.csr_array:
    """The rows, each times its weight."""
    return sparse.csr_array(
        (rows.data * np.repeat(weight, np.diff(rows.indptr)), rows.indices, rows.indptr), rows.shape
    )


def _gathered(place: Array, size: int) -> sparse.csr_array:
    """(size, rows): its product with rows adds them up at their places."""
    return sparse.csr_array((np.ones(len(place)), (place, np.arange(len(place)))), shape=(size, len(place)))


@njit(nogil=True, cache=True)
def _lengths(indptr, index, value, kept, column, place, dense, length):  # type: ignore[no-untyped-def]
    for i in range(kept.size):
        entries = dense
        for q in range(np.uint64(indptr[kept[i]]), np.uint64(indptr[kept[i] + 1])):
            c = column[np.uint32(index[q])]
            if c >= 0 and value[q] != 0 and place[c] < 0:
                entries += 1
        length[i] = entries


@njit(nogil=True, cache=True)
def _fill(  # type: ignore[no-untyped-def]
    indptr, index, value, kept, column, place, dense, shift, start, out_index, out_value
):
    for i in range(kept.size):
        head = start[i]
        for d in range(dense.size):
            out_index[head + d] = dense[d]
            out_value[head + d] = -shift[d]
        at = head + dense.size
        for q in range(np.uint64(indptr[kept[i]]), np.uint64(indptr[kept[i] + 1])):
            c = column[np.uint32(index[q])]
            if c < 0 or value[q] == 0:
                continue
            d = place[c]
            if d >= 0:
                out_value[head + d] = np.float64(value[q]) - shift[d]
            else:
                out_index[at] = c
                out_value[at] = np.float64(value[q])
                at += 1
