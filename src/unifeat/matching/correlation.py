"""Exact Pearson correlation of every feature of A with every feature of B over sparse codes.

r = (Σab − n μa μb) / (n σa σb). Only Σab takes work, and only where both fire: k_A·k_B products a token instead of
F_A·F_B. But every r is then looked at, also those of pairs that never fire together: with codes of both signs such a
pair can be the best one, so nothing is skipped.

Two ways through the data, the same bits:
* It fits the memory: lay it out once, then one A feature after another, each in a cache-sized accumulator.
* It does not: blocks of A features with an accumulator row each (`memory_gb`), all tokens once per block.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from unifeat.errors import UserError
from unifeat.matching import kernels
from unifeat.matching.kernels import Best, Scan
from unifeat.matching.layout import Team, columns, even_ranges, groups, records
from unifeat.matching.moments import Moments, Profile, profiles
from unifeat.matching.pairs import cofiring, thread_count
from unifeat.matching.paired import Array, ChunkPair, PairedCodes, as_paired
from unifeat.progress import Advance, track

if TYPE_CHECKING:
    import pandas as pd

# Entries (both sides) laid out at once, per GB of `memory_gb`. An entry takes 6 to 8 bytes laid out (float32), and as
# much again where the chunks are not views of something that is in memory anyway.
_ENTRIES_IN_ONE_GO = 100_000_000  # with no accumulator block beside it
_ENTRIES_PER_GROUP = 67_000_000  # beside an accumulator block of `memory_gb`
_TASKS_PER_THREAD = 16
_BATCH = 4  # accumulators of a thread: they share the reading of B's moments, and must fit the cache with them


@dataclass(frozen=True)
class Partners:
    """Each feature's best partners in the other space, best first.

    Attributes:
        index: (features, top) int32, the partner's feature id, −1 where there is none.
        value: (features, top) float64, Pearson's r, NaN where there is none.
        count: (features, top) int64, tokens on which both fire, 0 where there is none.
    """

    index: Array
    value: Array
    count: Array


@dataclass(frozen=True)
class Correlation:
    """What `correlate` found.

    Attributes:
        n: tokens.
        a_to_b: for each feature of A its best partners in B.
        b_to_a: for each feature of B its best partners in A.
        moments_a, moments_b: firing count, mean and sd of every feature.
    """

    n: int
    a_to_b: Partners
    b_to_a: Partners
    moments_a: Moments
    moments_b: Moments

    def candidates(self) -> pd.DataFrame:
        """All pairs of both directions, once each, ordered by (feature_a, feature_b).

        Columns: feature_a, feature_b (int32), correlation (float64), cofiring (int64: tokens on which both fire),
        rank_a_to_b and rank_b_to_a (int32: 1 = best partner; 0 = not among the best partners in this direction).
        """
        import pandas as pd

        a, rank_ab = np.nonzero(self.a_to_b.index >= 0)
        b, rank_ba = np.nonzero(self.b_to_a.index >= 0)
        forward = self.a_to_b.index[a, rank_ab].astype(np.int64)
        backward = self.b_to_a.index[b, rank_ba].astype(np.int64)
        width = max(len(self.b_to_a.index), 1)
        key, first, place = np.unique(
            np.concatenate([a * width + forward, backward * width + b]), return_index=True, return_inverse=True
        )
        ranks = np.zeros((2, len(key)), np.int32)
        ranks[0, place[: len(a)]] = rank_ab + 1
        ranks[1, place[len(a) :]] = rank_ba + 1
        value = np.concatenate([self.a_to_b.value[a, rank_ab], self.b_to_a.value[b, rank_ba]])
        count = np.concatenate([self.a_to_b.count[a, rank_ab], self.b_to_a.count[b, rank_ba]])
        return pd.DataFrame(
            {
                "feature_a": (key // width).astype(np.int32),
                "feature_b": (key % width).astype(np.int32),
                "correlation": value[first],
                "cofiring": count[first],
                "rank_a_to_b": ranks[0],
                "rank_b_to_a": ranks[1],
            }
        )


def correlate(
    codes_a: Any, codes_b: Any = None, *, top: int = 4, memory_gb: float = 1.0, threads: int | None = None
) -> Correlation:
    """Correlate every feature of A with every feature of B and keep each one's best partners, in both directions.

    Every r is within 1e-5 of numpy.corrcoef in float64 (in practice 1e-12, to which r is rounded so that correlations
    equal on paper tie; ties go to the lower feature id). Codes may be negative. A feature that never varies has no
    partner and is nobody's partner. The result is the same bit for bit for any `threads`, `memory_gb` and chunking.

    Args:
        codes_a: scipy sparse matrix (tokens, features of A), or `PairedCodes` holding both sides (and no `codes_b`).
        codes_b: scipy sparse matrix (tokens, features of B), the same tokens in the same order.
        top: how many partners to keep.
        memory_gb: memory of the accumulator; half as much again, and a little, goes to codes being laid out. Less
            memory means more passes over the tokens.
        threads: threads to use; numba's number by default (all cores, or NUMBA_NUM_THREADS).

    Raises:
        UserError: different numbers of rows, NaN or infinite codes, malformed codes or settings.
    """
    if top < 1:
        raise UserError(f"top must be at least 1, not {top}")
    if not memory_gb > 0:
        raise UserError(f"memory_gb must be positive, not {memory_gb}")
    paired, threads = as_paired(codes_a, codes_b), thread_count(threads)
    with ThreadPoolExecutor(threads) as pool:
        team = Team(pool, threads)
        a, b, dtype = profiles(paired, pool, threads)
        best_a, best_b = _best_partners(paired, a, b, dtype, top, memory_gb, team)
        index_ab, value_ab = _by_feature(best_a, a)
        index_ba, value_ba = _by_feature(best_b, b)
        count_ab, count_ba = cofiring(paired, index_ab, index_ba, team)
    a_to_b, b_to_a = Partners(index_ab, value_ab, count_ab), Partners(index_ba, value_ba, count_ba)
    return Correlation(paired.n_rows, a_to_b, b_to_a, a.moments, b.moments)


def _best_partners(
    paired: PairedCodes, a: Profile, b: Profile, dtype: Any, top: int, memory_gb: float, team: Team
) -> tuple[Best, Best]:
    """The best partners by rank, both ways."""
    best_a, bests_b = _nobody(a.varying, top), [_nobody(b.varying, top) for _ in range(team.threads)]
    if a.varying and b.varying:
        n = paired.n_rows
        with track("correlation", n) as advance:
            work = _Work(a, b, dtype, best_a, bests_b, team, _Share(advance, n, a.entries(n)))
            if a.entries(n) + b.entries(n) + n <= _ENTRIES_IN_ONE_GO * memory_gb:
                work.in_one_go([chunk for group in groups(paired, dtype, a, b, 1 << 62) for chunk in group])
            else:
                work.in_blocks(paired, memory_gb)
    return best_a, _merge(bests_b)


class _Share:
    """Progress in tokens, from entries of A done: each is multiplied exactly once, in one go or in blocks."""

    def __init__(self, advance: Advance, tokens: int, entries: int) -> None:
        self.advance, self.rate, self.done, self.told = advance, tokens / max(entries, 1), 0, 0

    def add(self, entries: int) -> None:
        self.done += entries
        tokens = int(self.done * self.rate)
        self.advance(tokens - self.told)
        self.told = tokens


@dataclass(frozen=True)
class _Work:
    a: Profile
    b: Profile
    dtype: Any
    best_a: Best
    bests_b: list[Best]  # one per thread, merged at the end
    team: Team
    share: _Share

    @property
    def scan(self) -> Scan:
        a, b = self.a, self.b
        rest = self.width - b.varying  # NaN beats nothing: the padding is nobody's partner
        scale, ratio = np.pad(b.scale, (0, rest)), np.pad(b.ratio, (0, rest), constant_values=np.nan)
        return Scan(a.scale, a.ratio, a.order, scale, ratio, np.pad(b.order, (0, rest)))

    @property
    def width(self) -> int:
        """B's ranks in the kernels, padded."""
        return -(-self.b.varying // kernels.LOOK) * kernels.LOOK

    def in_one_go(self, chunks: list[ChunkPair]) -> None:
        layout, start = records([b for _, b in chunks], self.b, self.dtype, self.team)
        entries = columns([a for a, _ in chunks], self.a, start, 0, self.a.varying, self.team)
        desks: SimpleQueue[tuple[Array, Best]] = SimpleQueue()
        for best_b in self.bests_b:
            desks.put((np.zeros((_BATCH, self.width)), best_b))

        def task(ranks: tuple[int, int]) -> int:
            desk = desks.get()
            try:
                kernels.multiply_and_select(*ranks, entries, layout, desk[0], self.scan, self.best_a, desk[1])
            finally:
                desks.put(desk)
            return int(entries.start[ranks[1]] - entries.start[ranks[0]])

        for done in self.team.pool.map(task, self._tasks(np.diff(entries.start), scanned=True)):
            self.share.add(done)

    def in_blocks(self, paired: PairedCodes, memory_gb: float) -> None:
        block = int(np.clip(memory_gb * 1e9 / (8 * self.width), 1, self.a.varying))
        totals = np.zeros((block, self.width))
        for low in range(0, self.a.varying, block):
            high = min(low + block, self.a.varying)
            for chunks in groups(paired, self.dtype, self.a, self.b, int(_ENTRIES_PER_GROUP * memory_gb)):
                self._multiply(chunks, low, high, totals)
            self._select(low, high, totals)

    def _multiply(self, chunks: list[ChunkPair], low: int, high: int, totals: Array) -> None:
        layout, start = records([b for _, b in chunks], self.b, self.dtype, self.team)
        entries = columns([a for a, _ in chunks], self.a, start, low, high, self.team)
        tasks = self._tasks(np.diff(entries.start), scanned=False)
        self.team.each(
            lambda ranks: kernels.multiply(low + ranks[0], low + ranks[1], low, entries, layout, totals), tasks
        )
        self.share.add(int(entries.start[-1]))

    def _select(self, low: int, high: int, totals: Array) -> None:
        desks: SimpleQueue[Best] = SimpleQueue()
        for best_b in self.bests_b:
            desks.put(best_b)

        def task(ranks: tuple[int, int]) -> None:
            best_b = desks.get()
            try:
                kernels.select(
                    low + ranks[0], low + ranks[1], low, totals, self.scan, self.best_a, best_b
                )
            finally:
                desks.put(best_b)

        self.team.each(task, self._tasks(np.zeros(high - low), scanned=True))

    def _tasks(self, entries: Array, scanned: bool) -> list[tuple[int, int]]:
        """Ranges of ranks of about equal work: enough of them that the last to finish is not far behind."""
        row = self.b.varying if scanned else 1
        per_entry = self.b.moments.count.sum() / max(int(self.b.moments.count.max()), 1)
        return even_ranges(entries * per_entry + row, self.team.threads * _TASKS_PER_THREAD)


def _nobody(features: int, top: int) -> Best:
    return Best(
        np.full((features, top), -np.inf), np.full((features, top), -1, np.int32), np.full(features, -np.inf)
    )


def _merge(bests: list[Best]) -> Best:
    """The best of several lists per feature: larger r first, then the lower id."""
    value = np.concatenate([best.value for best in bests], axis=1)
    index = np.concatenate([best.index for best in bests], axis=1)
    order = np.lexsort((index, -value), axis=-1)[:, : bests[0].value.shape[1]]
    return Best(np.take_along_axis(value, order, 1), np.take_along_axis(index, order, 1), bests[0].floor)


def _by_feature(best: Best, profile: Profile) -> tuple[Array, Array]:
    """(index, value) by feature id instead of rank."""
    shape = (len(profile.rank), best.value.shape[1])
    index, value = np.full(shape, -1, np.int32), np.full(shape, np.nan)
    index[profile.order] = best.index
    value[profile.order] = np.where(best.index >= 0, best.value, np.nan)
    return index, value
