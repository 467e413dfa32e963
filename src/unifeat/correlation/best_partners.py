"""The best partners of every feature: plan the work, hand it to the threads, gather the lists.

Three ways through the data. Sparse codes have two, with the same bits in the end:
* They fit the memory: lay them out once, then one A feature after another, each in an accumulator that fits the cache.
* They do not: blocks of A features with one accumulator row each (`memory_gb`), all tokens once per block.
Dense codes have one: written out and multiplied by BLAS, a block at a time (`dense`). The codes alone decide which.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from unifeat.correlation import dense, kernels
from unifeat.correlation.kernels import Best, Scan
from unifeat.correlation.layout import MOST_ENTRIES, Outline, aligned, columns, even_ranges, groups, outline, records
from unifeat.correlation.moments import Profile
from unifeat.progress import Advance, track
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, ChunkPair, PairedCodes, normal_chunks

# Entries (both sides) laid out at once, per GB of `memory_gb`. An entry takes 6 to 12 bytes laid out, and 8
# more where the chunks are not views of something that is in memory anyway.
_IN_ONE_GO = 80_000_000  # with no block of accumulators beside it
_PER_GROUP = 50_000_000  # beside a block of `memory_gb`
_TASKS_PER_THREAD = 16
# What a walk to one record and a look at one correlation cost, in products.
_WALK, _LOOK = 20.0, 0.5
# How many multiply-adds of BLAS in float64 take as long as one sparse product, and how many are too few to bother.
_ADDS_A_PRODUCT = 35.0
_FEW_ADDS = 1e8


def best_partners(
    paired: PairedCodes, a: Profile, b: Profile, dtype: Any, top: int, memory_gb: float, team: Team
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(index, value), each (features, top), of A's best partners in B and of B's best partners in A."""
    search = _Search(a, b, dtype, paired.n_rows, top, team)
    if a.varying and b.varying:
        with track("correlation", paired.n_rows) as advance:
            search.advance = advance
            entries = a.entries(paired.n_rows) + b.entries(paired.n_rows) + paired.n_rows
            if _is_dense(a, b, paired.n_rows):
                search.as_dense(paired, memory_gb)
            elif entries <= min(_IN_ONE_GO * memory_gb, MOST_ENTRIES):
                search.in_one_go(list(normal_chunks(paired, dtype)))
            else:
                search.in_blocks(paired, memory_gb)
    return _by_feature([search.best_a], a), _by_feature(search.bests_b, b)


def _is_dense(a: Profile, b: Profile, n: int) -> bool:
    """Whether all products by BLAS cost less than those of codes that both fire (near 17 % of codes on either side)."""
    adds = float(n) * a.varying * b.varying
    products = a.entries(n) * (_WALK + b.entries(n) / n)
    return adds > _FEW_ADDS and adds < _ADDS_A_PRODUCT * products


class _Search:
    def __init__(self, a: Profile, b: Profile, dtype: Any, n: int, top: int, team: Team) -> None:
        self.a, self.b, self.dtype, self.n, self.team = a, b, dtype, n, team
        self.width = b.varying + -b.varying % kernels.TILE
        self.best_a = _nobody(a.varying, top)
        first = _nobody(self.width, top)
        self.bests_b = [first] + [_nobody(self.width, top, first.floor) for _ in range(team.threads - 1)]
        self.scan = Scan(
            a.scale,
            a.ratio,
            a.order,
            _padded(b.scale, self.width, 0.0),
            _padded(b.ratio, self.width, np.nan),  # NaN beats nothing: nobody's partner
            _padded(b.order, self.width, 0),
        )
        self.advance: Advance = lambda n=1, note="": None
        self._work, self._did, self._told = float(max(a.entries(self.n), 1)), 0.0, 0

    def in_one_go(self, chunks: list[ChunkPair]) -> None:
        plan = outline(chunks, self.a, self.b, self.dtype, self.team)
        layout = records(chunks, plan, self.b, self.dtype, self.team)
        entries = columns(chunks, plan, self.a, 0, self.a.varying, self.team)
        desks = [(best_b, aligned((1, self.width), fill=0.0)) for best_b in self.bests_b]

        def task(desk: tuple[Best, Array], low: int, high: int) -> None:
            best_b, total = desk
            kernels.multiply_and_select(low, high, entries, layout, total, self.scan, self.best_a, best_b)

        per_entry = _WALK + self.b.entries(self.n) / self.n
        ranges = self._ranges(np.diff(entries.start) * per_entry + self.width * _LOOK)
        self._at_desks(task, desks, ranges, lambda low, high: int(entries.start[high] - entries.start[low]))

    def in_blocks(self, paired: PairedCodes, memory_gb: float) -> None:
        block = int(np.clip(memory_gb * 1e9 / (8 * self.width), 1, self.a.varying))
        totals = aligned((block, self.width), fill=0.0)
        limit = max(int(_PER_GROUP * memory_gb), 1)
        plans: list[Outline] = []
        for low in range(0, self.a.varying, block):
            high = min(low + block, self.a.varying)
            for i, chunks in enumerate(groups(paired, self.dtype, self.a, self.b, limit)):
                if not low:
                    plans.append(outline(chunks, self.a, self.b, self.dtype, self.team))
                self._multiply(chunks, plans[i], low, high, totals)

            def task(best_b: Best, first: int, last: int, low: int = low) -> None:
                kernels.select(low + first, low + last, low, totals, self.scan, self.best_a, best_b)

            self._at_desks(task, self.bests_b, self._ranges(np.ones(high - low)), lambda first, last: 0)

    def as_dense(self, paired: PairedCodes, memory_gb: float) -> None:
        plan = dense.blocks(self.a.varying, self.width, memory_gb)
        room = dense.Room.of(plan)
        self._work = float(self.n) * self.a.varying * self.width
        for block in plan:
            low, high, over_b = block.low_a, block.high_a, slice(block.low_b, block.high_b)
            for rows in dense.multiply(paired, self.a, self.b, block, room, self.team):
                self._done(rows * (high - low) * (over_b.stop - over_b.start))
            totals, scan = room.block(block), self.scan.over_b(over_b)

            def task(
                best_b: Best, first: int, last: int, low: int = low, totals: Array = totals, scan: Scan = scan
            ) -> None:
                kernels.select(low + first, low + last, low, totals, scan, self.best_a, best_b)

            desks = [best_b.over(over_b) for best_b in self.bests_b]
            self._at_desks(task, desks, self._ranges(np.ones(high - low)), lambda first, last: 0)

    def _multiply(self, chunks: list[ChunkPair], plan: Outline, low: int, high: int, totals: Array) -> None:
        layout = records(chunks, plan, self.b, self.dtype, self.team)
        entries = columns(chunks, plan, self.a, low, high, self.team)
        ranges = self._ranges(np.diff(entries.start) + 1)
        self.team.each(lambda span: kernels.multiply(*span, entries, layout, totals), ranges)
        self._done(int(entries.start[-1]))

    def _at_desks(
        self,
        task: Callable[[Any, int, int], None],
        desks: list[Any],
        ranges: list[tuple[int, int]],
        entries: Callable[[int, int], int],
    ) -> None:
        """Run the task on every range; each thread works at a desk of its own (its lists, its accumulator)."""
        free: SimpleQueue[Any] = SimpleQueue()
        for desk in desks:
            free.put(desk)

        def run(span: tuple[int, int]) -> int:
            desk = free.get()
            try:
                task(desk, *span)
            finally:
                free.put(desk)
            return entries(*span)

        for done in self.team.pool.map(run, ranges):
            self._done(done)

    def _ranges(self, work: Array) -> list[tuple[int, int]]:
        """Ranges of ranks with about equal work, enough of them that the last to finish is not far behind."""
        return even_ranges(work, self.team.threads * _TASKS_PER_THREAD)

    def _done(self, work: float) -> None:
        """Progress in tokens: every entry of A (dense codes: every product) counts exactly once, however it is cut."""
        self._did += work
        tokens = int(self.n * (self._did / self._work))
        self.advance(tokens - self._told)
        self._told = tokens


def _nobody(features: int, top: int, floor: Array | None = None) -> Best:
    return Best(
        np.full((features, top), -np.inf),
        np.full((features, top), -1, np.int32),
        aligned(features, fill=-np.inf) if floor is None else floor,
    )


def _padded(array: Array, size: int, fill: float) -> Array:
    padded = aligned(size, array.dtype, fill)
    padded[: len(array)] = array
    return padded


def _by_feature(bests: list[Best], profile: Profile) -> tuple[Array, Array]:
    """Several lists by rank as one by feature id, (index, value): larger r first, then the lower id."""
    value = np.concatenate([best.value[: profile.varying] for best in bests], axis=1)
    index = np.concatenate([best.partner[: profile.varying] for best in bests], axis=1)
    top = bests[0].value.shape[1]
    order = np.lexsort((index, -value), axis=-1)[:, :top]
    by_id = np.full((len(profile.rank), top), -1, np.int32), np.full((len(profile.rank), top), np.nan)
    by_id[0][profile.order] = np.take_along_axis(index, order, 1)
    by_id[1][profile.order] = np.where(by_id[0][profile.order] >= 0, np.take_along_axis(value, order, 1), np.nan)
    return by_id
