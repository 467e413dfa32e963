"""Sums and co-firing counts of given pairs, in one pass over the tokens.

Rows are read in order on both sides, and each row of one side is written out in full once. So a pair costs one
multiplication per token on which its owner fires, and no accumulator of all pairs is needed. Used for co-firing counts
of the best partners and for correlations on held-out text.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from unifeat.correlation import kernels
from unifeat.correlation.layout import even_ranges
from unifeat.correlation.moments import Profile, profiles
from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.threads import Team, cores
from unifeat.vocabulary.feature_ids import feature_ids
from unifeat.vocabulary.paired_codes import Array, ChunkPair, CsrArrays, PairedCodes, as_paired, normal_chunks


class Sums(NamedTuple):
    """Sums of given pairs."""

    total: Array  # (pairs,) float64, Σab after the dense features' shift
    cofiring: Array  # (pairs,) int64, rows on which both fire


class _Job(NamedTuple):
    """Pairs for one task of a thread."""

    side: int  # the side whose features own the pairs
    start: Array  # (features of that side + 1,) where each owner's pairs begin
    other: Array  # (pairs,) the features on the other side
    total: Array  # (pairs,) as in `Sums`
    cofiring: Array


def correlate_pairs(
    codes: PairedCodes | tuple[Any, Any], feature_a: Any, feature_b: Any, *, threads: int | None = None
) -> tuple[Array, Array]:
    """Exact correlations of given pairs on given codes: for instance, of pairs found on other text.

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
    a_ids, b_ids = pair_ids(paired, feature_a, feature_b)
    with ThreadPoolExecutor(threads) as pool:
        a, b, dtype = profiles(paired, pool, threads)
        work = PairSums(a, b, a_ids, b_ids, Team(pool, threads))
        if len(a_ids):
            with track("co-firing", paired.n_rows) as advance:
                for chunk in normal_chunks(paired, dtype):
                    work.add(chunk)
                    advance(chunk[0].rows)
        total, count = work.take()
    rank_a, rank_b = a.rank[a_ids], b.rank[b_ids]
    known = (rank_a >= 0) & (rank_b >= 0)
    i, j = rank_a[known], rank_b[known]
    r = np.full(len(total), np.nan)
    exact = (total[known] * a.scale[i]) * b.scale[j] - a.ratio[i] * b.ratio[j]
    r[known] = np.clip((exact + kernels.ROUNDING) - kernels.ROUNDING, -1.0, 1.0)
    return r, count


def cofiring(paired: PairedCodes, index_ab: Array, index_ba: Array, team: Team) -> tuple[Array, Array]:
    """Rows on which a feature and its partner both fire: (features, top) int64, 0 where there is no partner."""
    counts = np.zeros(index_ab.shape, np.int64), np.zeros(index_ba.shape, np.int64)
    tallies = [(_tally(index_ab, len(index_ba)), _tally(index_ba, len(index_ab))) for _ in range(team.threads)]
    with track("co-firing", paired.n_rows) as advance:
        for a, b in normal_chunks(paired):
            edges = np.linspace(0, a.rows, team.threads + 1).astype(int).tolist()

            def run(part: int, a: CsrArrays = a, b: CsrArrays = b, edges: list[int] = edges) -> None:
                kernels.count_partners(*a, *b, edges[part], edges[part + 1], *tallies[part])

            team.each(run, list(range(team.threads)))
            for of_thread in tallies:
                for count, tally in zip(counts, of_thread, strict=True):
                    count += tally[..., 1]
                    tally[..., 1] = 0
            advance(a.rows)
    return counts


def _tally(index: Array, no_partner: int) -> Array:
    tally = np.zeros((*index.shape, 2), np.uint32)
    tally[..., 0] = np.where(index >= 0, index, no_partner)
    return tally


class PairSums:
    """Sums of given pairs, added up chunk by chunk.

    Args:
        a, b: profiles of the two sides.
        feature_a, feature_b: (pairs,) feature ids.
    """

    def __init__(self, a: Profile, b: Profile, feature_a: Array, feature_b: Array, team: Team) -> None:
        self.both, self.team = (a, b), team
        self.n_pairs = len(feature_a)
        # A pair is owned by its feature with fewer pairs; otherwise each partner of a hub would cost the hub's tokens.
        by_b = np.bincount(feature_a, minlength=1)[feature_a] > np.bincount(feature_b, minlength=1)[feature_b]
        owned = np.flatnonzero(~by_b), np.flatnonzero(by_b)
        self.orders: list[Array] = []
        self.sums: list[Sums] = []
        self.jobs: list[_Job] = []
        share = -(-team.threads // 2) if len(owned[0]) and len(owned[1]) else team.threads
        for side, mine in enumerate(owned):
            owner, other = (feature_a, feature_b) if side == 0 else (feature_b, feature_a)
            order = mine[np.argsort(owner[mine], kind="stable")]
            owner, other = owner[order], other[order].astype(np.int32)
            sums = Sums(np.zeros(len(owner)), np.zeros(len(owner), np.int64))
            self.sums.append(sums)
            self.orders.append(order)
            count = self.both[side].moments.count
            for low, high in even_ranges(count[owner] + 1, share) if len(owner) else []:
                start = np.searchsorted(owner[low:high], np.arange(len(count) + 1))
                self.jobs.append(_Job(side, start, other[low:high], sums.total[low:high], sums.cofiring[low:high]))

        # For dense features: their place among the shifts, and their value on rows where they do not fire.
        self.places, self.bases = [], []
        for profile in self.both:
            dense = profile.order[: profile.dense]
            place, base = np.full(len(profile.rank), -1, np.int32), np.zeros(len(profile.rank))
            place[dense], base[dense] = np.arange(len(dense)), -profile.shift
            self.places.append(place)
            self.bases.append(base)

    def add(self, chunk: ChunkPair) -> None:
        """Add the rows of a chunk, in the form that `normal_chunks` gives."""

        def run(job: _Job) -> None:
            own, other = job.side, 1 - job.side
            kernels.sum_pairs(
                *chunk[own], self.places[own], self.both[own].shift, *chunk[other], self.bases[other],
                job.start, job.other, job.total, job.cofiring,
            )  # fmt: skip

        self.team.each(run, self.jobs)

    def take(self) -> Sums:
        """The sums so far, in the order of the given pairs. The sums are then reset to zero."""
        result = Sums(np.empty(self.n_pairs), np.empty(self.n_pairs, np.int64))
        for sums, order in zip(self.sums, self.orders, strict=True):
            for into, values in zip(result, sums, strict=True):
                into[order] = values
                values[:] = 0
        return result


def thread_count(threads: int | None) -> int:
    """`threads` or, if None, numba's number of threads, but not more than the cores that may be used.

    Raises:
        UserError: fewer than one.
    """
    from numba import config

    if threads is None:
        return min(int(config.NUMBA_NUM_THREADS), cores())
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    return threads


def pair_ids(paired: PairedCodes, feature_a: Any, feature_b: Any) -> tuple[Array, Array]:
    """Two (pairs,) int64 arrays of feature ids.

    Raises:
        UserError: ids that do not exist, or lists of different lengths.
    """
    a_ids = feature_ids(feature_a, "pairs: features of A", paired.features_a)
    b_ids = feature_ids(feature_b, "pairs: features of B", paired.features_b)
    if len(a_ids) != len(b_ids):
        raise UserError(f"{len(a_ids)} features of A cannot be paired with {len(b_ids)} of B")
    return a_ids, b_ids
