"""Mean, spread and firing count of every feature, exact enough that no correlation loses digits.

Two things would spoil Pearson's r from plain sums. A feature that fires often has Σx² ≈ nμ², and the difference that
is its variance drowns in rounding. And a variance threshold cannot tell a constant from a quiet feature. So:

* A feature that fires on at most half the rows has Σx² ≥ (Σx)²/count ≥ 2nμ² (Cauchy-Schwarz), so nσ² = Σx² − nμ² is
  at least half of Σx²: the subtraction costs one bit, whatever the values.
* A feature that fires on more than half the rows ("dense") is measured from a shift near its mean, on every row,
  zeros included. That leaves every correlation as it was, removes the cancellation, and at most doubles its entries.
  (For a feature silent on one row of n, (μ/σ)² is near n: at ten million rows plain float64 sums, whose own rounding
  grows with n, already miss the fifth digit.)
* Whether a feature varies at all is decided exactly, from its smallest and largest value.

Sums run in row order and carry over from chunk to chunk: the result does not depend on chunking or threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.vocabulary.paired_codes import Array, PairedCodes, checked_chunks, normal_chunks

_COUNT, _SUM, _LOST, _SQUARES, _LEAST, _MOST, _COLUMNS = range(7)
# Squares and products of these, times any number of rows, stay inside float64.
_SMALLEST_PEAK, _LARGEST_PEAK = 1e-100, 1e100


@dataclass(frozen=True)
class Moments:
    """Per feature of one space, over all rows (zeros included).

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
    """One space as the correlation kernels want it: features that vary, the most active first ("rank").

    Attributes:
        moments: of the codes as they are.
        order: (varying,) int32, the feature at each rank. Busy features side by side share cache lines.
        rank: (features,) int32, inverse of `order`; −1 where the feature never varies.
        shift: (dense,) float64. Ranks below `len(shift)` are dense: the kernels see value − shift on every row.
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
        """Entries the kernels will see: firings, with dense features on every row."""
        return int(self.moments.count[self.order[self.dense :]].sum()) + self.dense * n


def profiles(paired: PairedCodes, pool: ThreadPoolExecutor, threads: int) -> tuple[Profile, Profile, Any]:
    """Profiles of both sides and the dtype of their values, in one pass (two where a feature is dense).

    Raises:
        UserError: NaN or infinite values, feature ids out of range, values beyond 1e±100, malformed chunks.
    """
    n, sizes = paired.n_rows, (paired.features_a, paired.features_b)
    states = [np.zeros((size, _COLUMNS)) for size in sizes]
    for state in states:
        state[:, _LEAST], state[:, _MOST] = np.inf, -np.inf
    dtype: Any = np.float32
    with track("moments", n) as advance:
        for chunk in checked_chunks(paired):
            jobs = [(side, span) for side in (0, 1) for span in _spans(sizes[side], -(-threads // 2))]
            codes = list(pool.map(lambda job, c=chunk: _sum_moments(*c[job[0]], states[job[0]], *job[1]), jobs))
            for (side, _), (code, feature) in zip(jobs, codes, strict=True):
                if code:
                    raise _bad_value(code, feature, "AB"[side], sizes[side])
            if any(c.value.dtype == np.float64 for c in chunk):
                dtype = np.float64
            advance(chunk[0].rows)

    first = [_summarise(state, n, side) for state, side in zip(states, "AB", strict=True)]
    # A shift in the values' own type makes most differences from it exact.
    shifts = [mean[dense].astype(dtype).astype(np.float64) for _, mean, _, _, dense in first]
    sums = _centred_sums(paired, [dense for *_, dense in first], shifts, dtype, pool)
    a, b = (_profile(*part, shift, total, n) for part, shift, total in zip(first, shifts, sums, strict=True))
    return a, b, dtype


def _summarise(state: Array, n: int, side: str) -> tuple[Array, Array, Array, Array, Array]:
    """(count, mean, sd, ids that vary and are not dense, ids that vary and are dense)."""
    count = state[:, _COUNT].astype(np.int64)
    least = np.where(count < n, np.minimum(state[:, _LEAST], 0.0), state[:, _LEAST])
    most = np.where(count < n, np.maximum(state[:, _MOST], 0.0), state[:, _MOST])
    peak = np.maximum(np.abs(least), np.abs(most))
    odd = np.flatnonzero((count > 0) & ((peak < _SMALLEST_PEAK) | (peak > _LARGEST_PEAK)))
    if len(odd):
        raise UserError(
            f"codes {side}, feature {odd[0]}: values of size {peak[odd[0]]:.0e} are beyond 1e±100; rescale the codes"
        )
    varies = most > least
    is_dense = varies & (2 * count > n)
    mean = (state[:, _SUM] + state[:, _LOST]) / max(n, 1)
    sd = np.zeros_like(mean)
    sparse = varies & ~is_dense
    sd[sparse] = np.sqrt(state[sparse, _SQUARES] / n - mean[sparse] ** 2)
    # Most active first, ties by id; dense features are the most active of all that vary.
    order = np.flatnonzero(varies)
    order = order[np.argsort(-count[order], kind="stable")].astype(np.int32)
    dense = int(is_dense.sum())
    return count, mean, sd, order[dense:], order[:dense]


def _centred_sums(
    paired: PairedCodes, dense: list[Array], shifts: list[Array], dtype: Any, pool: ThreadPoolExecutor
) -> list[Array]:
    """Per side (dense, 2): Σ and Σ² of value − shift over the rows on which the dense feature fires."""
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


def _profile(
    count: Array, mean: Array, sd: Array, sparse: Array, dense: Array, shift: Array, sums: Array, n: int
) -> Profile:
    order = np.concatenate([dense, sparse])
    offset = mean[order]  # the mean the kernels see: after the shift, for dense features
    if len(dense):
        silent = n - count[dense]
        offset[: len(dense)] = (sums[:, 0] - silent * shift) / n
        variance = (sums[:, 1] + silent * shift**2) / n - offset[: len(dense)] ** 2
        mean[dense], sd[dense] = shift + offset[: len(dense)], np.sqrt(variance)
    rank = np.full(len(count), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    spread = sd[order]
    return Profile(Moments(count, mean, sd), order, rank, shift, 1.0 / (np.sqrt(n) * spread), offset / spread)


def _spans(size: int, parts: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, size, min(parts, max(size, 1)) + 1).astype(int).tolist()
    return list(pairwise(edges))


def _bad_value(code: int, feature: int, side: str, features: int) -> UserError:
    if code == 2:
        return UserError(f"codes {side} name feature {feature}, but there are {features} features")
    return UserError(f"codes {side} hold NaN or infinite values (feature {feature}): correlation needs finite codes")


@njit(nogil=True, cache=True)
def _sum_moments(indptr, index, value, state, low, high):  # type: ignore[no-untyped-def]
    """Add the entries of features low:high to `state`; (0, 0), or what is wrong and where: (1 not finite | 2 id)."""
    first, beyond, size = np.uint32(low), np.uint32(high), np.uint32(state.shape[0])
    for q in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        feature = np.uint32(index[q])  # unsigned: a negative id is beyond the size, and indexing is faster
        if feature < first or feature >= beyond:
            if feature >= size:
                return 2, np.int64(index[q])
            continue
        x = np.float64(value[q])
        if not np.isfinite(x):
            return 1, np.int64(feature)
        if x != 0.0:
            state[feature, _COUNT] += 1.0
            # What rounding takes from the sum is kept beside it (Knuth's TwoSum): the shift of a dense feature must be
            # right to the last digit even when its spread is a billionth of its mean.
            before = state[feature, _SUM]
            after = before + x
            part = after - before
            state[feature, _LOST] += (before - (after - part)) + (x - part)
            state[feature, _SUM] = after
            state[feature, _SQUARES] += x * x
            if x < state[feature, _LEAST]:
                state[feature, _LEAST] = x
            if x > state[feature, _MOST]:
                state[feature, _MOST] = x
    return 0, np.int64(0)


@njit(nogil=True, cache=True)
def _sum_centred(indptr, index, value, slot, shift, sums):  # type: ignore[no-untyped-def]
    for q in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        d = slot[np.uint32(index[q])]
        if d >= 0 and value[q] != 0:
            x = value[q] - shift[d]
            sums[d, 0] += x
            sums[d, 1] += x * x
