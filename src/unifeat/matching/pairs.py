"""Sums and co-firing counts of given pairs, in one pass over the tokens.

Rows are read in order on both sides and each row of B is spread out once, so a pair costs one multiplication per
token on which its owner fires. No accumulator of all pairs is needed: this is how co-firing counts of the best
partners and correlations on held-out text are made.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from unifeat.errors import UserError
from unifeat.matching import kernels
from unifeat.matching.layout import Team, even_ranges
from unifeat.matching.moments import Profile, profiles
from unifeat.matching.paired import Array, CsrArrays, PairedCodes, as_paired, normal_chunks
from unifeat.progress import track


class Sums(NamedTuple):
    total: Array  # (pairs,) float64, Σab after the dense features' shift
    cofiring: Array  # (pairs,) int64, rows on which both fire


class _Job(NamedTuple):
    side: int  # whose features own the pairs
    start: Array  # (features of that side + 1,) the owner's pairs
    other: Array
    total: Array
    cofiring: Array


def pair_correlation(
    codes: PairedCodes | tuple[Any, Any], feature_a: Any, feature_b: Any, *, threads: int | None = None
) -> tuple[Array, Array]:
    """Exact correlations of given pairs on given codes: for instance, on held-out text, of pairs found elsewhere.

    Args:
        codes: `PairedCodes`, or (codes_a, codes_b) as for `correlate`.
        feature_a, feature_b: (pairs,) feature ids.
        threads: as for `correlate`.

    Returns:
        r: (pairs,) float64, NaN where either feature never varies on these codes.
        count: (pairs,) int64, tokens on which both fire.

    Raises:
        UserError: as `correlate`; also ids that do not exist and lists of different lengths.
    """
    paired, threads = as_paired(codes), thread_count(threads)
    a_ids, b_ids = _ids(feature_a, "A", paired.features_a), _ids(feature_b, "B", paired.features_b)
    if len(a_ids) != len(b_ids):
        raise UserError(f"{len(a_ids)} features of A cannot be paired with {len(b_ids)} of B")
    with ThreadPoolExecutor(threads) as pool:
        team = Team(pool, threads)
        a, b, dtype = profiles(paired, pool, threads)
        # A pair belongs to its feature with fewer pairs: the many partners of a hub do not cost its many tokens.
        by_b = np.bincount(a_ids, minlength=1)[a_ids] > np.bincount(b_ids, minlength=1)[b_ids]
        own_a, own_b = sum_pairs(paired, (a, b), dtype, (a_ids[~by_b], b_ids[~by_b]), (b_ids[by_b], a_ids[by_b]), team)
    total, count = np.empty(len(by_b)), np.empty(len(by_b), np.int64)
    total[~by_b], total[by_b] = own_a.total, own_b.total
    count[~by_b], count[by_b] = own_a.cofiring, own_b.cofiring
    rank_a, rank_b = a.rank[a_ids], b.rank[b_ids]
    known = (rank_a >= 0) & (rank_b >= 0)
    i, j = rank_a[known], rank_b[known]
    r = np.full(len(total), np.nan)
    exact = (total[known] * a.scale[i]) * b.scale[j] - a.ratio[i] * b.ratio[j]
    r[known] = np.clip((exact + kernels.ROUND) - kernels.ROUND, -1.0, 1.0)
    return r, count


def cofiring(paired: PairedCodes, index_ab: Array, index_ba: Array, team: Team) -> tuple[Array, Array]:
    """Rows on which a feature and its partner both fire: (features, top) int64 like the partner ids, 0 where −1."""
    counts = np.zeros(index_ab.shape, np.int64), np.zeros(index_ba.shape, np.int64)
    sheets = [(_tally(index_ab, len(index_ba)), _tally(index_ba, len(index_ab))) for _ in range(team.threads)]
    with track("co-firing", paired.n_rows) as advance:
        for a, b in normal_chunks(paired):
            edges = np.linspace(0, a.rows, team.threads + 1).astype(int).tolist()

            def run(part: int, a: CsrArrays = a, b: CsrArrays = b, edges: list[int] = edges) -> None:
                kernels.count_partners(*a, *b, edges[part], edges[part + 1], *sheets[part])

            team.each(run, list(range(team.threads)))
            for sheet in sheets:
                for count, tally in zip(counts, sheet, strict=True):
                    count += tally[..., 1]
                    tally[..., 1] = 0
            advance(a.rows)
    return counts


def _tally(index: Array, nobody: int) -> Array:
    tally = np.zeros((*index.shape, 2), np.uint32)
    tally[..., 0] = np.where(index >= 0, index, nobody)
    return tally


def sum_pairs(
    paired: PairedCodes,
    both: tuple[Profile, Profile],
    dtype: Any,
    owned_by_a: tuple[Array, Array],
    owned_by_b: tuple[Array, Array],
    team: Team,
) -> tuple[Sums, Sums]:
    """Sums of the pairs (owner, other) of either side, in the order given."""
    results: list[Sums] = []
    jobs: list[_Job] = []
    orders: list[Array] = []
    share = -(-team.threads // 2) if len(owned_by_a[0]) and len(owned_by_b[0]) else team.threads
    for side, (owner, other) in enumerate((owned_by_a, owned_by_b)):
        order = np.argsort(owner, kind="stable")
        owner, other = owner[order], other[order].astype(np.int32)
        sums = Sums(np.zeros(len(owner)), np.zeros(len(owner), np.int64))
        results.append(sums)
        orders.append(order)
        count = both[side].moments.count
        for low, high in even_ranges(count[owner] + 1, share) if len(owner) else []:
            start = np.searchsorted(owner[low:high], np.arange(len(count) + 1))
            jobs.append(_Job(side, start, other[low:high], sums.total[low:high], sums.cofiring[low:high]))

    # Dense features: their place among the shifts, and what a silent row of theirs is worth.
    places, bases = [], []
    for profile in both:
        dense = profile.order[: profile.dense]
        place, base = np.full(len(profile.rank), -1, np.int32), np.zeros(len(profile.rank))
        place[dense], base[dense] = np.arange(len(dense)), -profile.shift
        places.append(place)
        bases.append(base)

    if jobs:
        with track("co-firing", paired.n_rows) as advance:
            for chunk in normal_chunks(paired, dtype):

                def run(job: _Job, chunk: Any = chunk) -> None:
                    own, far = job.side, 1 - job.side
                    kernels.sum_pairs(
                        *chunk[own], places[own], both[own].shift, *chunk[far], bases[far],
                        job.start, job.other, job.total, job.cofiring,
                    )  # fmt: skip

                team.each(run, jobs)
                advance(chunk[0].rows)
    unsorted = []
    for sums, order in zip(results, orders, strict=True):
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        unsorted.append(Sums(sums.total[back], sums.cofiring[back]))
    return unsorted[0], unsorted[1]


def thread_count(threads: int | None) -> int:
    """The threads asked for, or numba's number.

    Raises:
        UserError: fewer than one.
    """
    from numba import config

    if threads is None:
        return int(config.NUMBA_NUM_THREADS)
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    return threads


def _ids(given: Any, side: str, size: int) -> Array:
    ids = np.asarray(given, dtype=np.int64).ravel()
    if len(ids) and not (ids.min() >= 0 and ids.max() < size):
        raise UserError(f"pairs name features {ids.min()} to {ids.max()} of {side}, which has {size} features")
    return ids
