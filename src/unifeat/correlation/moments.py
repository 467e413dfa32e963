"""Mean, spread and firing count of every feature, accurate enough that no correlation loses digits.

Two things would spoil Pearson's r from plain sums. For a feature that fires often, Σx² ≈ nμ², and rounding swamps the
difference, which is the variance. And a threshold on the variance cannot distinguish a constant feature from one with
small values. So:

* A feature that fires on at most half the rows has Σx² ≥ (Σx)²/count ≥ 2nμ² (Cauchy-Schwarz), so nσ² = Σx² − nμ² is at
  least half of Σx²: the subtraction loses at most one bit, whatever the values.
* A feature that fires on more than half the rows ("dense") is measured from a shift near its mean, on every row,
  including zeros. The shift does not change any correlation, it avoids the cancellation, and it at most doubles the
  number of entries. (For a feature that fires on all rows of n but one, (μ/σ)² is near n: at ten million rows, plain
  float64 sums, whose rounding errors grow with n, are already wrong in the fifth digit.)
* Whether a feature varies at all is decided exactly, from its smallest and largest values.

Sums run in row order and carry over from chunk to chunk, so the result does not depend on chunking or threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.vocabulary.paired_codes import Array, PairedCodes, checked_chunks, normal_chunks

# Columns of the running state of a feature, and how many there are.
COUNT, SUM, SUM_ERROR, SQUARES, SMALLEST, LARGEST, STATE_COLUMNS = range(7)
# Squares and products of values in this range, times any number of rows, stay within float64.
_SMALLEST_PEAK, _LARGEST_PEAK = 1e-100, 1e100


@dataclass(frozen=True)
class Moments:
    """Moments of each feature of one space, over all rows, including zeros.

    Attributes:
        count: (features,) int64, rows on which the feature fires (its code is not zero).
        mean: (features,) float64.
        sd: (features,) float64, population standard deviation; exactly 0 where the feature never varies.
    """

    count: Array
    mean: Array
    sd: Array


@dataclass(frozen=True)
class Profile:
    """One space as the correlation kernels read it: features that vary, ranked by firing count, the largest first.

    Attributes:
        moments: moments of the codes before any shift.
        order: (varying,) int32, the feature at each rank. Features that fire often are adjacent and share cache lines.
        rank: (features,) int32, inverse of `order`; −1 where the feature never varies.
        shift: (dense,) float64. Ranks below `len(shift)` are dense: the kernels read value − shift on every row.
        scale: (varying,) float64, 1/(√n σ) by rank.
        ratio: (varying,) float64, μ/σ by rank, μ after the shift. So r = Σab·scale_a·scale_b − ratio_a·ratio_b.
    """

    moments: Moments
    order: Array
    rank: Array
    shift: Array
    scale: Array
    ratio: Array

    @property
    def dense(self) -> int:
        return len(self.shift)

    @property
    def varying(self) -> int:
        return len(self.order)

    def entries(self, n: int) -> int:
        """Entries that the kernels read: one per firing, and one per row for dense features."""
        return int(self.moments.count[self.order[self.dense :]].sum()) + self.dense * n


def profiles(paired: PairedCodes, pool: ThreadPoolExecutor, threads: int) -> tuple[Profile, Profile, Any]:
    """Profiles of both sides and the dtype of their values, in one pass (two where a feature is dense).

    Raises:
        UserError: NaN or infinite values, feature ids out of range, values beyond 1e±100, malformed chunks.
    """
    n, sizes = paired.n_rows, (paired.features_a, paired.features_b)
    states = [np.zeros((size, STATE_COLUMNS)) for size in sizes]
    for state in states:
        state[:, SMALLEST], state[:, LARGEST] = np.inf, -np.inf
    dtype: Any = np.float32
    with track("moments", n) as advance:
        for chunk in checked_chunks(paired):
            jobs = [job for side in (0, 1) for job in _jobs(side, sizes[side], -(-threads // 2))]
            faults = list(
                pool.map(lambda job, c=chunk: _sum_moments(*c[job.side], states[job.side], job.low, job.high), jobs)
            )
            for job, (fault, feature) in zip(jobs, faults, strict=True):
                if fault:
                    raise _bad_value(fault, feature, "AB"[job.side], sizes[job.side])
            if any(c.value.dtype == np.float64 for c in chunk):
                dtype = np.float64
            advance(chunk[0].rows)

    first = [summarised(state, n, side) for state, side in zip(states, "AB", strict=True)]
    # A shift in the values' own type makes most differences from it exact.
    shifts = [mean[dense].astype(dtype).astype(np.float64) for _, mean, _, _, dense in first]
    sums = _centred_sums(paired, [dense for *_, dense in first], shifts, dtype, pool)
    a, b = (profile_of(*part, shift, total, n) for part, shift, total in zip(first, shifts, sums, strict=True))
    return a, b, dtype


def summarised(state: Array, n: int, side: str) -> tuple[Array, Array, Array, Array, Array]:
    """(count, mean, sd, ids that vary and are not dense, ids that vary and are dense).

    Args:
        state: (features, STATE_COLUMNS) float64: the sums, and the extremes of the values that are not zero.
    """
    count = state[:, COUNT].astype(np.int64)
    smallest = np.where(count < n, np.minimum(state[:, SMALLEST], 0.0), state[:, SMALLEST])
    largest = np.where(count < n, np.maximum(state[:, LARGEST], 0.0), state[:, LARGEST])
    peak = np.maximum(np.abs(smallest), np.abs(largest))
    out_of_range = np.flatnonzero((count > 0) & ((peak < _SMALLEST_PEAK) | (peak > _LARGEST_PEAK)))
    if len(out_of_range):
        raise UserError(
            f"codes {side}, feature {out_of_range[0]}: values of size {peak[out_of_range[0]]:.0e} are beyond 1e±100; "
            "rescale the codes"
        )
    varies = largest > smallest
    is_dense = varies & (2 * count > n)
    mean = (state[:, SUM] + state[:, SUM_ERROR]) / max(n, 1)
    sd = np.zeros_like(mean)
    sparse = varies & ~is_dense
    sd[sparse] = np.sqrt(state[sparse, SQUARES] / n - mean[sparse] ** 2)
    # By firing count, largest first, ties by id: the dense features come first.
    order = np.flatnonzero(varies)
    order = order[np.argsort(-count[order], kind="stable")].astype(np.int32)
    dense = int(is_dense.sum())
    return count, mean, sd, order[dense:], order[:dense]


def _centred_sums(
    paired: PairedCodes, dense: list[Array], shifts: list[Array], dtype: Any, pool: ThreadPoolExecutor
) -> list[Array]:
    """For each side (dense, 2): Σ and Σ² of value − shift over the rows on which the dense feature fires."""
    sums = [np.zeros((len(ids), 2)) for ids in dense]
    if not any(len(ids) for ids in dense):
        return sums
    slots = []
    for ids, size in zip(dense, (paired.features_a, paired.features_b), strict=True):
        slot = np.full(size, -1, np.int32)
        slot[ids] = np.arange(len(ids))
        slots.append(slot)
    with track("moments of dense features", paired.n_rows) as advance:
        for chunk in normal_chunks(paired, dtype):
            list(pool.map(lambda side, c=chunk: _sum_centred(*c[side], slots[side], shifts[side], sums[side]), (0, 1)))
            advance(chunk[0].rows)
    return sums


def profile_of(
    count: Array, mean: Array, sd: Array, sparse: Array, dense: Array, shift: Array, sums: Array, n: int
) -> Profile:
    """A profile from what `summarised` gives, and the dense features' shift and centred sums (dense, 2)."""
    order = np.concatenate([dense, sparse])
    offset = mean[order]  # the mean that the kernels see: after the shift, for dense features
    if len(dense):
        silent = n - count[dense]
        offset[: len(dense)] = (sums[:, 0] - silent * shift) / n
        variance = (sums[:, 1] + silent * shift**2) / n - offset[: len(dense)] ** 2
        mean[dense], sd[dense] = shift + offset[: len(dense)], np.sqrt(variance)
    rank = np.full(len(count), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    spread = sd[order]
    return Profile(Moments(count, mean, sd), order, rank, shift, 1.0 / (np.sqrt(n) * spread), offset / spread)


class _Job(NamedTuple):
    """Features low:high of one side."""

    side: int
    low: int
    high: int


def _jobs(side: int, size: int, parts: int) -> list[_Job]:
    edges = np.linspace(0, size, min(parts, max(size, 1)) + 1).astype(int).tolist()
    return [_Job(side, low, high) for low, high in pairwise(edges)]


def _bad_value(fault: int, feature: int, side: str, features: int) -> UserError:
    if fault == _BAD_ID:
        return UserError(f"codes {side} name feature {feature}, but there are {features} features")
    return UserError(f"codes {side} hold NaN or infinite values (feature {feature}): correlation needs finite codes")


_NOT_FINITE, _BAD_ID = 1, 2  # faults that `_sum_moments` reports


@njit(nogil=True, cache=True)
def _sum_moments(indptr, index, value, state, low, high):  # type: ignore[no-untyped-def]
    """Add the entries of features low:high to `state`. Returns (0, 0), or (fault, feature id)."""
    first, beyond, size = np.uint32(low), np.uint32(high), np.uint32(state.shape[0])
    for q in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        feature = np.uint32(index[q])  # unsigned: a negative id becomes too large, and indexing is faster
        if feature < first or feature >= beyond:
            if feature >= size:
                return _BAD_ID, np.int64(index[q])
            continue
        x = np.float64(value[q])
        if not np.isfinite(x):
            return _NOT_FINITE, np.int64(feature)
        if x != 0.0:
            state[feature, COUNT] += 1.0
            # The rounding error of the sum is added up beside it (Knuth's TwoSum): a dense feature's shift must be
            # accurate to the last digit even when its spread is a billionth of its mean.
            before = state[feature, SUM]
            after = before + x
            part = after - before
            state[feature, SUM_ERROR] += (before - (after - part)) + (x - part)
            state[feature, SUM] = after
            state[feature, SQUARES] += x * x
            if x < state[feature, SMALLEST]:
                state[feature, SMALLEST] = x
            if x > state[feature, LARGEST]:
                state[feature, LARGEST] = x
    return 0, np.int64(0)


@njit(nogil=True, cache=True)
def _sum_centred(indptr, index, value, slot, shift, sums):  # type: ignore[no-untyped-def]
    for q in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        d = slot[np.uint32(index[q])]
        if d >= 0 and value[q] != 0:
            x = value[q] - shift[d]
            sums[d, 0] += x
            sums[d, 1] += x * x
